//! What agents parked in S3, back into Kafka: each object is claimed, read, opened, published and
//! deleted only when consumers have stored all of it.
//!
//! Modules in the order an object meets them; `drain` moves them all, `app` wires them.

pub mod settings;
pub mod metrics;

pub mod bucket_error;
pub mod bucket;
pub mod discover;
pub mod gate;
pub mod claim;
pub mod pace;
pub mod fetch;
pub mod private_keys;
pub mod travelling;
pub mod unseal;
pub mod republish;
pub mod progress;
pub mod retire;
pub mod quarantine;

pub mod journey;
pub mod drain;
pub mod app;

mod failpoint;
pub mod mutant;
