//! Line protocol: never a panic, and what is taken is a batch.

#![no_main]

use libfuzzer_sys::fuzz_target;
use spillway_ingest_api::http::influx::{Precision, read};

mod foreign;

fuzz_target!(|data: &[u8]| {
    foreign::check(|intake| read(data, Precision::Nanoseconds, intake));
    foreign::check(|intake| read(data, Precision::Hours, intake));
});
