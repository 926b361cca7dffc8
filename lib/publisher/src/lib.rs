//! Into Kafka, with proof: whoever publishes learns what became of each record, and "Kafka has
//! it" is said only because of a delivery report.
//!
//! Used by ingest-api (batches), recovery-worker (batches from S3) and consumer (dead letters).
//! `asking` is for those who only ask Kafka where its logs stand: keeper and recovery-worker;
//! `reading` for those who look back into a log: keeper and console.
//! Modules in travel order: settings, the topics that must be there, the record, its way, its end.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::indexing_slicing))]

mod log_gate;
mod metrics;
mod settings;
mod topics;

mod record;

mod publisher;

mod in_flight;

mod report;

mod outcome;

mod asking;

pub mod reading;

#[cfg(feature = "simulation")]
pub mod simulated;

pub use asking::{Asking, REPLACED_AFTER};
pub use in_flight::{JOINABLE_FOR, Pending, SETTLED_RECORDS_MAX, wait_all};
pub use log_gate::LogGate;
pub use outcome::{Hindrance, Outcome, Refused};
pub use publisher::{Publisher, StartError};
pub use record::{PublishError, Record, Repeat};
pub use settings::{KafkaSettings, ProducerSettings, TopicsSettings};
pub use topics::{TopicProblem, TopicsError, check_topics};
