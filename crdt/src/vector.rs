//! What a replica has seen, site by site.

use std::collections::BTreeMap;

use crate::{Hlc, SiteId};

/// For each site, the time up to which all its transactions are known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VersionVector {
    entries: BTreeMap<SiteId, Hlc>,
}

impl VersionVector {
    /// Returns a vector that has seen nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns a vector that has seen one site's transactions up to a time.
    pub fn of(site: SiteId, version: Hlc) -> Self {
        let mut vector = Self::new();
        vector.advance(site, version);
        vector
    }

    /// Returns up to where the site is known, [`Hlc::ZERO`] if not at all.
    pub fn version(&self, site: SiteId) -> Hlc {
        self.entries.get(&site).copied().unwrap_or(Hlc::ZERO)
    }

    /// Notes that the site is known up to `version`; never goes back.
    pub fn advance(&mut self, site: SiteId, version: Hlc) {
        if version > self.version(site) {
            self.entries.insert(site, version);
        }
    }

    /// Notes all that `other` has seen.
    pub fn join(&mut self, other: &VersionVector) {
        for (site, version) in other.iter() {
            self.advance(site, version);
        }
    }

    /// Whether all that `other` has seen is seen here.
    pub fn covers(&self, other: &VersionVector) -> bool {
        other
            .iter()
            .all(|(site, version)| self.version(site) >= version)
    }

    /// Returns what both have seen.
    pub fn meet(&self, other: &VersionVector) -> Self {
        let both = |(site, version): (SiteId, Hlc)| (site, version.min(other.version(site)));
        self.iter().map(both).collect()
    }

    /// Whether nothing is seen.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Returns the sites with a version above zero, in the order of their ids.
    pub fn iter(&self) -> impl Iterator<Item = (SiteId, Hlc)> + '_ {
        self.entries.iter().map(|(site, version)| (*site, *version))
    }

    /// Returns how many sites are known.
    pub fn sites_count(&self) -> usize {
        self.entries.len()
    }
}

/// A table, or a column of one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Part {
    /// The table.
    pub table: String,
    /// The column; empty for the whole table.
    pub column: String,
}

impl Part {
    /// Returns a whole table.
    pub fn whole(table: &str) -> Self {
        Part {
            table: table.to_owned(),
            column: String::new(),
        }
    }

    /// Whether it is a whole table.
    pub fn is_whole(&self) -> bool {
        self.column.is_empty()
    }
}

/// Version vectors of parts of the tables.
pub type Parts = BTreeMap<Part, VersionVector>;

/// What a replica has seen, and which tables and columns of that it lacks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// What it has seen.
    pub vector: VersionVector,
    /// What it got from a replica which did not hold all of it, each with what it had seen before:
    /// everything up to there is held.
    pub gaps: Parts,
}

impl From<VersionVector> for Seen {
    fn from(vector: VersionVector) -> Self {
        Seen {
            vector,
            gaps: Parts::new(),
        }
    }
}

impl FromIterator<(SiteId, Hlc)> for VersionVector {
    fn from_iter<I: IntoIterator<Item = (SiteId, Hlc)>>(entries: I) -> Self {
        let mut vector = Self::new();
        for (site, version) in entries {
            vector.advance(site, version);
        }
        vector
    }
}
