//! Some of the projections.

use crate::Projection;

/// A set of projections.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct ProjectionSet {
    members: [bool; Projection::ALL.len()],
}

impl ProjectionSet {
    pub(crate) fn insert(&mut self, projection: Projection) {
        self.members[projection.index()] = true;
    }

    pub(crate) fn contains(self, projection: Projection) -> bool {
        self.members[projection.index()]
    }

    pub(crate) fn is_empty(self) -> bool {
        self == Self::default()
    }

    /// The members, core first.
    pub(crate) fn iter(self) -> impl Iterator<Item = Projection> {
        Projection::ALL
            .into_iter()
            .filter(move |projection| self.contains(*projection))
    }

    /// The members, core last.
    pub(crate) fn iter_core_last(self) -> impl Iterator<Item = Projection> {
        Projection::ALL
            .into_iter()
            .rev()
            .filter(move |projection| self.contains(*projection))
    }
}

impl FromIterator<Projection> for ProjectionSet {
    fn from_iter<I: IntoIterator<Item = Projection>>(projections: I) -> Self {
        let mut set = Self::default();
        projections
            .into_iter()
            .for_each(|projection| set.insert(projection));
        set
    }
}
