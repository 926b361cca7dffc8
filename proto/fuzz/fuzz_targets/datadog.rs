//! Datadog's series in their three forms: never a panic, and what is taken is a batch.

#![no_main]

use libfuzzer_sys::fuzz_target;
use spillway_ingest_api::http::datadog::{Form, read};

mod foreign;

fuzz_target!(|data: &[u8]| {
    for form in [Form::V1, Form::V2, Form::V2Protobuf] {
        foreign::check(|intake| read(data, form, intake));
    }
});
