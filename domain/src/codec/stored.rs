//! The layouts that records have, by schema version, and the parts they are made of.
//!
//! A layout is written once and serves both codecs: bincode stores its fields one after another without names, JSON
//! stores them by name and leaves out what is absent. What is in `v1` and `v2` was written to logs and never changes.

pub(super) mod v1;
pub(super) mod v2;

use std::borrow::Cow;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{Amount, Currency, Event, Metadata, Status};

/// What a layout holds: the newest event, and where it came from.
pub(super) type Parts<'a> = (Event<'a>, Option<v1::Context<'a>>);

/// A layout that can be read: it becomes the newest event.
pub(super) trait Stored<'a> {
    /// The event, with every value checked; `Err` says which is not of this domain.
    fn event(self) -> Result<Parts<'a>, String>;
}

/// Defines a stored struct: fields in the order of their bytes.
macro_rules! layout {
    ($(#[$doc:meta])* $name:ident<$a:lifetime> {
        $($(#[$attribute:meta])* $field:ident: $type:ty,)+
    }) => {
        $(#[$doc])*
        #[derive(Debug, serde::Deserialize)]
        #[serde(deny_unknown_fields)]
        pub(in crate::codec) struct $name<$a> {
            $($(#[$attribute])* pub(in crate::codec) $field: $type,)+
        }

        impl serde::Serialize for $name<'_> {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                use serde::ser::SerializeStruct as _;
                use $crate::codec::stored::Part as _;

                let named = serializer.is_human_readable();
                let fields = [$(stringify!($field),)+].len();
                let mut out = serializer.serialize_struct(stringify!($name), fields)?;
                $(
                    if named && self.$field.is_absent() {
                        out.skip_field(stringify!($field))?;
                    } else {
                        out.serialize_field(stringify!($field), &self.$field)?;
                    }
                )+
                out.end()
            }
        }

        impl<$a> $crate::codec::binary::Read<$a> for $name<$a> {
            #[inline(always)]
            fn read(
                decoder: &mut $crate::codec::binary::BytesDecoder<$a>,
            ) -> $crate::codec::binary::ReadResult<Self> {
                Ok(Self {
                    $($field: $crate::codec::binary::Read::read(decoder)?,)+
                })
            }
        }
    };
}

use layout;

/// A field's value; an absent one is left out where fields have names.
trait Part {
    fn is_absent(&self) -> bool {
        false
    }
}

impl<T> Part for Option<T> {
    fn is_absent(&self) -> bool {
        self.is_none()
    }
}

impl Part for Cow<'_, Metadata> {
    fn is_absent(&self) -> bool {
        self.is_empty()
    }
}

impl<T> Part for Vec<T> {
    fn is_absent(&self) -> bool {
        self.is_empty()
    }
}

impl Part for u32 {}
impl Part for u64 {}
impl Part for Text<'_> {}
impl Part for MinorUnits {}
impl Part for CurrencyCode {}
impl Part for StatusCode {}
impl Part for Fingerprint {}
impl Part for v1::Line<'_> {}
impl Part for Lines<'_> {}

/// Text that stays in the record's bytes when it is read, unless JSON has escapes in it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Text<'a>(#[serde(borrow)] pub(super) Cow<'a, str>);

impl<'a> From<&'a str> for Text<'a> {
    fn from(text: &'a str) -> Self {
        Self(Cow::Borrowed(text))
    }
}

/// An amount: 0 to `i64::MAX`.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct MinorUnits(pub(super) u64);

impl From<Amount> for MinorUnits {
    fn from(amount: Amount) -> Self {
        Self(amount.minor_units().unsigned_abs())
    }
}

impl MinorUnits {
    fn amount(self) -> Result<Amount, String> {
        i64::try_from(self.0)
            .ok()
            .and_then(|minor_units| Amount::new(minor_units).ok())
            .ok_or_else(|| format!("the amount {} is above {}", self.0, i64::MAX))
    }
}

/// A currency's three letters: as bytes without a length, or as text.
#[derive(Debug, Clone, Copy)]
pub(super) struct CurrencyCode(pub(super) Currency);

impl From<Currency> for CurrencyCode {
    fn from(currency: Currency) -> Self {
        Self(currency)
    }
}

impl Serialize for CurrencyCode {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            self.0.code().serialize(serializer)
        } else {
            self.0.letters().serialize(serializer)
        }
    }
}

impl<'de> Deserialize<'de> for CurrencyCode {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let currency = if deserializer.is_human_readable() {
            Currency::recorded(Text::deserialize(deserializer)?.0.as_bytes())
        } else {
            Currency::recorded(&<[u8; 3]>::deserialize(deserializer)?)
        };
        currency.map(Self).map_err(D::Error::custom)
    }
}

/// A status: as one byte, or as text.
#[derive(Debug, Clone, Copy)]
pub(super) struct StatusCode(pub(super) Status);

impl StatusCode {
    /// Numbers in logs, never used again for another status.
    const fn number(self) -> u8 {
        match self.0 {
            Status::Placed => 1,
            Status::Confirmed => 2,
            Status::Paid => 3,
            Status::Shipped => 4,
            Status::Delivered => 5,
            Status::Cancelled => 6,
            Status::Refunded => 7,
        }
    }

    pub(super) fn from_number(number: u8) -> Option<Self> {
        let mut all = Status::ALL.iter().copied().map(Self);
        all.find(|status| status.number() == number)
    }
}

impl Serialize for StatusCode {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            self.0.name().serialize(serializer)
        } else {
            self.number().serialize(serializer)
        }
    }
}

impl<'de> Deserialize<'de> for StatusCode {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let status = if deserializer.is_human_readable() {
            Status::parse(&Text::deserialize(deserializer)?.0).map(Self)
        } else {
            Self::from_number(u8::deserialize(deserializer)?)
        };
        status.ok_or_else(|| D::Error::custom("there is no such status"))
    }
}

/// A digest: as 16 bytes without a length, or as 32 hexadecimal digits.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fingerprint(pub(super) [u8; 16]);

const HEX_DIGITS: &[u8; 16] = b"0123456789abcdef";

impl Serialize for Fingerprint {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            let mut digits = [0; 32];
            for (pair, byte) in digits.as_chunks_mut::<2>().0.iter_mut().zip(self.0) {
                *pair = [byte >> 4, byte & 0xf].map(|digit| HEX_DIGITS[usize::from(digit)]);
            }
            std::str::from_utf8(&digits)
                .expect("hexadecimal digits are ASCII")
                .serialize(serializer)
        } else {
            self.0.serialize(serializer)
        }
    }
}

impl<'de> Deserialize<'de> for Fingerprint {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if !deserializer.is_human_readable() {
            return <[u8; 16]>::deserialize(deserializer).map(Self);
        }
        let text = Text::deserialize(deserializer)?.0;
        let lower_hex = |byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        if text.len() == 32 && text.bytes().all(lower_hex) {
            let number = u128::from_str_radix(&text, 16).map_err(D::Error::custom)?;
            Ok(Self(number.to_be_bytes()))
        } else {
            Err(D::Error::custom(
                "a fingerprint is 32 digits of 0-9 and a-f",
            ))
        }
    }
}

/// The lines of a new order: written from where the event has them, read into a list of their own.
#[derive(Debug)]
pub(super) enum Lines<'a> {
    Written(&'a [crate::Line<'a>]),
    Read(Vec<v1::Line<'a>>),
}

impl<'a> Lines<'a> {
    fn lines(self) -> Result<Vec<crate::Line<'a>>, String> {
        match self {
            Self::Read(lines) => lines.into_iter().map(v1::Line::line).collect(),
            Self::Written(lines) => Ok(lines.to_vec()),
        }
    }
}

impl Serialize for Lines<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Written(lines) => serializer.collect_seq(lines.iter().map(v1::Line::from)),
            Self::Read(lines) => lines.serialize(serializer),
        }
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Lines<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Vec::deserialize(deserializer).map(Self::Read)
    }
}
