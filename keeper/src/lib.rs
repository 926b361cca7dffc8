//! The keeper: what a shard needs beside the rows the consumer writes. It makes partitions ahead of
//! time and drops old ones, makes rollups of points, tells of anomalies, folds last_seen in, ends
//! readers' overlong statements, measures lag apart from the consumer, and trims Kafka. No batch
//! waits for any of it.
//!
//! Each duty has its own loop, deadline and error counter, per shard: a dead shard, Kafka or Redis
//! stops nothing else.

pub mod settings;
pub mod metrics;
pub mod duty;
pub mod shard;
pub mod pace;
pub mod mutant;

pub mod partitions;
pub mod retention;
pub mod rollups;
pub mod reprocess;
pub mod anomalies;
pub mod last_seen;
pub mod readers;
pub mod kafka;
pub mod lag;
pub mod replicas;
pub mod trim;

pub mod app;
