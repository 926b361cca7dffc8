//! The schema on a real server: what migrations promise, and what dashboards may rely on.

mod server;

mod deploy;
mod migrations;
mod round_trip;
mod views;
