//! When and where something was written: hybrid logical clock, site, causal length.

use std::fmt;

/// A hybrid logical clock timestamp: 41 bits of milliseconds since 2024-01-01 UTC above 12 bits of
/// counter, 53 bits in all, so that a JavaScript number holds it exactly.
///
/// It orders writes by wall clock where clocks agree and by cause where they do not (Kulkarni et
/// al., *Logical Physical Clocks*, 2014). Zero is "never".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hlc(u64);

/// Milliseconds between the Unix epoch and 2024-01-01 UTC, where [`Hlc`] time begins.
pub const EPOCH_UNIX_MS: u64 = 1_704_067_200_000;

/// The furthest ahead of the local clock, in milliseconds, that a foreign timestamp is taken in:
/// five minutes, as in Evolu. Later ones wait until they are due; they are never refused for good.
pub const DRIFT_MS_MAX: u64 = 5 * 60 * 1000;

const COUNTER_BITS: u32 = 12;
/// How many timestamps a local clock leaves above itself, wherever it stands.
const LOCAL_TICKS_MIN: u64 = 1 << 40;

impl Hlc {
    /// Before every write.
    pub const ZERO: Hlc = Hlc(0);
    /// The last timestamp there is, in the year 2093.
    pub const MAX: Hlc = Hlc((1 << 53) - 1);

    /// Returns the timestamp with these 53 bits, or `None` where there are more.
    pub fn from_bits(bits: u64) -> Option<Self> {
        (bits <= Self::MAX.0).then_some(Hlc(bits))
    }

    /// Returns the 53 bits.
    pub fn to_bits(self) -> u64 {
        self.0
    }

    /// Returns the first timestamp of a millisecond of Unix time; times before 2024 count as 2024.
    pub fn at_unix_ms(unix_ms: u64) -> Self {
        let ms = unix_ms.saturating_sub(EPOCH_UNIX_MS);
        Hlc((ms << COUNTER_BITS).min(Self::MAX.0))
    }

    /// Returns the Unix time in milliseconds.
    pub fn unix_ms(self) -> u64 {
        EPOCH_UNIX_MS + (self.0 >> COUNTER_BITS)
    }

    /// Returns the next timestamp after `self`, at the local time or just above everything seen.
    ///
    /// A local clock that stands near the last timestamp or beyond counts as 2^40 timestamps
    /// before it, so that a device whose clock went wrong once can go on writing.
    ///
    /// # Panics
    ///
    /// After the last timestamp.
    pub fn tick(self, now_unix_ms: u64) -> Self {
        let local = Hlc::at_unix_ms(now_unix_ms).0;
        let local = local.min(Self::MAX.0 - LOCAL_TICKS_MIN);
        let next = local.max(self.0 + 1);
        assert!(next <= Self::MAX.0, "the 53-bit clock ran out at {next}");
        Hlc(next)
    }

    /// Whether the timestamp is further ahead of the local clock than [`DRIFT_MS_MAX`].
    pub fn is_ahead_of(self, now_unix_ms: u64) -> bool {
        self > Hlc::at_unix_ms(now_unix_ms.saturating_add(DRIFT_MS_MAX))
    }
}

/// A replica as the merge names it: 16 random bytes, made once for each database file.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SiteId(pub [u8; 16]);

impl fmt::Display for SiteId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for SiteId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SiteId({self})")
    }
}

/// The version of a cell: when, then where it was written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Stamp {
    /// The time of the transaction.
    pub version: Hlc,
    /// The replica that wrote.
    pub site: SiteId,
}

/// How often a row was created and deleted: odd is alive, even is deleted, zero is unknown.
///
/// A causal-length set (Yu and Rostad, *A Low-Cost Set CRDT*, 2020): the greater length wins, so a
/// deletion beats every edit of the life it ended, and a new life beats the deletion.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CausalLength(u64);

/// The greatest causal length there is: each birth and each death has a time of its own, so there
/// are no more of them than times.
pub const CAUSAL_LENGTH_MAX: u64 = Hlc::MAX.0;

impl CausalLength {
    /// A row nobody has heard of.
    pub const UNKNOWN: CausalLength = CausalLength(0);
    /// A row in its first life.
    pub const FIRST: CausalLength = CausalLength(1);

    /// Returns the causal length, or `None` beyond [`CAUSAL_LENGTH_MAX`].
    pub fn new(length: u64) -> Option<Self> {
        (length <= CAUSAL_LENGTH_MAX).then_some(CausalLength(length))
    }

    /// Returns the number.
    pub fn get(self) -> u64 {
        self.0
    }

    /// Whether the row lives.
    pub fn is_alive(self) -> bool {
        self.0 % 2 == 1
    }

    /// Returns the length after the row was created: itself if it lives already.
    pub fn born(self) -> Self {
        CausalLength(self.0 | 1)
    }

    /// Returns the length after the row was deleted: itself if it is deleted already. A row nobody
    /// has heard of counts as having lived.
    pub fn dead(self) -> Self {
        let lived = self.0.max(1);
        CausalLength(lived + lived % 2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tick_follows_the_wall_clock_and_never_goes_back() {
        let noon = EPOCH_UNIX_MS + 1_000;
        let first = Hlc::ZERO.tick(noon);
        assert_eq!(first.unix_ms(), noon);
        let second = first.tick(noon);
        assert!(second > first && second.unix_ms() == noon);
        let clock_set_back = second.tick(noon - 500);
        assert!(clock_set_back > second);
        assert_eq!(clock_set_back.tick(noon + 1).unix_ms(), noon + 1);
    }

    #[test]
    fn a_clock_that_stood_beyond_the_last_timestamp_stops_nobody() {
        let far = Hlc::ZERO.tick(u64::MAX);
        assert!(far < Hlc::MAX);
        let next = far.tick(u64::MAX);
        assert!(next > far && next < Hlc::MAX);
        assert!(next.tick(EPOCH_UNIX_MS) > next);
    }

    #[test]
    fn a_timestamp_is_early_beyond_five_minutes() {
        let now = EPOCH_UNIX_MS + 1_000_000;
        assert!(!Hlc::at_unix_ms(now + DRIFT_MS_MAX).is_ahead_of(now));
        assert!(Hlc::at_unix_ms(now + DRIFT_MS_MAX + 1).is_ahead_of(now));
    }

    #[test]
    fn lives_and_deaths_alternate() {
        let unknown = CausalLength::UNKNOWN;
        assert_eq!(unknown.born().get(), 1);
        assert_eq!(unknown.dead().get(), 2);
        assert_eq!(unknown.born().born().get(), 1);
        assert_eq!(unknown.born().dead().get(), 2);
        assert_eq!(unknown.born().dead().born().get(), 3);
        assert_eq!(unknown.born().dead().dead().get(), 2);
    }
}
