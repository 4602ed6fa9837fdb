//! A connection's stream that tells the connection's clock when its client takes something of an answer: one that reads
//! slowly gets all of it, one that does not read is cut off.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::connection_clock::ConnectionClock;

/// A stream under the eyes of a clock. Only borrows the stream: what it is worth after HTTP is its owner's.
#[derive(Debug)]
pub(crate) struct AnswerStream<'a, S> {
    stream: &'a mut S,
    clock: Arc<ConnectionClock>,
}

impl<'a, S> AnswerStream<'a, S> {
    pub(crate) fn new(stream: &'a mut S, clock: Arc<ConnectionClock>) -> Self {
        Self { stream, clock }
    }

    fn taken(&self, bytes: usize) -> usize {
        if bytes > 0 {
            self.clock.progress(Instant::now());
        }
        bytes
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for AnswerStream<'_, S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for AnswerStream<'_, S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut *self.stream).poll_write(context, bytes))?;
        Poll::Ready(Ok(self.taken(written)))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut *self.stream).poll_write_vectored(context, pieces))?;
        Poll::Ready(Ok(self.taken(written)))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.stream).poll_shutdown(context)
    }
}
