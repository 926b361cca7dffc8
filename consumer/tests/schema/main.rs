//! The schema on a real server: what migrations promise, and what dashboards may rely on.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that can not go on should say where"
)]

mod server;

mod agent_input;
mod dashboards;
mod deploy;
mod migrations;
mod round_trip;
mod views;
