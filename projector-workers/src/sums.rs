//! Sums of a batch by key: added to in memory, written once a key.

use std::collections::HashMap;
use std::fmt::Debug;

use crate::park::ParkReason;
use crate::trouble::Trouble;

/// The columns of a summary row, as amounts to add.
pub(crate) trait Sum: Copy + Default + PartialEq + Debug {
    /// The table the row is in.
    const TABLE: &'static str;

    /// Why a frame is set aside whose amounts do not fit.
    const OVERFLOW: ParkReason = ParkReason::SumOverflow(Self::TABLE);

    /// The sum; `None` if it leaves the range of 64 bits.
    fn plus(self, other: Self) -> Option<Self>;
}

/// Sums by key.
#[derive(Debug)]
pub(crate) struct SumTable<T> {
    entries: HashMap<String, Entry<T>>,
}

#[derive(Debug, Clone, Copy)]
struct Entry<T> {
    /// What is stored, or nothing if it was not looked up.
    stored: T,
    /// What this batch adds.
    added: T,
}

impl<T> Default for SumTable<T> {
    fn default() -> Self {
        Self {
            entries: HashMap::new(),
        }
    }
}

impl<T: Sum> SumTable<T> {
    pub(crate) fn clear(&mut self) {
        self.entries.clear();
    }

    /// Makes room for a key; `stored` says what its row holds, or nothing if nobody looks.
    pub(crate) fn expect(
        &mut self,
        key: &str,
        stored: impl FnOnce() -> Result<T, Trouble>,
    ) -> Result<(), Trouble> {
        if !self.entries.contains_key(key) {
            let stored = stored()?;
            let added = T::default();
            self.entries.insert(key.to_owned(), Entry { stored, added });
        }
        Ok(())
    }

    /// Adds to keys that are expected, each at most once in `effect`: all or nothing.
    pub(crate) fn add_all(&mut self, effect: &[(&str, T)]) -> Result<(), ParkReason> {
        let fits = |entry: &Entry<T>, amount| {
            let added = entry.added.plus(amount)?;
            entry.stored.plus(added).map(|_| added)
        };
        for (key, amount) in effect {
            let entry = self.entries.get(*key);
            entry
                .and_then(|entry| fits(entry, *amount))
                .ok_or(T::OVERFLOW)?;
        }
        for (key, amount) in effect {
            if let Some(entry) = self.entries.get_mut(*key)
                && let Some(added) = fits(entry, *amount)
            {
                entry.added = added;
            }
        }
        Ok(())
    }

    /// What is to be written, in key order. A key that was looked at but got nothing is no row.
    pub(crate) fn in_key_order(&self) -> Vec<(&str, T)> {
        let mut rows: Vec<(&str, T)> = self
            .entries
            .iter()
            .filter(|(_, entry)| entry.added != T::default())
            .map(|(key, entry)| (key.as_str(), entry.added))
            .collect();
        rows.sort_unstable_by_key(|(key, _)| *key);
        rows
    }
}
