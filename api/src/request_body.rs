//! A request's body on its way in, which tells the connection's clock if somebody has left some of it unread.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};

use crate::connection_clock::ConnectionClock;

/// The body of a request that came over a connection.
#[derive(Debug)]
pub(crate) struct RequestBody {
    body: Incoming,
    clock: Arc<ConnectionClock>,
    ended: bool,
}

impl RequestBody {
    pub(crate) fn new(body: Incoming, clock: Arc<ConnectionClock>) -> Self {
        Self {
            body,
            clock,
            ended: false,
        }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        // After an error there may be more that the client sends: it can have been a chunk that is none.
        self.ended = frame.is_none();
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        if !self.ended && !self.body.is_end_stream() {
            self.clock.leave_unread();
        }
    }
}
