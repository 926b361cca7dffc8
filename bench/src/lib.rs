//! Benchmarks on the real servers, each of one part alone. Not a part of what runs in production.

pub mod consumer;
pub mod rollups;

mod process_cpu;
mod site;
