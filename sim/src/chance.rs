//! Dice. All of them are one stream, the simulation's seed: drawing once more anywhere changes all
//! that follows, so nothing here is drawn that no decision needs.

use std::time::Duration;

use spillway_runtime::outside;

/// A number below `end` (0 for 0).
#[must_use]
pub fn below(end: u64) -> u64 {
    let mut bytes = [0; 8];
    // Within a simulation there is always chance.
    let drawn = outside::fill(&mut bytes).is_ok();
    debug_assert!(drawn);
    u64::from_le_bytes(bytes).checked_rem(end).unwrap_or_default()
}

/// Heads in so many of a hundred throws.
#[must_use]
pub fn percent(of_hundred: u32) -> bool {
    of_hundred > 0 && below(100) < u64::from(of_hundred)
}

/// Between two numbers of milliseconds.
#[must_use]
pub fn ms(from: u64, to: u64) -> Duration {
    Duration::from_millis(from + below(to.saturating_sub(from).max(1)))
}
