//! Money: integer minor units of an ISO 4217 currency; every sum is checked.

use std::fmt;

/// Why an amount of money cannot be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MoneyError {
    /// A sum or product left the range of an amount.
    #[error("the amount leaves the range of 0 to {} minor units", i64::MAX)]
    Overflow,
    /// An amount below zero.
    #[error("the amount {0} is negative")]
    Negative(i64),
    /// Not the code of a currency in ISO 4217.
    #[error("not an active ISO 4217 currency code in upper case")]
    UnknownCurrency,
    /// A quantity of zero, or above the limit.
    #[error("the quantity {0} is not between 1 and {max}", max = Quantity::MAX)]
    Quantity(u64),
}

/// An amount in minor units (cents for EUR, yen for JPY): 0 to `i64::MAX`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Amount(i64);

impl Amount {
    /// Nothing.
    pub const ZERO: Self = Self(0);

    /// Takes minor units.
    ///
    /// # Errors
    /// [`MoneyError::Negative`] below zero.
    pub const fn new(minor_units: i64) -> Result<Self, MoneyError> {
        if minor_units < 0 {
            Err(MoneyError::Negative(minor_units))
        } else {
            Ok(Self(minor_units))
        }
    }

    /// Minor units.
    #[must_use]
    pub const fn minor_units(self) -> i64 {
        self.0
    }

    /// The sum.
    ///
    /// # Errors
    /// [`MoneyError::Overflow`] past `i64::MAX`.
    pub const fn plus(self, other: Self) -> Result<Self, MoneyError> {
        match self.0.checked_add(other.0) {
            Some(sum) => Ok(Self(sum)),
            None => Err(MoneyError::Overflow),
        }
    }

    /// The difference.
    ///
    /// # Errors
    /// [`MoneyError::Overflow`] if `other` is more than `self`.
    pub const fn minus(self, other: Self) -> Result<Self, MoneyError> {
        if other.0 > self.0 {
            Err(MoneyError::Overflow)
        } else {
            Ok(Self(self.0 - other.0))
        }
    }

    /// The price of `quantity` units at this unit price.
    ///
    /// # Errors
    /// [`MoneyError::Overflow`] past `i64::MAX`.
    pub const fn times(self, quantity: Quantity) -> Result<Self, MoneyError> {
        match self.0.checked_mul(quantity.0 as i64) {
            Some(product) => Ok(Self(product)),
            None => Err(MoneyError::Overflow),
        }
    }
}

impl fmt::Display for Amount {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, formatter)
    }
}

/// How many units of a line: 1 to [`Quantity::MAX`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Quantity(u32);

impl Quantity {
    /// Most units a line can have: a typing error is far likelier than a larger order.
    pub const MAX: u32 = 1_000_000;

    /// Takes a count of units.
    ///
    /// # Errors
    /// [`MoneyError::Quantity`] for 0 and above [`Quantity::MAX`].
    pub const fn new(units: u32) -> Result<Self, MoneyError> {
        if units == 0 || units > Self::MAX {
            Err(MoneyError::Quantity(units as u64))
        } else {
            Ok(Self(units))
        }
    }

    /// The count of units.
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0
    }
}
