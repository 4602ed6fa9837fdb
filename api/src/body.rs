//! A request's body in memory: of the right type, within the limit, without copying what came in one piece.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;

use axum::body::HttpBody;
use axum::extract::{FromRequest, Request};
use axum::http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderValue};
use bytes::{Bytes, BytesMut};
use hyper::body::Frame;

use crate::api::Shared;
use crate::connection_clock::ConnectionClock;
use crate::error::{Problem, ProblemKind};

/// The bytes of a JSON body; empty if there is none.
#[derive(Debug)]
pub(crate) struct JsonBody(pub(crate) Bytes);

impl FromRequest<Arc<Shared>> for JsonBody {
    type Rejection = Problem;

    async fn from_request(request: Request, shared: &Arc<Shared>) -> Result<Self, Problem> {
        let (parts, body) = request.into_parts();
        let clock = parts.extensions.get::<Arc<ConnectionClock>>();
        let clock = clock.map(Arc::as_ref);
        Self::read(&parts.headers, body, shared.config.body_bytes_max, clock).await
    }
}

impl JsonBody {
    /// Reads a body of at most `limit` bytes. The connection's clock is told while the client keeps us waiting.
    pub(crate) async fn read<B>(
        headers: &HeaderMap,
        body: B,
        limit: usize,
        clock: Option<&ConnectionClock>,
    ) -> Result<Self, Problem>
    where
        B: HttpBody<Data = Bytes>,
        B::Error: std::fmt::Display,
    {
        // Who waits to be told to go on (`Expect: 100-continue`) is told not to; who does not, reads the answer behind what
        // it sends.
        if declared_length(headers).is_some_and(|length| length > limit as u64) {
            return Err(too_large(limit));
        }
        let bytes = whole(body, limit, clock).await?;
        if !bytes.is_empty() {
            if !headers.get(CONTENT_TYPE).is_some_and(is_json) {
                return Err(Problem::new(
                    ProblemKind::UnsupportedMediaType,
                    "send the body as Content-Type: application/json",
                ));
            }
            refuse_coding(headers)?;
        }
        Ok(Self(bytes))
    }
}

/// A body is read as it comes: one that says it is compressed is none of ours (RFC 9110, 15.5.16).
pub(crate) fn refuse_coding(headers: &HeaderMap) -> Result<(), Problem> {
    match headers.get(CONTENT_ENCODING) {
        Some(coding) if !coding.as_bytes().eq_ignore_ascii_case(b"identity") => Err(Problem::new(
            ProblemKind::UnsupportedMediaType,
            "send the body without a Content-Encoding",
        )),
        _ => Ok(()),
    }
}

fn declared_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

#[cold]
fn too_large(limit: usize) -> Problem {
    Problem::new(
        ProblemKind::BodyTooLarge,
        format!("a body has at most {limit} bytes"),
    )
}

/// `application/json`, in any case, with UTF-8 as the only charset there is.
fn is_json(value: &HeaderValue) -> bool {
    if value == "application/json" {
        return true;
    }
    let Ok(text) = value.to_str() else {
        return false;
    };
    let mut parts = text.split(';').map(str::trim);
    let essence = parts.next().unwrap_or_default();
    essence.eq_ignore_ascii_case("application/json")
        && parts.all(|parameter| {
            let charset = parameter.split_once('=');
            charset.is_none_or(|(name, value)| {
                !name.eq_ignore_ascii_case("charset")
                    || value.trim_matches('"').eq_ignore_ascii_case("utf-8")
            })
        })
}

/// All of `body`, if it is within `limit` bytes.
async fn whole<B>(body: B, limit: usize, clock: Option<&ConnectionClock>) -> Result<Bytes, Problem>
where
    B: HttpBody<Data = Bytes>,
    B::Error: std::fmt::Display,
{
    let mut body = pin!(body);
    let mut first = Bytes::new();
    let mut more = BytesMut::new();
    loop {
        let data = match next_frame(body.as_mut(), clock).await {
            None => break,
            // Trailers have no meaning here.
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) => data,
                Err(_trailers) => continue,
            },
            Some(Err(error)) => {
                return Err(Problem::new(
                    ProblemKind::InvalidRequest,
                    format!("the body broke off: {error}"),
                ));
            }
        };
        if first.len() + more.len() + data.len() > limit {
            return Err(too_large(limit));
        }
        if first.is_empty() && more.is_empty() {
            first = data;
        } else {
            if more.is_empty() {
                more.extend_from_slice(&std::mem::take(&mut first));
            }
            more.extend_from_slice(&data);
        }
        if body.is_end_stream() {
            break;
        }
    }
    Ok(if more.is_empty() {
        first
    } else {
        more.freeze()
    })
}

/// The next piece of `body`; the clock is told whether the client keeps us waiting for it.
async fn next_frame<B>(
    mut body: Pin<&mut B>,
    clock: Option<&ConnectionClock>,
) -> Option<Result<Frame<Bytes>, B::Error>>
where
    B: HttpBody<Data = Bytes>,
{
    poll_fn(|context| {
        let frame = body.as_mut().poll_frame(context);
        if let Some(clock) = clock {
            clock.awaits_body(frame.is_pending());
        }
        frame
    })
    .await
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use futures_util::stream;

    use super::*;

    fn in_pieces(pieces: &[&'static [u8]]) -> Body {
        let pieces: Vec<Result<Bytes, std::io::Error>> = pieces
            .iter()
            .map(|piece| Ok(Bytes::from_static(piece)))
            .collect();
        Body::from_stream(stream::iter(pieces))
    }

    #[tokio::test]
    async fn a_body_in_pieces_is_read_whole_up_to_the_limit() {
        let read = whole(in_pieces(&[b"ab", b"", b"c", b"de"]), 5, None)
            .await
            .unwrap();
        assert_eq!(read, "abcde");
        assert_eq!(whole(Body::from("abcde"), 5, None).await.unwrap(), "abcde");
        assert_eq!(whole(Body::empty(), 5, None).await.unwrap(), "");
    }

    #[tokio::test]
    async fn one_byte_more_than_the_limit_is_too_large() {
        for body in [in_pieces(&[b"ab", b"cd", b"ef"]), Body::from("abcdef")] {
            let problem = whole(body, 5, None).await.expect_err("six bytes");
            assert_eq!(problem.kind(), ProblemKind::BodyTooLarge);
        }
    }

    #[test]
    fn json_is_recognized_with_its_parameters() {
        let json = |text| is_json(&HeaderValue::from_static(text));
        assert!(json("application/json"));
        assert!(json("Application/JSON; charset=\"UTF-8\""));
        assert!(!json("application/json; charset=latin-1"));
        assert!(!json("application/x-www-form-urlencoded"));
        assert!(!json("text/json"));
        assert!(!json(""));
    }
}
