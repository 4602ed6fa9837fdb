//! Idempotency keys: whose a key is, what it is looked up by, and what it was used for.
//!
//! A key belongs to its caller: two clients that choose the same key have nothing to do with each other. Who the caller
//! was stands in the kept key itself, in front of the client's, so that the log needs no new shape for it and a key that
//! was kept without a caller means what it always meant.

use std::borrow::Cow;
use std::fmt;

use sha2::{Digest, Sha256};

use crate::{Event, OrderId};

/// Between the caller and the client's key in a kept key. No client can send it: keys are printable.
const CALLER_ENDS: char = '\u{1f}';

/// Between a bulk request's key and a line's number in a line's key. No client can send it either.
const LINE_BEGINS: char = '\u{1e}';

/// Who sent a command, as far as the service can tell callers apart: a digest, so that the log names nobody.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Caller([u8; 8]);

impl Caller {
    /// The caller that goes by this name in the service's configuration. Names are the operator's, so eight bytes are
    /// enough to keep them apart.
    #[must_use]
    pub fn named(name: &str) -> Self {
        let hash = Sha256::new_with_prefix(b"idempotency caller\0").chain_update(name);
        let mut half = [0; 8];
        half.copy_from_slice(&hash.finalize()[..8]);
        Self(half)
    }
}

impl fmt::Display for Caller {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:016x}", u64::from_be_bytes(self.0))
    }
}

/// The idempotency key a command came with, kept with the event it made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Idempotency<'a> {
    /// The key as [`Idempotency::kept_key`] makes it.
    pub key: Cow<'a, str>,
    /// Digest of the request (operation, target and body): the same key with another digest is refused.
    pub fingerprint: [u8; 16],
}

/// A key that made an event, as it is looked up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UsedKey {
    /// [`Idempotency::digest`] of the key in its scope.
    pub digest: [u8; 16],
    /// Digest of the request it was used for.
    pub fingerprint: [u8; 16],
}

impl Idempotency<'_> {
    /// Longest key a client may send, in characters.
    pub const KEY_CHARACTERS_MAX: usize = 255;

    /// The key as events keep it: the client's, behind its caller if that is known. `key` must be printable, or it could
    /// pass for another caller's.
    #[must_use]
    pub fn kept_key(caller: Option<Caller>, key: &str) -> String {
        debug_assert!(!key.contains(CALLER_ENDS), "a client's key is printable");
        match caller {
            None => key.to_owned(),
            Some(caller) => format!("{caller}{CALLER_ENDS}{key}"),
        }
    }

    /// The key of a line of a bulk request, from 1, as events keep it; `kept` is the request's. No client can send it as a
    /// key of a request of its own.
    #[must_use]
    pub fn line_key(kept: &str, line: u64) -> String {
        format!("{kept}{LINE_BEGINS}{line}")
    }

    /// As events kept a line's key before [`Idempotency::line_key`]: as a client could have sent it, too. `None` for the key
    /// of a whole request.
    #[must_use]
    pub fn former_line_key(kept: &str) -> Option<String> {
        let (request, line) = kept.rsplit_once(LINE_BEGINS)?;
        Some(format!("{request}#{line}"))
    }

    /// The client's part of a kept key.
    #[must_use]
    pub fn client_key(kept: &str) -> &str {
        kept.split_once(CALLER_ENDS).map_or(kept, |(_, key)| key)
    }

    /// What a new order's partition is chosen by: the client's part of a kept key, and a line's as it was kept before. So a
    /// key that was kept before callers, or lines, were told apart is found by the same writer as one kept after.
    #[must_use]
    pub fn partition_key(kept: &str) -> Cow<'_, str> {
        let key = Self::client_key(kept);
        Self::former_line_key(key).map_or(Cow::Borrowed(key), Cow::Owned)
    }

    /// Whether a kept key tells whose it is.
    #[must_use]
    pub fn has_caller(kept: &str) -> bool {
        kept.contains(CALLER_ENDS)
    }

    /// What a kept key is looked up by: a 128-bit digest of it within its scope. The scope is `None` for the command that
    /// makes an order, and the order for every other command. Keys are chosen by clients, so the digest is cryptographic:
    /// nobody can make two keys meet.
    #[must_use]
    pub fn digest(key: &str, scope: Option<OrderId>) -> [u8; 16] {
        let mut hash = Sha256::new_with_prefix(b"idempotency key\0");
        match scope {
            None => hash.update([0]),
            Some(order) => {
                hash.update([1]);
                hash.update(order.as_bytes());
            }
        }
        // The key is last and all before it has a length of its own: no two inputs are the same bytes.
        hash.update(key);
        first_half(hash)
    }

    /// The fingerprint of a request: a 128-bit digest of its parts (operation, target, body, …), each with its length,
    /// so that moving a byte from one part to the next gives another fingerprint.
    #[must_use]
    pub fn fingerprint(parts: &[&[u8]]) -> [u8; 16] {
        let mut hash = Sha256::new_with_prefix(b"request fingerprint\0");
        for part in parts {
            let length = part.len() as u64;
            hash.update(length.to_le_bytes());
            hash.update(part);
        }
        first_half(hash)
    }

    /// The same key, owning its text.
    #[must_use]
    pub fn into_owned(self) -> Idempotency<'static> {
        Idempotency {
            key: Cow::Owned(self.key.into_owned()),
            fingerprint: self.fingerprint,
        }
    }
}

impl Event<'_> {
    /// The scope in which the key of a command that made this event of `order` counts: see [`Idempotency::digest`]. No
    /// command makes a snapshot, so none has a key.
    #[must_use]
    pub const fn key_scope(&self, order: OrderId) -> Option<OrderId> {
        match self {
            Self::OrderPlaced { .. } => None,
            Self::LineAdded { .. }
            | Self::LineRemoved { .. }
            | Self::OrderConfirmed
            | Self::OrderPaid { .. }
            | Self::OrderShipped { .. }
            | Self::OrderDelivered
            | Self::OrderRefunded { .. }
            | Self::OrderCancelled { .. }
            | Self::OrderSnapshot(_) => Some(order),
        }
    }
}

fn first_half(hash: Sha256) -> [u8; 16] {
    let mut half = [0; 16];
    half.copy_from_slice(&hash.finalize()[..16]);
    half
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_key_kept_without_a_caller_is_the_clients_as_it_was() {
        assert_eq!(Idempotency::kept_key(None, "k-1"), "k-1");
        assert_eq!(Idempotency::client_key("k-1"), "k-1");
        assert!(!Idempotency::has_caller("k-1"));
    }

    #[test]
    fn a_callers_mark_in_the_log_never_changes() {
        let kept = Idempotency::kept_key(Some(Caller::named("shop")), "k-1");
        assert_eq!(kept, "e671652472d549c9\u{1f}k-1");
    }

    #[test]
    fn a_lines_key_in_the_log_never_changes_and_stays_in_the_partition_of_the_one_before_it() {
        for caller in [None, Some(Caller::named("shop"))] {
            let kept = Idempotency::kept_key(caller, "nightly");
            let line = Idempotency::line_key(&kept, 12);
            assert_eq!(line, format!("{kept}\u{1e}12"));
            let former = Idempotency::former_line_key(&line);
            assert_eq!(former, Some(format!("{kept}#12")));
            assert_eq!(Idempotency::partition_key(&line), "nightly#12");
        }
        assert_eq!(Idempotency::former_line_key("nightly#12"), None);
        assert_eq!(Idempotency::partition_key("nightly#12"), "nightly#12");
    }

    proptest! {
        #[test]
        fn keys_of_two_callers_never_meet_and_share_a_partition(key in "[ -~]{1,255}", a in ".{0,9}", b in ".{0,9}") {
            prop_assume!(a != b);
            let [one, two] = [&a, &b].map(|name| Idempotency::kept_key(Some(Caller::named(name)), &key));
            prop_assert_ne!(Idempotency::digest(&one, None), Idempotency::digest(&two, None));
            prop_assert_ne!(Idempotency::digest(&one, None), Idempotency::digest(&key, None));
            for kept in [&one, &two] {
                prop_assert!(Idempotency::has_caller(kept));
                prop_assert_eq!(Idempotency::client_key(kept), &key);
                prop_assert_eq!(&*Idempotency::partition_key(kept), key.as_str());
            }
        }
    }
}
