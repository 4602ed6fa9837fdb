//! `If-Match` and `If-None-Match`: entity tags as RFC 9110 §8.8.3 and §13.1 have them. An order's tag is its version in
//! quotes, always strong.

use axum::http::HeaderMap;
use axum::http::header::{IF_MATCH, IF_NONE_MATCH};
use order_domain::Version;

use crate::error::{Problem, ProblemKind};

/// Most tags one header may list: a client has read a handful of versions, not hundreds.
const TAGS_MAX: usize = 32;

/// The tags of a header, as far as an order can have them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Tags {
    /// `*`: whatever there is.
    Any,
    /// The versions listed; a tag that no order ever has (another text) is dropped.
    Versions {
        /// Tags compared strongly.
        strong: Vec<Version>,
        /// Tags marked `W/`.
        weak: Vec<Version>,
    },
}

impl Tags {
    /// Whether a weak comparison finds `version`: for `If-None-Match`.
    pub(crate) fn weakly_match(&self, version: Version) -> bool {
        match self {
            Self::Any => true,
            Self::Versions { strong, weak } => strong.contains(&version) || weak.contains(&version),
        }
    }
}

/// The versions that `If-Match` allows the order to have: `None` for any. Weak tags never match (RFC 9110 §13.1.1), so
/// a header of weak or foreign tags allows none.
pub(crate) fn expected_versions(headers: &HeaderMap) -> Result<IfMatch, Problem> {
    if !headers.contains_key(IF_MATCH) {
        return Ok(IfMatch::Absent);
    }
    match tags(headers, IF_MATCH.as_str())? {
        Tags::Any => Ok(IfMatch::Any),
        Tags::Versions { strong, .. } => Ok(IfMatch::Versions(strong)),
    }
}

/// What `If-Match` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum IfMatch {
    /// There is no such header.
    Absent,
    /// `*`.
    Any,
    /// One of these; none if the list is empty.
    Versions(Vec<Version>),
}

impl IfMatch {
    /// Refuses to place an order on a condition that it cannot meet: that it has a version already (RFC 9110 §13.1.1; `*`
    /// asks for none).
    pub(crate) fn of_a_new_order(&self) -> Result<(), Problem> {
        match self {
            Self::Absent | Self::Any => Ok(()),
            Self::Versions(_) => Err(Problem::new(
                ProblemKind::VersionMismatch,
                "an order that is yet to be placed has no version: send no If-Match",
            )),
        }
    }
}

/// The tags of `If-None-Match`, if there is one.
pub(crate) fn known_versions(headers: &HeaderMap) -> Result<Option<Tags>, Problem> {
    if !headers.contains_key(IF_NONE_MATCH) {
        return Ok(None);
    }
    tags(headers, IF_NONE_MATCH.as_str()).map(Some)
}

fn tags(headers: &HeaderMap, name: &'static str) -> Result<Tags, Problem> {
    let malformed = || {
        Problem::new(
            ProblemKind::InvalidHeader,
            format!("{name} is neither * nor a list of entity tags such as \"1\""),
        )
    };
    let (mut strong, mut weak) = (Vec::new(), Vec::new());
    let mut any = false;
    let mut seen = 0;
    for value in headers.get_all(name) {
        let mut rest = value.as_bytes();
        loop {
            rest = skip_separators(rest);
            if rest.is_empty() {
                break;
            }
            seen += 1;
            if let Some(after) = rest.strip_prefix(b"*") {
                any = true;
                rest = after;
            } else {
                let (tag, after) = entity_tag(rest).ok_or_else(malformed)?;
                rest = after;
                if let Some(version) = version_of(tag.opaque) {
                    if tag.weak { &mut weak } else { &mut strong }.push(version);
                }
            }
            let ended = rest.iter().find(|byte| !matches!(byte, b' ' | b'\t'));
            if ended.is_some_and(|byte| *byte != b',') || seen > TAGS_MAX {
                return Err(malformed());
            }
        }
    }
    match (any, seen) {
        (true, 1) => Ok(Tags::Any),
        (true, _) | (false, 0) => Err(malformed()),
        (false, _) => Ok(Tags::Versions { strong, weak }),
    }
}

/// RFC 9110 §5.6.1.2: empty list elements are to be accepted.
fn skip_separators(bytes: &[u8]) -> &[u8] {
    let content = bytes
        .iter()
        .position(|byte| !matches!(byte, b' ' | b'\t' | b','))
        .unwrap_or(bytes.len());
    &bytes[content..]
}

struct EntityTag<'a> {
    weak: bool,
    opaque: &'a [u8],
}

fn entity_tag(bytes: &[u8]) -> Option<(EntityTag<'_>, &[u8])> {
    let (weak, bytes) = match bytes.strip_prefix(b"W/") {
        Some(rest) => (true, rest),
        None => (false, bytes),
    };
    let bytes = bytes.strip_prefix(b"\"")?;
    let end = bytes.iter().position(|byte| *byte == b'"')?;
    let (opaque, rest) = (&bytes[..end], &bytes[end + 1..]);
    let etagc = |byte: &u8| matches!(byte, 0x21 | 0x23..=0x7e | 0x80..);
    opaque
        .iter()
        .all(etagc)
        .then_some((EntityTag { weak, opaque }, rest))
}

/// The version whose tag this is: exactly as we write it, so that `"01"` is somebody else's.
fn version_of(opaque: &[u8]) -> Option<Version> {
    let text = std::str::from_utf8(opaque).ok()?;
    let canonical = text.bytes().all(|byte| byte.is_ascii_digit()) && !text.starts_with('0');
    if !canonical {
        return None;
    }
    text.parse().ok().map(Version::new)
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn if_match(values: &[&str]) -> Result<IfMatch, ProblemKind> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(IF_MATCH, HeaderValue::from_str(value).unwrap());
        }
        expected_versions(&headers).map_err(|problem| problem.kind())
    }

    fn versions(numbers: &[u32]) -> Result<IfMatch, ProblemKind> {
        Ok(IfMatch::Versions(
            numbers.iter().copied().map(Version::new).collect(),
        ))
    }

    #[test]
    fn tags_are_versions_in_quotes_over_any_number_of_headers() {
        assert_eq!(if_match(&[]), Ok(IfMatch::Absent));
        assert_eq!(if_match(&["*"]), Ok(IfMatch::Any));
        assert_eq!(if_match(&["\"1\""]), versions(&[1]));
        assert_eq!(if_match(&["\"1\", \"2\" ,,\"30\""]), versions(&[1, 2, 30]));
        assert_eq!(if_match(&["\"1\"", "\"2\""]), versions(&[1, 2]));
    }

    #[test]
    fn weak_and_foreign_tags_match_no_version() {
        for header in [
            "W/\"1\"",
            "\"abc\"",
            "\"01\"",
            "\"\"",
            "\"99999999999\"",
            "\"+1\"",
        ] {
            assert_eq!(if_match(&[header]), versions(&[]), "{header}");
        }
    }

    #[test]
    fn what_is_no_list_of_tags_is_refused() {
        for header in [
            "",
            "1",
            "\"1",
            "1\"",
            "\"1\" \"2\"",
            "*, \"1\"",
            "w/\"1\"",
            "\"a b\"",
            "**",
        ] {
            assert_eq!(
                if_match(&[header]),
                Err(ProblemKind::InvalidHeader),
                "{header}"
            );
        }
        let many = vec!["\"1\""; TAGS_MAX + 1].join(",");
        assert_eq!(if_match(&[&many]), Err(ProblemKind::InvalidHeader));
    }

    #[test]
    fn if_none_match_compares_weakly() {
        let mut headers = HeaderMap::new();
        headers.insert(IF_NONE_MATCH, HeaderValue::from_static("W/\"3\", \"4\""));
        let tags = known_versions(&headers).unwrap().unwrap();
        assert!(tags.weakly_match(Version::new(3)));
        assert!(tags.weakly_match(Version::new(4)));
        assert!(!tags.weakly_match(Version::new(5)));
    }

    proptest! {
        #[test]
        fn every_version_reads_back_from_its_own_tag(number in 1_u32..) {
            prop_assert_eq!(if_match(&[&format!("\"{number}\"")]), versions(&[number]));
        }

        #[test]
        fn no_header_makes_the_parser_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            if let Ok(value) = HeaderValue::from_bytes(&bytes) {
                let mut headers = HeaderMap::new();
                headers.insert(IF_MATCH, value);
                let _read = expected_versions(&headers);
            }
        }
    }
}
