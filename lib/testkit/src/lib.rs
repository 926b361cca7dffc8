//! The real servers and our own programs on one machine, for tests and developers' commands.
//! Nothing here runs in production. Modules stand in the order in which a stack comes to be.

pub mod error;
pub mod progress;
pub mod ports;
pub mod process;
pub mod errand;
pub mod artifacts;
pub mod debian;
pub mod binaries;
pub mod kafka;
pub mod database;
pub mod mysql;
pub mod redis;
pub mod s3_server;
pub mod proxy;
pub mod http;
pub mod metrics;
pub mod stack;
pub mod rollup_proof;
pub mod grafana;

pub use database::Database;
pub use error::StackError;
pub use progress::Progress;
pub use stack::{AgentOptions, End, Stack, StackOptions};

/// A fresh password or key: 40 hex digits.
pub(crate) fn random_hex() -> Result<String, StackError> {
    let mut bytes = [0u8; 20];
    getrandom::fill(&mut bytes)
        .map_err(|e| StackError::Refused { what: format!("no random bytes for a key: {e}") })?;
    Ok(hex::encode(bytes))
}
