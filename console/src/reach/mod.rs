//! The outside, each part with a deadline and with errors that say what to do.

pub mod clock;
pub mod http;
pub mod kafka;
pub mod mysql;
pub mod tls;
