//! Query strings: known parameters alone, each once.

use std::fmt::Write;

use axum::extract::Query;
use axum::http::Uri;
use order_domain::Timestamp;
use serde::de::DeserializeOwned;

use crate::error::{Problem, ProblemKind};

/// The parameters of a request's query. Most requests have none, which costs nothing.
pub(crate) fn parse<T: DeserializeOwned + Default>(uri: &Uri) -> Result<T, Problem> {
    if uri.query().is_none() {
        return Ok(T::default());
    }
    let query = Query::try_from_uri(uri);
    let Query(query) =
        query.map_err(|error| Problem::new(ProblemKind::InvalidQuery, error.body_text()))?;
    Ok(query)
}

/// A parameter that cannot be what it is.
#[cold]
pub(crate) fn refuse(name: &str, reason: impl AsRef<str>) -> Problem {
    Problem::new(
        ProblemKind::InvalidQuery,
        format!("{name} {}", reason.as_ref()),
    )
}

/// An RFC 3339 time. One before 1970 is as good as 1970: no order is older.
pub(crate) fn time(name: &str, text: &str) -> Result<Timestamp, Problem> {
    let time: Option<jiff::Timestamp> = text.parse().ok();
    let micros = time.map(|time| u64::try_from(time.as_microsecond()).unwrap_or(0));
    micros
        .map(Timestamp::from_micros)
        .ok_or_else(|| refuse(name, "is no RFC 3339 time, such as 2026-11-22T19:00:00Z"))
}

/// Appends `text` so that it can stand as a parameter's value: everything but RFC 3986's unreserved characters encoded.
pub(crate) fn percent_encode(text: &str, out: &mut String) {
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            write!(out, "%{byte:02X}").expect("a string takes any text");
        }
    }
}
