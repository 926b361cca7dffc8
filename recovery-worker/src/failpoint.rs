//! Places where tests may kill this program, to prove what survives. Without the feature
//! `failpoints` there is nothing here at all.
//!
//! `SPILLWAY_FAILPOINT=NAME` ends the process as `kill -9` would, the first time it comes by.

/// Passes by a named place.
#[cfg(not(feature = "failpoints"))]
pub fn hit(_: &'static str) {}

/// Passes by a named place, or ends there.
#[cfg(feature = "failpoints")]
pub fn hit(name: &'static str) {
    if crate::settings::failpoint().as_deref() == Some(name) {
        #[expect(clippy::disallowed_methods, reason = "that nothing is put in order is the point")]
        std::process::abort();
    }
}
