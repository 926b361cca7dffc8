//! What travels through Spillway, as bytes and as values: no I/O, no clock, no randomness.
//!
//! Modules in travel order: the bounds, the names of things, the batch, its bytes, where it goes,
//! and what is answered. Every program links this crate; none reimplements a line of it.

pub mod limits;

pub mod batch;
pub mod batch_id;
pub mod series;

pub mod frame;
pub mod kafka_record;
pub mod line_protocol;
pub mod object_key;
pub mod partition;
pub mod precision;
pub mod sealed_object;
pub mod verdict;

pub use batch::{Batch, Declaration, HostInfo, Kind, Point, PreviousEpoch, Series};
pub use batch_id::BatchId;
