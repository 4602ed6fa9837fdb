//! Query strings: known parameters alone, each once.

use std::fmt::Write;

use axum::extract::Query;
use axum::http::Uri;
use order_domain::Timestamp;
use serde::de::DeserializeOwned;

use crate::error::{Problem, ProblemKind};

/// How much of a parameter's name is told back.
const NAME_CHARACTERS_TOLD: usize = 64;

/// The parameters of a request's query. Most requests have none, which costs nothing.
pub(crate) fn parse<T: DeserializeOwned + Default>(uri: &Uri) -> Result<T, Problem> {
    let Some(text) = uri.query() else {
        return Ok(T::default());
    };
    if !is_encoded_text(text) {
        return Err(Problem::new(
            ProblemKind::InvalidQuery,
            "the query is not percent-encoded UTF-8",
        ));
    }
    let query = Query::try_from_uri(uri);
    let Query(query) =
        query.map_err(|error| Problem::new(ProblemKind::InvalidQuery, error.body_text()))?;
    Ok(query)
}

/// Refuses whatever is in the query of a request that takes no parameter: a client that asks for something that is not done
/// should hear of it before something else is done.
pub(crate) fn refuse_any(uri: &Uri) -> Result<(), Problem> {
    let first = uri.query().and_then(|text| text.split(['&', '=']).next());
    match first {
        None => Ok(()),
        Some("") if uri.query() == Some("") => Ok(()),
        Some(name) => {
            let name: String = name.chars().take(NAME_CHARACTERS_TOLD).collect();
            Err(Problem::new(
                ProblemKind::InvalidQuery,
                format!("unknown parameter `{name}`: no query is taken here"),
            ))
        }
    }
}

/// Whether every escape of a query is one, and all of it together is text.
fn is_encoded_text(query: &str) -> bool {
    if !query.contains('%') {
        return true;
    }
    let mut bytes = query.bytes();
    let mut decoded = Vec::with_capacity(query.len());
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            decoded.push(byte);
            continue;
        }
        let mut digit = || char::from(bytes.next()?).to_digit(16);
        let (Some(high), Some(low)) = (digit(), digit()) else {
            return false;
        };
        decoded.extend(u8::try_from(high * 16 + low));
    }
    std::str::from_utf8(&decoded).is_ok()
}

/// A parameter that cannot be what it is.
#[cold]
pub(crate) fn refuse(name: &str, reason: impl AsRef<str>) -> Problem {
    Problem::new(
        ProblemKind::InvalidQuery,
        format!("{name} {}", reason.as_ref()),
    )
}

/// An RFC 3339 time. One before 1970 is as good as 1970: no order is older. The `+` of a zone is a space in a query unless
/// it is sent as `%2B`, which is easily forgotten: such a space is taken for what it was.
pub(crate) fn time(name: &str, text: &str) -> Result<Timestamp, Problem> {
    let time: Option<jiff::Timestamp> = text.parse().ok().or_else(|| {
        let (local, zone) = text.rsplit_once(' ')?;
        format!("{local}+{zone}").parse().ok()
    });
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Default, Deserialize, PartialEq)]
    #[serde(deny_unknown_fields)]
    struct OneQuery {
        one: Option<String>,
    }

    fn one(query: &str) -> Result<Option<String>, ProblemKind> {
        let uri: Uri = format!("/orders?{query}").parse().unwrap();
        let parsed = parse::<OneQuery>(&uri).map_err(|problem| problem.kind());
        parsed.map(|query| query.one)
    }

    #[test]
    fn what_is_no_encoded_text_is_refused_and_not_replaced() {
        for broken in ["one=%ff", "one=%c3", "one=%", "one=%4", "one=%zz", "%ff=1"] {
            assert_eq!(one(broken), Err(ProblemKind::InvalidQuery), "{broken}");
        }
        assert_eq!(one("one=%C3%a9+%25"), Ok(Some("é %".to_owned())));
    }

    #[test]
    fn where_no_parameter_is_taken_every_one_is_refused_by_its_name() {
        let refused = |text: &str| {
            let problem = refuse_any(&text.parse().unwrap()).err()?;
            let mut json = Vec::new();
            problem.write_json("", "", &mut json);
            Some(String::from_utf8(json).unwrap())
        };
        for nothing in ["/orders", "/orders?"] {
            assert_eq!(refused(nothing), None);
        }
        for (query, name) in [("dry_run=true", "`dry_run`"), ("x&y", "`x`"), ("=", "``")] {
            let told = refused(&format!("/orders?{query}")).unwrap();
            assert!(told.contains(name), "{told}");
        }
    }

    #[test]
    fn the_plus_of_a_zone_may_be_forgotten_to_be_encoded() {
        let expected = Timestamp::from_micros(1_795_374_000_000_000);
        for text in [
            "2026-11-22T19:00:00Z",
            "2026-11-22T20:00:00+01:00",
            "2026-11-22T20:00:00 01:00",
            "2026-11-22 20:00:00 01:00",
            "2026-11-22T18:00:00-01:00",
        ] {
            assert_eq!(time("as_of", text).unwrap(), expected, "{text}");
        }
        for text in [
            "2026-11-22T20:00:00",
            "2026-11-22 19:00",
            "2026-11-22",
            " ",
            "19:00 01:00",
        ] {
            assert!(time("as_of", text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn every_text_survives_encoding(text in ".{0,40}") {
            let mut encoded = String::new();
            percent_encode(&text, &mut encoded);
            prop_assert_eq!(one(&format!("one={encoded}")), Ok(Some(text)));
        }

        #[test]
        fn any_query_is_read_or_refused(query in "[!-~]{0,40}") {
            if let Ok(uri) = format!("/orders?{query}").parse::<Uri>() {
                let _read = parse::<OneQuery>(&uri);
                let _refused = refuse_any(&uri);
            }
        }
    }
}
