//! Benchmarks on the real servers, of one part alone or of all together. Not a part of what runs in
//! production.

pub mod agent;
pub mod consumer;
pub mod hops;
pub mod rollups;

mod meter;
mod process_cpu;
mod site;
