//! The headers a client may send beside conditions: `Idempotency-Key`, `Prefer`, `X-Request-Id`, `traceparent`.

use std::time::Duration;

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use order_domain::Idempotency;

use crate::answer::X_REQUEST_ID;
use crate::error::{Problem, ProblemKind};

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const PREFER: HeaderName = HeaderName::from_static("prefer");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// Longest request id that is taken over from a client, in characters.
const REQUEST_ID_CHARACTERS_MAX: usize = 128;

/// The idempotency key, if the client sent one: a structured-field string (quoted, `\"` and `\\` escaped) or, as many
/// clients do, the bare text. Both spellings of a key are the same key.
pub(crate) fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let mut values = headers.get_all(IDEMPOTENCY_KEY).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    let refuse = |reason: &str| {
        Err(Problem::new(
            ProblemKind::InvalidHeader,
            format!("Idempotency-Key {reason}"),
        ))
    };
    if values.next().is_some() {
        return refuse("is sent twice");
    }
    let Ok(text) = value.to_str() else {
        return refuse("has characters other than printable ASCII");
    };
    let text = text.trim_matches([' ', '\t']);
    if text.contains('\t') {
        return refuse("has characters other than printable ASCII");
    }
    let key = match text.strip_prefix('"') {
        None => Some(text.to_owned()),
        Some(rest) => unquote(rest),
    };
    match key {
        None => refuse("is not a quoted string: a quote or an escape does not end"),
        Some(key) if key.is_empty() => refuse("is empty"),
        // `to_str` above left ASCII only, so bytes are characters.
        Some(key) if key.len() > Idempotency::KEY_CHARACTERS_MAX => refuse(&format!(
            "has more than {} characters",
            Idempotency::KEY_CHARACTERS_MAX
        )),
        Some(key) => Ok(Some(key)),
    }
}

/// The content of an RFC 9651 string, given what stands behind its opening quote.
fn unquote(rest: &str) -> Option<String> {
    let mut content = String::with_capacity(rest.len());
    let mut characters = rest.chars();
    loop {
        match characters.next()? {
            '"' => return characters.as_str().is_empty().then_some(content),
            '\\' => match characters.next()? {
                escaped @ ('"' | '\\') => content.push(escaped),
                _ => return None,
            },
            plain => content.push(plain),
        }
    }
}

/// The seconds of `Prefer: wait=N` (RFC 7240), if the client has that preference. Other preferences, and a `wait` that
/// is no number, are ignored, as preferences are; a number is one however large.
pub(crate) fn preferred_wait(headers: &HeaderMap) -> Option<Duration> {
    headers
        .get_all(PREFER)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .find_map(|preference| {
            let (token, parameters) = preference.split_once('=')?;
            if !token.trim().eq_ignore_ascii_case("wait") {
                return None;
            }
            let seconds = parameters.split(';').next().unwrap_or_default();
            let seconds = seconds.trim().trim_matches('"');
            let digits_only = seconds.bytes().all(|byte| byte.is_ascii_digit());
            let number = digits_only && !seconds.is_empty();
            let seconds = number.then(|| seconds.parse::<u32>().unwrap_or(u32::MAX))?;
            Some(Duration::from_secs(u64::from(seconds)))
        })
}

/// Whether the client prefers not to wait for what it asks for: `Prefer: respond-async` (RFC 7240).
pub(crate) fn prefers_async(headers: &HeaderMap) -> bool {
    headers
        .get_all(PREFER)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|preference| {
            let token = preference.split(';').next().unwrap_or_default();
            token.trim().eq_ignore_ascii_case("respond-async")
        })
}

/// The request's id, if the client sent one that is fit for headers, logs and events: 1 to 128 printable ASCII
/// characters without spaces and quotes.
pub(crate) fn request_id(headers: &HeaderMap) -> Option<&HeaderValue> {
    let value = headers.get(X_REQUEST_ID)?;
    let fit = |byte: &u8| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\\');
    let length = value.len();
    (length > 0 && length <= REQUEST_ID_CHARACTERS_MAX && value.as_bytes().iter().all(fit))
        .then_some(value)
}

/// The W3C trace context, if the client sent a valid one; an invalid one is ignored, as the recommendation wants.
pub(crate) fn traceparent(headers: &HeaderMap) -> Option<&str> {
    let text = headers.get(TRACEPARENT)?.to_str().ok()?;
    let lower_hex = |part: &str| {
        part.bytes()
            .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    };
    let not_zero = |part: &str| part.bytes().any(|byte| byte != b'0');
    let mut parts = text.split('-');
    let (version, trace, parent, flags) =
        (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let valid = version == "00"
        && parts.next().is_none()
        && trace.len() == 32
        && parent.len() == 16
        && flags.len() == 2
        && [trace, parent, flags].into_iter().all(lower_hex)
        && not_zero(trace)
        && not_zero(parent);
    valid.then_some(text)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn headers(name: &'static str, value: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(name, HeaderValue::from_str(value).unwrap());
        headers
    }

    fn key(value: &str) -> Result<Option<String>, ProblemKind> {
        idempotency_key(&headers("idempotency-key", value)).map_err(|problem| problem.kind())
    }

    #[test]
    fn a_key_is_the_same_quoted_and_bare() {
        assert_eq!(key("abc-1"), Ok(Some("abc-1".to_owned())));
        assert_eq!(key("\"abc-1\""), Ok(Some("abc-1".to_owned())));
        assert_eq!(key("\"a\\\"b\\\\c\""), Ok(Some("a\"b\\c".to_owned())));
        assert_eq!(idempotency_key(&HeaderMap::new()).unwrap(), None);
    }

    #[test]
    fn a_key_that_is_empty_too_long_or_broken_is_refused() {
        for broken in ["", "\"\"", "\"abc", "\"a\\b\"", "\"a\"b", "\"a\\", "a\tb"] {
            assert_eq!(key(broken), Err(ProblemKind::InvalidHeader), "{broken}");
        }
        assert!(key(&"k".repeat(255)).is_ok());
        assert_eq!(key(&"k".repeat(256)), Err(ProblemKind::InvalidHeader));
        let mut twice = headers("idempotency-key", "a");
        twice.append("idempotency-key", HeaderValue::from_static("b"));
        assert!(idempotency_key(&twice).is_err());
    }

    #[test]
    fn a_preferred_wait_is_found_among_other_preferences() {
        let wait = |value| preferred_wait(&headers("prefer", value)).map(|wait| wait.as_secs());
        assert_eq!(wait("wait=5"), Some(5));
        assert_eq!(wait("respond-async, Wait = \"10\"; x=y"), Some(10));
        assert!(prefers_async(&headers(
            "prefer",
            "wait=1, Respond-Async; x=y"
        )));
        assert!(!prefers_async(&headers("prefer", "respond-asynchronously")));
        assert_eq!(wait("return=minimal"), None);
        assert_eq!(wait("wait=soon"), None);
        assert_eq!(wait("wait=-1"), None);
        assert_eq!(wait("wait="), None);
        let longest = Some(u64::from(u32::MAX));
        assert_eq!(wait("wait=4294967295"), longest);
        assert_eq!(wait("wait=4294967296"), longest);
        assert_eq!(wait("wait=99999999999999999999999999999999"), longest);
        assert_eq!(wait("wait"), None);
    }

    #[test]
    fn only_a_valid_trace_context_is_carried() {
        let valid = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        assert_eq!(traceparent(&headers("traceparent", valid)), Some(valid));
        for invalid in [
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0AF7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
            "01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-x",
            "",
        ] {
            assert_eq!(
                traceparent(&headers("traceparent", invalid)),
                None,
                "{invalid}"
            );
        }
    }

    #[test]
    fn only_a_printable_request_id_is_taken_over() {
        assert!(request_id(&headers("x-request-id", "a.b-c:1")).is_some());
        for unfit in ["", "a b", "a\"b", &"x".repeat(129)] {
            assert!(
                request_id(&headers("x-request-id", unfit)).is_none(),
                "{unfit}"
            );
        }
    }

    proptest! {
        #[test]
        fn every_printable_key_survives_quoting(text in "[ -~]{1,255}") {
            let quoted = format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""));
            prop_assert_eq!(key(&quoted), Ok(Some(text)));
        }

        #[test]
        fn no_header_makes_a_parser_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            if let Ok(value) = HeaderValue::from_bytes(&bytes) {
                let mut headers = HeaderMap::new();
                for name in ["idempotency-key", "prefer", "x-request-id", "traceparent"] {
                    headers.insert(name, value.clone());
                }
                let _key = idempotency_key(&headers);
                let _wait = preferred_wait(&headers);
                let _id = request_id(&headers);
                let _trace = traceparent(&headers);
            }
        }
    }
}
