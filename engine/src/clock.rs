//! The door to the wall clock.

use std::time::{SystemTime, UNIX_EPOCH};

/// Returns the milliseconds since 1970, UTC.
pub(crate) fn now_unix_ms() -> u64 {
    #[expect(clippy::disallowed_methods, reason = "a node's writes happen now")]
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}
