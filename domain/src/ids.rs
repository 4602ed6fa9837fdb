//! Identifiers: each is checked once, where it enters, and cannot be confused with another.

use std::borrow::Cow;
use std::fmt;

/// Longest customer id and SKU, in bytes: long enough for a UUID or an e-mail address, short enough for an index key.
pub const TEXT_ID_BYTES_MAX: usize = 64;

/// Why a text is not an identifier.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidId {
    /// The text is not a hyphenated UUID.
    #[error("not a UUID in its hyphenated form")]
    NotUuid,
    /// The text is empty.
    #[error("is empty")]
    Empty,
    /// The text is longer than the limit.
    #[error("is {bytes} bytes long, at most {max} are allowed")]
    TooLong {
        /// Length found, in bytes.
        bytes: usize,
        /// Longest length allowed, in bytes.
        max: usize,
    },
    /// The text has a control character.
    #[error("has a control character")]
    ControlCharacter,
    /// The text begins or ends with white space.
    #[error("has white space at an end")]
    OuterWhiteSpace,
}

/// An order's id: a UUIDv7 made by the server, so that ids sort by the time they were made.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OrderId([u8; 16]);

impl OrderId {
    /// Takes the 16 bytes of a UUID in network order.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The 16 bytes in network order; their order is the order of ids.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// Reads the hyphenated form, upper or lower case.
    ///
    /// # Errors
    /// [`InvalidId::NotUuid`] for anything else.
    pub fn parse(text: &str) -> Result<Self, InvalidId> {
        if text.len() != 36 {
            return Err(InvalidId::NotUuid);
        }
        uuid::Uuid::try_parse(text)
            .map(|id| Self(id.into_bytes()))
            .map_err(|_| InvalidId::NotUuid)
    }

    /// Writes the lower-case hyphenated form into `buffer` and returns it, without allocating.
    pub fn text<'b>(&self, buffer: &'b mut [u8; 36]) -> &'b str {
        uuid::Uuid::from_bytes(self.0)
            .hyphenated()
            .encode_lower(buffer)
    }
}

impl fmt::Display for OrderId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.text(&mut [0; 36]))
    }
}

impl fmt::Debug for OrderId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name<'a>(Cow<'a, str>);

        impl<'a> $name<'a> {
            /// Checks a text that came from outside: 1 to [`TEXT_ID_BYTES_MAX`] bytes, no control character, no outer
            /// white space.
            ///
            /// # Errors
            /// [`InvalidId`] says which of these it breaks.
            pub fn new(text: impl Into<Cow<'a, str>>) -> Result<Self, InvalidId> {
                let text = text.into();
                check_text(&text)?;
                Ok(Self(text))
            }

            /// The text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }

            /// The same id, owning its text.
            #[must_use]
            pub fn into_owned(self) -> $name<'static> {
                $name(Cow::Owned(self.0.into_owned()))
            }
        }

        impl fmt::Display for $name<'_> {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str(&self.0)
            }
        }
    };
}

text_id!(
    /// Who ordered: chosen by the client, opaque to the service.
    CustomerId
);
text_id!(
    /// What was ordered: a stock keeping unit, opaque to the service.
    Sku
);

fn check_text(text: &str) -> Result<(), InvalidId> {
    if text.is_empty() {
        return Err(InvalidId::Empty);
    }
    if text.len() > TEXT_ID_BYTES_MAX {
        return Err(InvalidId::TooLong {
            bytes: text.len(),
            max: TEXT_ID_BYTES_MAX,
        });
    }
    // Nearly every id is plain ASCII; the check is on the way of every replayed line.
    if text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Ok(());
    }
    if text.chars().any(char::is_control) {
        return Err(InvalidId::ControlCharacter);
    }
    if text.trim().len() != text.len() {
        return Err(InvalidId::OuterWhiteSpace);
    }
    Ok(())
}

/// A line of one order: 1, 2, 3, …, never used again after the line is removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LineId(u32);

impl LineId {
    /// The first line of an order.
    pub const FIRST: Self = Self(1);

    /// Takes a number; `None` for 0, which no line has.
    #[must_use]
    pub const fn new(number: u32) -> Option<Self> {
        if number == 0 {
            None
        } else {
            Some(Self(number))
        }
    }

    /// The number.
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0
    }

    /// The id of the line added after this one; `None` after the last number there is.
    #[must_use]
    pub const fn next(self) -> Option<Self> {
        match self.0.checked_add(1) {
            Some(number) => Some(Self(number)),
            None => None,
        }
    }
}

impl fmt::Display for LineId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, formatter)
    }
}

/// How many events an order has had: 1 after it was placed. The strong `ETag` of its representation.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version(u32);

impl Version {
    /// Before the first event.
    pub const NONE: Self = Self(0);

    /// Takes a count of events.
    #[must_use]
    pub const fn new(count: u32) -> Self {
        Self(count)
    }

    /// The count of events.
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0
    }

    /// The version after one more event; `None` after the last number there is.
    #[must_use]
    pub const fn next(self) -> Option<Self> {
        match self.0.checked_add(1) {
            Some(count) => Some(Self(count)),
            None => None,
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, formatter)
    }
}
