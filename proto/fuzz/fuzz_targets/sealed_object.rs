//! Whatever lies in the bucket must never panic what reads its layout, sealed or opened.

#![no_main]

use libfuzzer_sys::fuzz_target;
use spillway_proto::sealed_object::{ClearHeader, Payload};

fuzz_target!(|data: &[u8]| {
    if let Ok((header, _)) = ClearHeader::parse(data) {
        assert!(data.starts_with(&header.to_bytes()));
    }
    if let Ok(payload) = Payload::parse(data) {
        let again = payload.to_padded_bytes();
        assert!(again.is_ok_and(|plain| Payload::parse(&plain) == Ok(payload)));
    }
});
