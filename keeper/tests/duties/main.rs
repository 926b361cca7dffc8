//! The keeper's duties on real servers.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that can not go on should say where"
)]

mod world;
mod feed;

mod kafka;
mod killed;
mod mysql;
mod redis;
mod rollups;
mod whole;
