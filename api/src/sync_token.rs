//! `Sync-Token`: a place in the log that a write hands out and a read waits for. Opaque, and sealed with the log's
//! identity: a token of another log, or one made up, is refused rather than waited for.
//!
//! The seal tells mistakes from tokens, not friends from enemies: the log's identity is no secret (`/readyz?verbose` shows
//! it to everybody, so that a service can be told from its copy), and a token opens nothing. So what a sealed token says
//! is checked like everything else that comes from outside.

use axum::http::HeaderMap;
use order_projector_workers::{Offset, PartitionId};

use crate::answer::SYNC_TOKEN;
use crate::error::{Problem, ProblemKind};

/// Text length: 2 bytes of partition, 8 of offset, 4 of seal, in hexadecimal.
pub(crate) const TEXT_BYTES: usize = 28;
/// Most tokens one read may bring: a client that wrote to more partitions sends the newest of each.
const TOKENS_MAX: usize = 64;

/// Makes seals that only tokens of this log have.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Seal(u64);

impl Seal {
    /// The seal of a log.
    pub(crate) fn of_log(log_id: &str) -> Self {
        Self(fnv1a(0xcbf2_9ce4_8422_2325, log_id.as_bytes()))
    }

    /// A checksum of `bytes` under this seal.
    pub(crate) fn over(self, bytes: &[u8]) -> [u8; 4] {
        let hash = fnv1a(self.0, bytes);
        let folded = hash ^ (hash >> 32);
        let [.., a, b, c, d] = folded.to_be_bytes();
        [a, b, c, d]
    }
}

fn fnv1a(start: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(start, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// A place in the log: everything of `partition` before `end`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SyncToken {
    pub(crate) partition: PartitionId,
    pub(crate) end: Offset,
}

impl SyncToken {
    /// The token's text.
    pub(crate) fn text(self, seal: Seal) -> [u8; TEXT_BYTES] {
        let mut bytes = [0; TEXT_BYTES / 2];
        bytes[..2].copy_from_slice(&self.partition.get().to_be_bytes());
        bytes[2..10].copy_from_slice(&self.end.get().to_be_bytes());
        let checksum = seal.over(&bytes[..10]);
        bytes[10..].copy_from_slice(&checksum);
        let mut text = [0; TEXT_BYTES];
        write_hex(&bytes, &mut text);
        text
    }

    /// Reads a text that [`Self::text`] made under the same seal.
    pub(crate) fn parse(text: &[u8], seal: Seal) -> Option<Self> {
        let text: &[u8; TEXT_BYTES] = text.try_into().ok()?;
        let mut bytes = [0; TEXT_BYTES / 2];
        read_hex(text, &mut bytes)?;
        let (partition, rest) = bytes.split_first_chunk::<2>()?;
        let (end, checksum) = rest.split_first_chunk::<8>()?;
        (seal.over(&bytes[..10]) == checksum).then(|| Self {
            partition: PartitionId::new(u16::from_be_bytes(*partition)),
            end: Offset::new(u64::from_be_bytes(*end)),
        })
    }
}

const HEX: &[u8; 16] = b"0123456789abcdef";

fn write_hex(bytes: &[u8], text: &mut [u8]) {
    for (pair, byte) in text.chunks_exact_mut(2).zip(bytes) {
        pair[0] = HEX[usize::from(byte >> 4)];
        pair[1] = HEX[usize::from(byte & 15)];
    }
}

fn read_hex(text: &[u8], bytes: &mut [u8]) -> Option<()> {
    for (byte, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
        *byte = nibble(pair[0])? << 4 | nibble(pair[1])?;
    }
    Some(())
}

/// Bytes as lower-case hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    let mut text = vec![0; bytes.len() * 2];
    write_hex(bytes, &mut text);
    String::from_utf8(text).expect("hexadecimal digits are ASCII")
}

/// The bytes of lower-case hexadecimal digits.
pub(crate) fn unhex(text: &str) -> Option<Vec<u8>> {
    let mut bytes = vec![0; text.len() / 2];
    if !text.len().is_multiple_of(2) {
        return None;
    }
    read_hex(text.as_bytes(), &mut bytes)?;
    Some(bytes)
}

fn nibble(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

/// The tokens of a request: any number of headers, each a list; all of partitions that there are. Those under a `former`
/// seal are of the log before it was rewritten: the places they name are no more.
pub(crate) fn sync_tokens(
    headers: &HeaderMap,
    seal: Seal,
    former: &[Seal],
    partitions: usize,
) -> Result<Vec<SyncToken>, Problem> {
    let mut tokens = Vec::new();
    for value in headers.get_all(SYNC_TOKEN) {
        for text in value.as_bytes().split(|byte| *byte == b',') {
            let text = text.trim_ascii();
            if text.is_empty() {
                continue;
            }
            let token = SyncToken::parse(text, seal)
                .filter(|token| token.partition.index() < partitions)
                .filter(|_| tokens.len() < TOKENS_MAX);
            tokens.push(token.ok_or_else(|| {
                let outdated = former
                    .iter()
                    .any(|seal| SyncToken::parse(text, *seal).is_some());
                let detail = if outdated {
                    "the Sync-Token is from before the log was rewritten: read without it".to_owned()
                } else {
                    format!("a Sync-Token is what this service's writes return, at most {TOKENS_MAX} of them")
                };
                Problem::new(ProblemKind::InvalidSyncToken, detail)
            })?);
        }
    }
    Ok(tokens)
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn token(partition: u16, end: u64) -> SyncToken {
        SyncToken {
            partition: PartitionId::new(partition),
            end: Offset::new(end),
        }
    }

    #[test]
    fn several_tokens_come_in_one_header_or_in_many() {
        let seal = Seal::of_log("a log");
        let (one, two) = (token(1, 10), token(2, 20));
        let text = |token: SyncToken| String::from_utf8(token.text(seal).to_vec()).unwrap();
        let mut headers = HeaderMap::new();
        let both = format!("{} , {}", text(one), text(two));
        headers.append("sync-token", HeaderValue::from_str(&both).unwrap());
        headers.append("sync-token", HeaderValue::from_str(&text(one)).unwrap());
        assert_eq!(
            sync_tokens(&headers, seal, &[], 3).unwrap(),
            [one, two, one]
        );
    }

    #[test]
    fn a_token_of_another_log_is_refused() {
        let text = token(1, 10).text(Seal::of_log("a log"));
        assert_eq!(SyncToken::parse(&text, Seal::of_log("another log")), None);
    }

    #[test]
    fn a_token_of_a_partition_that_there_is_not_is_refused_whatever_its_seal() {
        let seal = Seal::of_log("a log");
        for (partition, known) in [(0, true), (1, true), (2, false), (u16::MAX, false)] {
            let text = String::from_utf8(token(partition, 10).text(seal).to_vec()).unwrap();
            let mut headers = HeaderMap::new();
            headers.insert("sync-token", HeaderValue::from_str(&text).unwrap());
            let read = sync_tokens(&headers, seal, &[], 2).map_err(|problem| problem.kind());
            let expected = if known {
                Ok(vec![token(partition, 10)])
            } else {
                Err(ProblemKind::InvalidSyncToken)
            };
            assert_eq!(read, expected, "{partition}");
        }
    }

    #[test]
    fn a_token_from_before_the_log_was_rewritten_is_refused_as_such() {
        let (now, former) = (Seal::of_log("a log"), Seal::of_log("the log before"));
        let detail = |token: SyncToken, made_under| {
            let text = String::from_utf8(token.text(made_under).to_vec()).unwrap();
            let mut headers = HeaderMap::new();
            headers.append("sync-token", HeaderValue::from_str(&text).unwrap());
            let refused = sync_tokens(&headers, now, &[former], 2).unwrap_err();
            format!("{refused:?}")
        };
        assert!(detail(token(1, 10), former).contains("rewritten"));
        assert!(!detail(token(1, 10), Seal::of_log("another")).contains("rewritten"));
    }

    proptest! {
        #[test]
        fn every_place_reads_back(partition: u16, end: u64, log in ".{0,40}") {
            let seal = Seal::of_log(&log);
            let token = token(partition, end);
            prop_assert_eq!(SyncToken::parse(&token.text(seal), seal), Some(token));
        }

        #[test]
        fn a_changed_character_is_noticed(partition: u16, end: u64, at in 0..TEXT_BYTES, to in "[0-9a-f]") {
            let seal = Seal::of_log("a log");
            let mut text = token(partition, end).text(seal);
            prop_assume!(text[at] != to.as_bytes()[0]);
            text[at] = to.as_bytes()[0];
            prop_assert_eq!(SyncToken::parse(&text, seal), None);
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            let _read = SyncToken::parse(&bytes, Seal::of_log("a log"));
        }
    }
}
