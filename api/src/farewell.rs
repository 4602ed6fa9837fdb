//! How a connection ends on which the client still sends: closed at once, what it sends next would take the answer away
//! from it, unread. So the service ends its own side, and reads on for a while without looking.
//!
//! Also what a connection is told that there is no place for.

use std::future::Future;
use std::io;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::api::Shared;
use crate::error::{Problem, ProblemKind};

/// Most bytes that are read and thrown away behind an answer: four bodies of the largest size.
const DISCARDED_BYTES_MAX: usize = 1024 * 1024;
/// How much of them is read at once.
const DISCARDED_AT_ONCE: usize = 16 * 1024;
/// How long a stopping service still reads so.
const STOPPING_FAREWELL: Duration = Duration::from_secs(1);
/// How long a refused connection may take to read that it is refused.
const REFUSAL_TIMEOUT: Duration = Duration::from_secs(1);

/// Reads what a client sends behind its answer, until it ends, for `limit` at most. The service's own side has ended.
pub(crate) async fn read_on<S>(stream: &mut S, limit: Duration, stopped: impl Future<Output = ()>)
where
    S: AsyncRead + Unpin,
{
    let reading = async {
        let mut bytes = vec![0; DISCARDED_AT_ONCE];
        let mut left = DISCARDED_BYTES_MAX;
        while let Ok(read) = stream.read(&mut bytes).await
            && (1..=left).contains(&read)
        {
            left -= read;
        }
    };
    let time_is_over = async {
        tokio::select! {
            () = tokio::time::sleep(limit) => {}
            () = async {
                stopped.await;
                tokio::time::sleep(STOPPING_FAREWELL).await;
            } => {}
        }
    };
    tokio::select! {
        () = reading => {}
        () = time_is_over => {}
    }
}

/// Tells a connection above the cap to come back later.
pub(crate) async fn refuse<S>(mut stream: S, shared: &Shared)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let refusal = refusal(shared);
    let told = tokio::time::timeout(REFUSAL_TIMEOUT, async {
        stream.write_all(&refusal).await?;
        stream.shutdown().await?;
        // Its request is not looked at, but may be on its way.
        read_on(&mut stream, REFUSAL_TIMEOUT, shared.stopped()).await;
        Ok::<_, io::Error>(())
    });
    if let Ok(Err(error)) = told.await {
        tracing::debug!(%error, "a refused connection was gone before it was told");
    }
}

/// A whole answer. What was asked is not known: the instance is the service's root.
fn refusal(shared: &Shared) -> Vec<u8> {
    let id = shared.next_request_id();
    let id = id.to_str().unwrap_or_default();
    let problem = Problem::new(
        ProblemKind::Overloaded,
        "the service has as many connections as it takes",
    );
    let mut json = Vec::new();
    problem.write_json("/", id, &mut json);
    let retry_after = problem.retry_after().unwrap_or_default().as_secs();
    let mut answer = format!(
        "HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/problem+json\r\nretry-after: {retry_after}\r\n\
         x-request-id: {id}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
        json.len()
    )
    .into_bytes();
    answer.extend_from_slice(&json);
    answer
}
