//! StatsD and DogStatsD: what programs on this host say of themselves.
//!
//! `listen` takes datagrams, `parse` reads their lines, `aggregate` folds a window's lines into
//! one reading per series (`sketch` for timers). Everything is bounded: lines, series, memory.

pub mod parse;

pub mod sketch;

pub mod aggregate;

pub mod listen;

pub use aggregate::Aggregator;
pub use listen::Listener;
