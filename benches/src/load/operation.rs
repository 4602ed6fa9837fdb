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
}

impl Operation {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Create,
        Self::Get,
        Self::ReadBack,
        Self::Confirm,
        Self::Pay,
        Self::Ship,
        Self::Deliver,
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
            Self::Deliver | Self::Get | Self::ReadBack => None,
        }
    }
}

/// Weights of new orders, next steps of known ones, and reads of known ones. Until there is a known order, steps and
/// reads are new orders too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Mix {
    /// New orders.
    pub create: u32,
    /// Next steps: confirm, pay, ship, deliver.
    pub advance: u32,
    /// Reads.
    pub get: u32,
}

/// What a [`Mix`] chose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Choice {
    Create,
    Advance,
    Get,
}

impl Mix {
    pub(super) fn choose(&self, chance: &mut Chance) -> Choice {
        let [create, advance, get] = [self.create, self.advance, self.get]
            .map(|weight| usize::try_from(weight).unwrap_or(usize::MAX / 4));
        let drawn = chance.below(create + advance + get);
        if drawn < create {
            Choice::Create
        } else if drawn < create + advance {
            Choice::Advance
        } else {
            Choice::Get
        }
    }
}

impl fmt::Display for Mix {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "create={},advance={},get={}",
            self.create, self.advance, self.get
        )
    }
}

impl FromStr for Mix {
    type Err = anyhow::Error;

    /// `create=2,advance=1,get=7`; what is not named is 0.
    fn from_str(text: &str) -> anyhow::Result<Self> {
        let mut mix = Self {
            create: 0,
            advance: 0,
            get: 0,
        };
        for part in text.split(',') {
            let weight = part.split_once('=').and_then(|(name, weight)| {
                let weight = weight.trim().parse::<u32>().ok()?;
                match name.trim() {
                    "create" => Some((&mut mix.create, weight)),
                    "advance" => Some((&mut mix.advance, weight)),
                    "get" => Some((&mut mix.get, weight)),
                    _ => None,
                }
            });
            let Some((place, weight)) = weight else {
                anyhow::bail!("`{part}` is not a weight: use create=N, advance=N, get=N");
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
        let mix: Mix = "create=2, get=7,advance=1".parse().unwrap();
        assert_eq!(
            mix,
            Mix {
                create: 2,
                advance: 1,
                get: 7
            }
        );
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
        let mix = Mix {
            create: 1,
            advance: 2,
            get: 7,
        };
        let mut chance = Chance::new(3);
        let mut counts = [0_u32; 3];
        for _ in 0..10_000 {
            match mix.choose(&mut chance) {
                Choice::Create => counts[0] += 1,
                Choice::Advance => counts[1] += 1,
                Choice::Get => counts[2] += 1,
            }
        }
        assert!((900..1_100).contains(&counts[0]), "{counts:?}");
        assert!((1_850..2_150).contains(&counts[1]), "{counts:?}");
    }

    #[test]
    fn every_operation_is_at_its_index() {
        for (index, operation) in Operation::ALL.into_iter().enumerate() {
            assert_eq!(operation.index(), index);
        }
    }
}
