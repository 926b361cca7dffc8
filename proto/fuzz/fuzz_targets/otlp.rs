//! OTLP in protobuf and JSON: never a panic, and what is taken is a batch.

#![no_main]

use libfuzzer_sys::fuzz_target;
use spillway_ingest_api::http::otlp::{read_json, read_protobuf};

mod foreign;

fuzz_target!(|data: &[u8]| {
    foreign::check(|intake| read_protobuf(data, intake));
    foreign::check(|intake| read_json(data, intake));
});
