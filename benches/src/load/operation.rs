//! What can be asked of the service, and in what proportion.

use std::fmt;
use std::str::FromStr;

use serde::Serialize;

use crate::sample::Chance;

/// One kind of request, reported on its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Operation {
    /// `POST /orders`
    Create,
    /// `GET /orders/:id` of an order made before.
    Get,
    /// `GET /orders/:id` of the order just made, waiting until it is visible; counts from its acknowledgement.
    ReadBack,
    /// `POST /orders/:id/confirm`
    Confirm,
    /// `POST /orders/:id/pay`
    Pay,
    /// `POST /orders/:id/ship`
    Ship,
    /// `POST /orders/:id/deliver`
    Deliver,
    /// `POST /orders/:id/cancel`, of an order that was not shipped.
    Cancel,
    /// `GET /orders`: the newest orders of a customer.
    List,
    /// `POST /orders/bulk`: many new orders in one request.
    Bulk,
}

impl Operation {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::Create,
        Self::Get,
        Self::ReadBack,
        Self::Confirm,
        Self::Pay,
        Self::Ship,
        Self::Deliver,
        Self::Cancel,
        Self::List,
        Self::Bulk,
    ];

    /// The name in reports and ledgers.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Get => "get",
            Self::ReadBack => "read-back",
            Self::Confirm => "confirm",
            Self::Pay => "pay",
            Self::Ship => "ship",
            Self::Deliver => "deliver",
            Self::Cancel => "cancel",
            Self::List => "list",
            Self::Bulk => "bulk",
        }
    }

    /// Its place in [`Operation::ALL`].
    #[must_use]
    pub(super) const fn index(self) -> usize {
        self as usize
    }

    /// The next step of an order that is where this command takes it; `None` after the last.
    #[must_use]
    pub(super) const fn next_step(self) -> Option<Self> {
        match self {
            Self::Create => Some(Self::Confirm),
            Self::Confirm => Some(Self::Pay),
            Self::Pay => Some(Self::Ship),
            Self::Ship => Some(Self::Deliver),
            Self::Deliver | Self::Cancel | Self::Get | Self::ReadBack | Self::List | Self::Bulk => {
                None
            }
        }
    }

    /// Whether it asks for a change: what may carry an `Idempotency-Key`.
    #[must_use]
    pub(super) const fn is_command(self) -> bool {
        !matches!(self, Self::Get | Self::ReadBack | Self::List)
    }
}

/// Weights of what a run sends. What goes to known orders (steps, cancellations, reads) is a new order too until there is
/// one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Mix {
    /// New orders.
    pub create: u32,
    /// Next steps: confirm, pay, ship, deliver.
    pub advance: u32,
    /// Cancellations of orders that were not shipped.
    pub cancel: u32,
    /// Reads of one order.
    pub get: u32,
    /// Pages of a customer's orders.
    pub list: u32,
    /// Many new orders in one request.
    pub bulk: u32,
}

/// What a [`Mix`] chose.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Choice {
    Create,
    Advance,
    Cancel,
    Get,
    List,
    Bulk,
}

impl Mix {
    /// New orders and nothing else.
    pub const CREATE: Self = Self {
        create: 1,
        advance: 0,
        cancel: 0,
        get: 0,
        list: 0,
        bulk: 0,
    };

    const fn weights(&self) -> [(Choice, &'static str, u32); 6] {
        [
            (Choice::Create, "create", self.create),
            (Choice::Advance, "advance", self.advance),
            (Choice::Cancel, "cancel", self.cancel),
            (Choice::Get, "get", self.get),
            (Choice::List, "list", self.list),
            (Choice::Bulk, "bulk", self.bulk),
        ]
    }

    pub(super) fn choose(&self, chance: &mut Chance) -> Choice {
        let weights = self
            .weights()
            .map(|(choice, _, weight)| (choice, usize::try_from(weight).unwrap_or(usize::MAX / 8)));
        let mut drawn = chance.below(weights.iter().map(|(_, weight)| weight).sum());
        for (choice, weight) in weights {
            if drawn < weight {
                return choice;
            }
            drawn -= weight;
        }
        Choice::Create
    }
}

impl fmt::Display for Mix {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named: Vec<String> = self
            .weights()
            .iter()
            .filter(|(_, _, weight)| *weight > 0)
            .map(|(_, name, weight)| format!("{name}={weight}"))
            .collect();
        formatter.write_str(&named.join(","))
    }
}

impl FromStr for Mix {
    type Err = anyhow::Error;

    /// `create=2,advance=1,get=7`; what is not named is 0.
    fn from_str(text: &str) -> anyhow::Result<Self> {
        let mut mix = Self::default();
        for part in text.split(',') {
            let weight = part.split_once('=').and_then(|(name, weight)| {
                let weight = weight.trim().parse::<u32>().ok()?;
                match name.trim() {
                    "create" => Some((&mut mix.create, weight)),
                    "advance" => Some((&mut mix.advance, weight)),
                    "cancel" => Some((&mut mix.cancel, weight)),
                    "get" => Some((&mut mix.get, weight)),
                    "list" => Some((&mut mix.list, weight)),
                    "bulk" => Some((&mut mix.bulk, weight)),
                    _ => None,
                }
            });
            let Some((place, weight)) = weight else {
                anyhow::bail!(
                    "`{part}` is not a weight: use create=N, advance=N, cancel=N, get=N, list=N, bulk=N"
                );
            };
            *place = weight;
        }
        anyhow::ensure!(
            mix.create > 0,
            "a mix needs new orders (create above 0): steps and reads go to orders that the run made"
        );
        Ok(mix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mix_reads_back_as_it_is_shown() {
        let mix: Mix = "create=2, get=7,advance=1,bulk=3".parse().unwrap();
        assert_eq!(
            mix,
            Mix {
                create: 2,
                advance: 1,
                get: 7,
                bulk: 3,
                ..Mix::default()
            }
        );
        assert_eq!(mix.to_string(), "create=2,advance=1,get=7,bulk=3");
        assert_eq!(mix.to_string().parse::<Mix>().unwrap(), mix);
    }

    #[test]
    fn a_mix_without_new_orders_or_with_unknown_words_is_refused() {
        assert!("get=1".parse::<Mix>().is_err());
        assert!("create=1,delete=1".parse::<Mix>().is_err());
        assert!("create".parse::<Mix>().is_err());
    }

    #[test]
    fn choices_come_in_the_proportion_of_the_weights() {
        let mix: Mix = "create=1,advance=2,get=4,list=2,bulk=1".parse().unwrap();
        let mut chance = Chance::new(3);
        let mut counts = std::collections::HashMap::new();
        for _ in 0..10_000 {
            *counts.entry(mix.choose(&mut chance)).or_insert(0_u32) += 1;
        }
        for (choice, _, weight) in mix.weights() {
            let drawn = counts.get(&choice).copied().unwrap_or(0);
            assert!(drawn.abs_diff(weight * 1_000) < 200, "{counts:?}");
        }
        assert!(!counts.contains_key(&Choice::Cancel), "{counts:?}");
    }

    #[test]
    fn every_operation_is_at_its_index() {
        for (index, operation) in Operation::ALL.into_iter().enumerate() {
            assert_eq!(operation.index(), index);
        }
    }
}
