//! Places where tests may kill this program, to prove what survives. Without the feature
//! `failpoints` there is nothing here at all.
//!
//! `SPILLWAY_FAILPOINT=after-publish=abort@3` ends the process as `kill -9` would, at the third
//! passage; without `@3` at the first.

/// Passes by a named place.
#[cfg(not(feature = "failpoints"))]
pub fn hit(_: &'static str) {}

/// Passes by a named place, or ends there.
#[cfg(feature = "failpoints")]
pub fn hit(name: &'static str) {
    use std::sync::atomic::{AtomicU64, Ordering};

    static PASSAGES: AtomicU64 = AtomicU64::new(0);
    let Some(wanted) = crate::settings::failpoint() else { return };
    let (place, action) = wanted.split_once('=').unwrap_or((&wanted, "abort"));
    let (_, passage) = action.split_once('@').unwrap_or((action, "1"));
    if place != name {
        return;
    }
    let passages = PASSAGES.fetch_add(1, Ordering::SeqCst) + 1;
    if passage.parse() == Ok(passages) {
        #[expect(clippy::disallowed_methods, reason = "that nothing is put in order is the point")]
        std::process::abort();
    }
}
