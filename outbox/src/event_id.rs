//! The identity of an integration event: the same for ever, whatever happens to the log's files.

use std::fmt;
use std::str::FromStr;

use order_domain::{OrderId, Version};

use crate::OutboxError;

/// Length of an order's id as text, in bytes.
const ORDER_ID_BYTES: usize = 36;

/// Which event of which order. Written as `<order id>-<version>`.
///
/// Partition and offset are not in it: both change when a log is repartitioned, and consumers remember ids. A full stop
/// is not in it either, because a webhook's signature uses it to separate the id from what follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventId {
    order: OrderId,
    version: Version,
}

impl EventId {
    /// The event that brought `order` to `version`.
    #[must_use]
    pub const fn new(order: OrderId, version: Version) -> Self {
        Self { order, version }
    }

    /// The order.
    #[must_use]
    pub const fn order(&self) -> OrderId {
        self.order
    }

    /// The order's version after the event.
    #[must_use]
    pub const fn version(&self) -> Version {
        self.version
    }
}

impl fmt::Display for EventId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}-{}", self.order, self.version)
    }
}

impl FromStr for EventId {
    type Err = OutboxError;

    fn from_str(text: &str) -> Result<Self, OutboxError> {
        let parse = || {
            let order = OrderId::parse(text.get(..ORDER_ID_BYTES)?).ok()?;
            let version = text.get(ORDER_ID_BYTES..)?.strip_prefix('-')?;
            let plain =
                !version.starts_with('0') && version.bytes().all(|byte| byte.is_ascii_digit());
            let version = version.parse().ok().filter(|_| plain)?;
            Some(Self::new(order, Version::new(version)))
        };
        parse().ok_or_else(|| OutboxError::InvalidEventId(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ORDER: &str = "0199c82c-7d2a-7bbf-a6a4-3e1f0b6a5c11";

    #[test]
    fn an_id_reads_back_as_it_was_written() {
        let text = format!("{ORDER}-42");
        let id: EventId = text.parse().unwrap();
        assert_eq!(id.order().to_string(), ORDER);
        assert_eq!(id.version(), Version::new(42));
        assert_eq!(id.to_string(), text);
    }

    #[test]
    fn anything_else_is_refused() {
        for text in [
            "",
            ORDER,
            &format!("{ORDER}-"),
            &format!("{ORDER}-0"),
            &format!("{ORDER}-+1"),
            &format!("{ORDER}-01"),
            &format!("{ORDER}.1"),
            &format!("{ORDER}-4294967296"),
            "ümlaut-as-an-order-id-that-is-36-by-1",
        ] {
            assert!(text.parse::<EventId>().is_err(), "{text:?} was taken");
        }
    }
}
