//! Remote write 1.0 and 2.0: never a panic, and what is taken is a batch.

#![no_main]

use libfuzzer_sys::fuzz_target;
use spillway_ingest_api::http::remote_write::{Reading, read_v1, read_v2};

mod foreign;

fuzz_target!(|data: &[u8]| {
    let reading = Reading { sorts: data.len() % 2 == 0, grid_ms: None };
    foreign::check(|intake| read_v1(data, reading, intake));
    foreign::check(|intake| read_v2(data, reading, intake));
});
