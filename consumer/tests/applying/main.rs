//! From Kafka into MySQL on the real servers: each file is named by what is tried.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

mod site;
mod batches;

mod applied;
mod clones;
mod gaps;
mod merged;
mod poison;
mod pages;
#[cfg(feature = "failpoints")]
mod crashed;
#[cfg(feature = "failpoints")]
mod lying_client;
mod lost_commit;
mod fenced;
mod going_back;
mod shard_down;
mod nodelay;
mod full;
mod last_seen;
