//! Compressed bodies: never a panic, never more than the limit.

#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use spillway_ingest_api::unpack::{Coding, unpack};

const BYTES_MAX: usize = 64 * 1024;

fuzz_target!(|data: &[u8]| {
    for coding in [Coding::Gzip, Coding::Deflate, Coding::Zstd, Coding::Snappy] {
        if let Ok(plain) = unpack(Bytes::copy_from_slice(data), coding, BYTES_MAX) {
            assert!(plain.len() <= BYTES_MAX);
        }
    }
});
