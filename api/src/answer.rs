//! Answers and their headers, without formatting what is always the same.

use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::{Body, HttpBody};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG};
use axum::http::{HeaderName, HeaderValue, Response, StatusCode};
use bytes::Bytes;
use hyper::body::{Frame, SizeHint};
use order_domain::Version;

use crate::sync_token::{Seal, SyncToken};

pub(crate) const SYNC_TOKEN: HeaderName = HeaderName::from_static("sync-token");
pub(crate) const IDEMPOTENCY_REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");
pub(crate) const READ_MODEL_LAG: HeaderName = HeaderName::from_static("read-model-lag-seconds");
pub(crate) const READ_MODEL_POSITION: HeaderName = HeaderName::from_static("read-model-position");
pub(crate) const PREFERENCE_APPLIED: HeaderName = HeaderName::from_static("preference-applied");
pub(crate) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Headers of the largest ordinary answer: room for them is made at once.
const HEADERS: usize = 10;

/// An answer on its way out.
pub(crate) type Answer = Response<AnswerBody>;

/// The body of an answer: nearly always in memory, and then neither boxed nor called through a table.
#[derive(Debug)]
pub(crate) enum AnswerBody {
    /// All of it; taken when it is sent.
    Whole(Bytes),
    /// Whatever comes.
    Stream(Body),
}

impl AnswerBody {
    /// No body.
    pub(crate) const EMPTY: Self = Self::Whole(Bytes::new());

    /// The same body as axum has it.
    pub(crate) fn into_axum(self) -> Body {
        match self {
            Self::Whole(bytes) => Body::from(bytes),
            Self::Stream(body) => body,
        }
    }
}

impl From<Vec<u8>> for AnswerBody {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Whole(Bytes::from(bytes))
    }
}

impl HttpBody for AnswerBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        match self.get_mut() {
            Self::Whole(bytes) if bytes.is_empty() => Poll::Ready(None),
            Self::Whole(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Self::Stream(body) => Pin::new(body).poll_frame(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(bytes) => bytes.is_empty(),
            Self::Stream(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Self::Stream(body) => body.size_hint(),
        }
    }
}

/// An answer with a JSON body.
pub(crate) fn json(status: StatusCode, json: impl Into<Bytes>) -> Answer {
    let mut response = Response::new(AnswerBody::Whole(json.into()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.reserve(HEADERS);
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// An answer with plain text.
pub(crate) fn text(status: StatusCode, text: impl Into<Bytes>) -> Answer {
    let mut response = Response::new(AnswerBody::Whole(text.into()));
    *response.status_mut() = status;
    let plain = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, plain);
    response
}

/// Says which version of an order this is.
pub(crate) fn put_version(response: &mut Answer, version: Version) {
    response.headers_mut().insert(ETAG, entity_tag(version));
}

/// Says that a cache must ask before it shows this again.
pub(crate) fn put_no_cache(response: &mut Answer) {
    let value = HeaderValue::from_static("private, no-cache");
    response.headers_mut().insert(CACHE_CONTROL, value);
}

/// Says that no cache may keep this.
pub(crate) fn put_no_store(response: &mut Answer) {
    let value = HeaderValue::from_static("no-store");
    response.headers_mut().insert(CACHE_CONTROL, value);
}

/// The strong entity tag of a version.
pub(crate) fn entity_tag(version: Version) -> HeaderValue {
    // Nearly every order has had one of these many events.
    const COMMON: [&str; 10] = [
        "\"0\"", "\"1\"", "\"2\"", "\"3\"", "\"4\"", "\"5\"", "\"6\"", "\"7\"", "\"8\"", "\"9\"",
    ];
    match COMMON.get(version.get() as usize) {
        Some(text) => HeaderValue::from_static(text),
        None => printable(format!("\"{version}\"")),
    }
}

/// Says where in the log the answer is.
pub(crate) fn put_sync_token(response: &mut Answer, token: SyncToken, seal: Seal) {
    let text = Bytes::copy_from_slice(&token.text(seal));
    let value = HeaderValue::from_maybe_shared(text).expect("hexadecimal digits are printable");
    response.headers_mut().insert(SYNC_TOKEN, value);
}

/// A header value of ASCII digits and punctuation.
pub(crate) fn digits(text: Vec<u8>) -> HeaderValue {
    HeaderValue::from_maybe_shared(Bytes::from(text)).expect("the text is printable ASCII")
}

/// A header value of text made here from digits, letters and punctuation.
pub(crate) fn printable(text: String) -> HeaderValue {
    digits(text.into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_is_the_version_in_quotes() {
        for version in [0, 1, 9, 10, u32::MAX] {
            assert_eq!(entity_tag(Version::new(version)), format!("\"{version}\""));
        }
    }
}
