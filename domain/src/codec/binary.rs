//! Layouts to and from bincode's bytes: the only place that knows bincode.
//!
//! Writing goes through serde. Reading uses bincode's own decoder on the same bytes, field by field, because serde's
//! sequence of optional elements costs several times the decoding itself, and every replay pays it. All text is
//! borrowed, so no length in the bytes can make it allocate; a list reserves room for a bounded count and grows with
//! what is really there. Reading is inlined by force: left to the compiler, a record is copied from call to call and
//! takes a third longer.

use std::borrow::Cow;

use bincode::config::{self, Configuration};
use bincode::de::read::{Reader as _, SliceReader};
use bincode::de::{BorrowDecoder as _, DecoderImpl};
use bincode::enc::write::Writer;
use bincode::error::{DecodeError, EncodeError};
use bincode::{BorrowDecode, Decode};
use serde::Serialize;

use super::stored::{CurrencyCode, Fingerprint, Lines, MinorUnits, StatusCode, Text};
use crate::{Currency, LINES_MAX, Metadata};

/// Reads a value's bytes from where the decoder stands.
pub(super) trait Read<'a>: Sized {
    fn read(decoder: &mut BytesDecoder<'a>) -> ReadResult<Self>;
}

/// What was read, or what bincode says of the bytes.
pub(super) type ReadResult<T> = Result<T, DecodeError>;

/// bincode's decoder over a record.
pub(super) type BytesDecoder<'a> = DecoderImpl<SliceReader<'a>, Configuration, ()>;

/// Appends a layout's bytes.
pub(super) fn write(buffer: &mut Vec<u8>, layout: &impl Serialize) {
    bincode::serde::encode_into_writer(layout, Appender(buffer), config::standard())
        .expect("a Vec takes every byte, and no layout has a value without an encoding");
}

/// Reads a layout that fills `bytes` to the end.
pub(super) fn read<'a, T: Read<'a>>(bytes: &'a [u8]) -> ReadResult<T> {
    let mut decoder = DecoderImpl::new(SliceReader::new(bytes), config::standard(), ());
    let layout = T::read(&mut decoder)?;
    if decoder.borrow_reader().peek_read(1).is_some() {
        return Err(DecodeError::Other("there are bytes behind its end"));
    }
    Ok(layout)
}

struct Appender<'a>(&'a mut Vec<u8>);

impl Writer for Appender<'_> {
    fn write(&mut self, bytes: &[u8]) -> Result<(), EncodeError> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }
}

impl<'a> Read<'a> for u32 {
    #[inline(always)]
    fn read(decoder: &mut BytesDecoder<'a>) -> ReadResult<Self> {
        Self::decode(decoder)
    }
}

impl<'a> Read<'a> for u64 {
    #[inline(always)]
    fn read(decoder: &mut BytesDecoder<'a>) -> ReadResult<Self> {
        Self::decode(decoder)
    }
}

impl<'a> Read<'a> for MinorUnits {
    #[inline(always)]
    fn read(decoder: &mut BytesDecoder<'a>) -> ReadResult<Self> {
        u64::decode(decoder).map(Self)
    }
}

impl<'a> Read<'a> for Text<'a> {
    #[inline(always)]
    fn read(decoder: &mut BytesDecoder<'a>) -> ReadResult<Self> {
        <&str>::borrow_decode(decoder).map(Self::from)
    }
}

impl<'a> Read<'a> for Fingerprint {
    #[inline(always)]
    fn read(decoder: &mut BytesDecoder<'a>) -> ReadResult<Self> {
        <[u8; 16]>::decode(decoder).map(Self)
    }
}

impl<'a> Read<'a> for CurrencyCode {
    #[inline(always)]
    fn read(decoder: &mut BytesDecoder<'a>) -> ReadResult<Self> {
        Currency::recorded(&<[u8; 3]>::decode(decoder)?)
            .map(Self)
            .map_err(|_| DecodeError::Other("the currency is not in ISO 4217"))
    }
}

impl<'a> Read<'a> for StatusCode {
    fn read(decoder: &mut BytesDecoder<'a>) -> ReadResult<Self> {
        Self::from_number(u8::decode(decoder)?).ok_or(DecodeError::Other("there is no such status"))
    }
}

impl<'a, T: Read<'a>> Read<'a> for Option<T> {
    #[inline(always)]
    fn read(decoder: &mut BytesDecoder<'a>) -> ReadResult<Self> {
        match u8::decode(decoder)? {
            0 => Ok(None),
            1 => T::read(decoder).map(Some),
            _ => Err(DecodeError::Other("an option is neither there nor absent")),
        }
    }
}

impl<'a, T: Read<'a>> Read<'a> for Vec<T> {
    #[inline(always)]
    fn read(decoder: &mut BytesDecoder<'a>) -> ReadResult<Self> {
        let count = usize::decode(decoder)?;
        let mut list = Self::with_capacity(count.min(LINES_MAX));
        for _ in 0..count {
            list.push(T::read(decoder)?);
        }
        Ok(list)
    }
}

impl<'a> Read<'a> for Lines<'a> {
    #[inline(always)]
    fn read(decoder: &mut BytesDecoder<'a>) -> ReadResult<Self> {
        Read::read(decoder).map(Self::Read)
    }
}

impl<'a> Read<'a> for Cow<'a, Metadata> {
    #[inline(always)]
    fn read(decoder: &mut BytesDecoder<'a>) -> ReadResult<Self> {
        let count = usize::decode(decoder)?;
        let mut metadata = Metadata::new();
        for _ in 0..count {
            let Text(key) = Text::read(decoder)?;
            let Text(value) = Text::read(decoder)?;
            metadata.insert(key.into_owned(), value.into_owned());
        }
        Ok(Cow::Owned(metadata))
    }
}
