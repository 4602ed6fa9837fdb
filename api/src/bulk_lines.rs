//! A body cut into lines as it comes: each with its number, or why it is none.

use std::time::Duration;

use axum::body::{Body, BodyDataStream};
use bytes::{Buf, Bytes, BytesMut};
use futures_util::{Stream, StreamExt, stream};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::error::{Problem, ProblemKind};

/// One line of the request, or why there is none.
#[derive(Debug)]
pub(crate) struct Line {
    /// From 1.
    pub(crate) number: u64,
    pub(crate) content: Result<Bytes, Problem>,
}

/// Cuts a body into lines as it comes.
pub(crate) struct Lines {
    body: BodyDataStream,
    line_bytes_max: usize,
    /// Longest time for a whole line: bytes alone, or empty lines, do not keep a stream open.
    line_timeout: Duration,
    stopping: watch::Receiver<bool>,
    /// What came and is no whole line yet; at most a line and a piece.
    rest: BytesMut,
    /// How much of `rest` is known to hold no line feed.
    searched: usize,
    number: u64,
    /// Whether the line at hand is over the limit: its rest is skipped.
    skipping: bool,
    ended: bool,
}

impl Lines {
    pub(crate) fn new(
        body: Body,
        line_bytes_max: usize,
        line_timeout: Duration,
        stopping: watch::Receiver<bool>,
    ) -> Self {
        Self {
            body: body.into_data_stream(),
            line_bytes_max,
            line_timeout,
            stopping,
            rest: BytesMut::new(),
            searched: 0,
            number: 0,
            skipping: false,
            ended: false,
        }
    }

    pub(crate) fn stream(self) -> impl Stream<Item = Line> {
        stream::unfold(self, async |mut lines| {
            let line = lines.next().await?;
            Some((line, lines))
        })
    }

    /// The next line that is not empty; `None` behind the last.
    async fn next(&mut self) -> Option<Line> {
        let deadline = Instant::now() + self.line_timeout;
        loop {
            if let Some(content) = self.cut() {
                self.number += 1;
                if content.len() > self.line_bytes_max {
                    return Some(self.too_long());
                }
                if !content.trim_ascii().is_empty() {
                    return Some(self.line(Ok(content)));
                }
                continue;
            }
            if self.ended {
                return None;
            }
            if self.rest.len() > self.line_bytes_max && !self.skipping {
                self.skipping = true;
                self.number += 1;
                return Some(self.too_long());
            }
            if let Err(problem) = self.receive(deadline).await {
                self.ended = true;
                self.rest.clear();
                self.searched = 0;
                self.number += 1;
                return Some(self.line(Err(problem)));
            }
        }
    }

    fn too_long(&self) -> Line {
        let limit = self.line_bytes_max;
        self.line(Err(Problem::new(
            ProblemKind::BodyTooLarge,
            format!("a line has at most {limit} bytes"),
        )))
    }

    fn line(&self, content: Result<Bytes, Problem>) -> Line {
        Line {
            number: self.number,
            content,
        }
    }

    /// The next whole line that has come, without its line feed; when all has come, what stands behind the last.
    fn cut(&mut self) -> Option<Bytes> {
        loop {
            let unsearched = &self.rest[self.searched..];
            let line_feed = unsearched.iter().position(|byte| *byte == b'\n');
            let line = match line_feed {
                Some(at) => {
                    let line = self.rest.split_to(self.searched + at);
                    self.rest.advance(1);
                    line
                }
                None if self.ended && !self.rest.is_empty() => self.rest.split(),
                None => {
                    if self.skipping {
                        self.rest.clear();
                    }
                    self.searched = self.rest.len();
                    return None;
                }
            };
            self.searched = 0;
            if !std::mem::take(&mut self.skipping) {
                // A copy of its own: a piece of what came would keep all of it in memory for as long as the line is.
                return Some(Bytes::copy_from_slice(&line));
            }
        }
    }

    /// Waits for more of the body. What has come is taken even if the time is over: the stream may have been held up by
    /// answers that were not read.
    async fn receive(&mut self, deadline: Instant) -> Result<(), Problem> {
        let piece = tokio::select! {
            biased;
            _ = self.stopping.wait_for(|stopping| *stopping) => return Err(Problem::new(
                ProblemKind::Stopping,
                "this line and all behind it were not looked at",
            )),
            piece = tokio::time::timeout_at(deadline, self.body.next()) => piece,
        };
        match piece {
            Ok(Some(Ok(piece))) => self.rest.extend_from_slice(&piece),
            Ok(None) => self.ended = true,
            Ok(Some(Err(error))) => {
                let broken = format!("the body broke off: {error}");
                return Err(Problem::new(ProblemKind::InvalidRequest, broken));
            }
            Err(_elapsed) => {
                return Err(Problem::new(
                    ProblemKind::RequestTimeout,
                    "the next line took too long to arrive",
                ));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use proptest::prelude::*;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(60);

    /// The lines of a body that comes in pieces: number and content, `None` for one that is too long.
    fn lines(pieces: Vec<Vec<u8>>, line_bytes_max: usize) -> Vec<(u64, Option<Vec<u8>>)> {
        let pieces = pieces
            .into_iter()
            .map(|piece| Ok::<_, Infallible>(Bytes::from(piece)));
        let stopping = watch::Sender::new(false);
        let body = Body::from_stream(stream::iter(pieces.collect::<Vec<_>>()));
        let lines = Lines::new(body, line_bytes_max, PATIENCE, stopping.subscribe());
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .unwrap();
        let lines: Vec<Line> = runtime.block_on(lines.stream().collect());
        let shown = |line: Line| {
            (
                line.number,
                line.content.ok().map(|content| content.to_vec()),
            )
        };
        lines.into_iter().map(shown).collect()
    }

    fn whole(text: &str) -> Vec<(u64, Option<Vec<u8>>)> {
        lines(vec![text.as_bytes().to_vec()], 8)
    }

    #[test]
    fn lines_are_numbered_and_empty_ones_only_counted() {
        let line = |number, text: &str| (number, Some(text.as_bytes().to_vec()));
        assert_eq!(whole("a\n\n \nb"), [line(1, "a"), line(4, "b")]);
        assert_eq!(whole("a\nb\n"), [line(1, "a"), line(2, "b")]);
        assert_eq!(whole(""), []);
    }

    #[test]
    fn a_line_that_is_too_long_costs_itself_alone() {
        let line = |number, text: &str| (number, Some(text.as_bytes().to_vec()));
        let expected = [line(1, "a"), (2, None), line(3, "12345678")];
        assert_eq!(whole("a\n123456789\n12345678\n"), expected);
        let pieces = ["a\n12345", "6789", "0", "1\n1234", "5678"];
        let pieces = pieces.map(|piece| piece.as_bytes().to_vec()).to_vec();
        assert_eq!(lines(pieces, 8), expected);
    }

    #[tokio::test]
    async fn a_line_keeps_nothing_of_what_came_with_it() {
        let text = format!("{}\na\n", "x".repeat(100_000));
        let body = Body::from(text);
        let stopping = watch::Sender::new(false);
        let mut lines = Lines::new(body, 8, PATIENCE, stopping.subscribe());
        lines.next().await.unwrap().content.expect_err("too long");
        let line = lines.next().await.unwrap().content.unwrap();
        let line = line.try_into_mut().expect("nobody else has it");
        assert_eq!((line.as_ref(), line.capacity()), (&b"a"[..], 1));
    }

    #[tokio::test]
    async fn bytes_and_empty_lines_do_not_keep_a_stream_open() {
        const TIMEOUT: Duration = Duration::from_millis(50);
        let stopping = watch::Sender::new(false);
        for piece in ["x", "\n", "\r\n"] {
            let pieces = stream::unfold((), move |()| async move {
                tokio::time::sleep(TIMEOUT / 10).await;
                let piece = Bytes::from_static(piece.as_bytes());
                Some((Ok::<_, Infallible>(piece), ()))
            });
            let body = Body::from_stream(pieces);
            let mut lines = Lines::new(body, 1024 * 1024, TIMEOUT, stopping.subscribe());
            let line = tokio::time::timeout(PATIENCE, lines.next()).await;
            let line = line.expect("it ends").expect("it is told why");
            let problem = line.content.expect_err("no line came");
            assert_eq!(problem.kind(), ProblemKind::RequestTimeout, "{piece:?}");
            assert!(lines.next().await.is_none());
        }
    }

    #[tokio::test]
    async fn whoever_sends_lines_in_time_goes_on_for_longer_than_a_line_may_take() {
        const TIMEOUT: Duration = Duration::from_secs(2);
        const PAUSE: Duration = Duration::from_millis(25);
        const LINES: u32 = 50;
        const _: () = assert!(PAUSE.as_millis() * 2 * (LINES as u128) > TIMEOUT.as_millis());
        let stopping = watch::Sender::new(false);
        let pieces = stream::iter(0..2 * LINES).then(|number| async move {
            tokio::time::sleep(PAUSE).await;
            let piece = if number % 2 == 0 { "half" } else { " a line\n" };
            Ok::<_, Infallible>(Bytes::from_static(piece.as_bytes()))
        });
        let lines = Lines::new(
            Body::from_stream(pieces),
            1024,
            TIMEOUT,
            stopping.subscribe(),
        );
        let lines: Vec<Line> = lines.stream().collect().await;
        assert_eq!(lines.len(), 50);
        assert!(lines.iter().all(|line| line.content.is_ok()));
    }

    #[test]
    fn a_stopping_service_says_which_lines_it_did_not_look_at() {
        let stopping = watch::Sender::new(true);
        let body = Body::from_stream(stream::pending::<Result<Bytes, Infallible>>());
        let mut lines = Lines::new(body, 8, PATIENCE, stopping.subscribe());
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .unwrap();
        let line = runtime.block_on(lines.next()).expect("a last line");
        assert_eq!(
            line.content.expect_err("stopping").kind(),
            ProblemKind::Stopping
        );
        assert!(runtime.block_on(lines.next()).is_none());
    }

    proptest! {
        #[test]
        fn how_a_body_is_cut_into_pieces_makes_no_difference(
            text in "[ab\n]{0,60}",
            cuts in proptest::collection::vec(0_usize..10, 0..30),
        ) {
            let mut rest = text.as_bytes();
            let mut pieces = Vec::new();
            for cut in cuts {
                let (piece, behind) = rest.split_at(cut.min(rest.len()));
                pieces.push(piece.to_vec());
                rest = behind;
            }
            pieces.push(rest.to_vec());
            prop_assert_eq!(lines(pieces, 8), whole(&text));
        }
    }
}
