//! The currencies of ISO 4217 with their minor units; refuses codes that no amount can be in.
//!
//! The table is list one as published on 2026-01-01, without the codes that have no minor unit (metals, SDR, testing and
//! the like). When a code is withdrawn, its row moves to [`WITHDRAWN`]: new orders cannot use it, the old ones still
//! decode.

use std::fmt;

use crate::MoneyError;

/// Active codes by the digits of their minor unit.
const ACTIVE: [(u8, &str); 4] = [
    (
        0,
        "BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX UYI VND VUV XAF XOF XPF",
    ),
    (
        2,
        "AED AFN ALL AMD AOA ARS AUD AWG AZN BAM BBD BDT BMD BND BOB BOV BRL BSD BTN BWP BYN BZD \
         CAD CDF CHE CHF CHW CNY COP COU CRC CUP CVE CZK DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP \
         GEL GHS GIP GMD GTQ GYD HKD HNL HTG HUF IDR ILS INR IRR JMD KES KGS KHR KPW KYD KZT LAK \
         LBP LKR LRD LSL MAD MDL MGA MKD MMK MNT MOP MRU MUR MVR MWK MXN MXV MYR MZN NAD NGN NIO \
         NOK NPR NZD PAB PEN PGK PHP PKR PLN QAR RON RSD RUB SAR SBD SCR SDG SEK SGD SHP SLE SOS \
         SRD SSP STN SVC SYP SZL THB TJS TMT TOP TRY TTD TWD TZS UAH USD USN UYU UZS VED VES WST \
         XAD XCD XCG YER ZAR ZMW ZWG",
    ),
    (3, "BHD IQD JOD KWD LYD OMR TND"),
    (4, "CLF UYW"),
];

/// Codes that were active in this decade and are no more.
const WITHDRAWN: [(u8, &str); 1] = [(2, "ANG BGN CUC HRK SLL ZWL")];

/// One byte a possible code: 0 if it is none, otherwise its digits + 1, with [`WITHDRAWN_FLAG`] if it was withdrawn.
/// A lookup is one load, because every replayed order makes one.
static BY_CODE: [u8; 26 * 26 * 26] = by_code();
const WITHDRAWN_FLAG: u8 = 0x80;

const fn by_code() -> [u8; 26 * 26 * 26] {
    let mut table = [0; 26 * 26 * 26];
    let mut row = 0;
    while row < ACTIVE.len() {
        fill(&mut table, ACTIVE[row].1, ACTIVE[row].0 + 1);
        row += 1;
    }
    row = 0;
    while row < WITHDRAWN.len() {
        let entry = (WITHDRAWN[row].0 + 1) | WITHDRAWN_FLAG;
        fill(&mut table, WITHDRAWN[row].1, entry);
        row += 1;
    }
    table
}

const fn fill(table: &mut [u8; 26 * 26 * 26], codes: &str, entry: u8) {
    let mut rest = codes.as_bytes();
    while let Some((code, tail)) = rest.split_first_chunk::<3>() {
        let slot = slot(*code).expect("the table has upper-case letters only");
        assert!(table[slot] == 0, "a code stands in the table twice");
        table[slot] = entry;
        rest = match tail {
            [b' ', next @ ..] => next,
            _ => tail,
        };
    }
    assert!(rest.is_empty(), "the table has codes of three letters only");
}

const fn slot([a, b, c]: [u8; 3]) -> Option<usize> {
    if a.is_ascii_uppercase() && b.is_ascii_uppercase() && c.is_ascii_uppercase() {
        let (a, b, c) = (a - b'A', b - b'A', c - b'A');
        Some((a as usize * 26 + b as usize) * 26 + c as usize)
    } else {
        None
    }
}

/// An ISO 4217 currency, by its three-letter code.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Currency([u8; 3]);

impl Currency {
    /// Reads an upper-case alphabetic code from a client.
    ///
    /// # Errors
    /// [`MoneyError::UnknownCurrency`] for anything that is not an active code with a minor unit.
    pub fn parse(code: &str) -> Result<Self, MoneyError> {
        let currency = Self::recorded(code.as_bytes())?;
        if currency.entry() & WITHDRAWN_FLAG == 0 {
            Ok(currency)
        } else {
            Err(MoneyError::UnknownCurrency)
        }
    }

    /// Reads a code from this service's own records, where a currency may be that has been withdrawn since.
    ///
    /// # Errors
    /// [`MoneyError::UnknownCurrency`] for what never was an active code with a minor unit.
    pub fn recorded(code: &[u8]) -> Result<Self, MoneyError> {
        let code: [u8; 3] = code.try_into().map_err(|_| MoneyError::UnknownCurrency)?;
        match slot(code) {
            Some(slot) if BY_CODE[slot] != 0 => Ok(Self(code)),
            _ => Err(MoneyError::UnknownCurrency),
        }
    }

    /// The three letters.
    #[must_use]
    pub fn code(&self) -> &str {
        std::str::from_utf8(&self.0).expect("a currency is made of ASCII letters only")
    }

    /// Decimal digits of the minor unit: 2 for EUR (cents), 0 for JPY, 3 for KWD.
    #[must_use]
    pub fn digits(self) -> u8 {
        (self.entry() & !WITHDRAWN_FLAG) - 1
    }

    pub(crate) const fn letters(self) -> [u8; 3] {
        self.0
    }

    fn entry(self) -> u8 {
        BY_CODE[slot(self.0).expect("a currency is made of upper-case letters only")]
    }
}

impl fmt::Display for Currency {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.code())
    }
}

impl fmt::Debug for Currency {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.code())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_the_digits_of_every_kind_of_minor_unit() {
        for (code, digits) in [("JPY", 0), ("EUR", 2), ("USD", 2), ("KWD", 3), ("CLF", 4)] {
            let currency = Currency::parse(code).unwrap();
            assert_eq!((currency.code(), currency.digits()), (code, digits));
        }
    }

    #[test]
    fn holds_every_active_code_once() {
        let codes = ACTIVE.iter().flat_map(|(_, codes)| codes.split(' '));
        assert_eq!(codes.clone().count(), 165);
        for code in codes {
            assert_eq!(Currency::parse(code).unwrap().code(), code);
        }
    }

    #[test]
    fn refuses_other_cases_lengths_and_codes_without_a_minor_unit() {
        for code in [
            "", "E", "EU", "EURO", "eur", "Eur", "EU ", "€", "E€", "ZZZ", "XXX", "XTS", "XAU",
        ] {
            assert_eq!(
                Currency::parse(code),
                Err(MoneyError::UnknownCurrency),
                "{code}"
            );
        }
    }

    #[test]
    fn a_withdrawn_code_is_read_from_records_but_not_from_clients() {
        assert_eq!(Currency::parse("BGN"), Err(MoneyError::UnknownCurrency));
        assert_eq!(Currency::recorded(b"BGN").unwrap().digits(), 2);
    }
}
