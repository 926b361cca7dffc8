//! Bytes from anywhere must never panic the decoder, nor what iterates an accepted frame.
//!
//! Random bytes rarely get past a checksum, so they are tried three ways: as they are, as a body
//! behind a true header, and as a list of frames.
//! `cargo +nightly fuzz run frame --fuzz-dir proto/fuzz`

#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use spillway_proto::frame::{self, Decoder, HEADER_BYTES, MAGIC, VERSION};

/// A header that is true for `raw`, with the counts that its first eight bytes choose.
fn framed(raw: &[u8]) -> Option<Vec<u8>> {
    let (counts, raw) = raw.split_at_checked(8)?;
    let body = zstd::bulk::compress(raw, 1).ok()?;
    let mut rest = vec![VERSION, 0, 0, 0];
    rest.extend_from_slice(&(body.len() as u32).to_le_bytes());
    rest.extend_from_slice(&(raw.len() as u32).to_le_bytes());
    rest.extend_from_slice(counts);
    rest.extend_from_slice(&1_700_000_000_u32.to_le_bytes());
    rest.extend_from_slice(&[7; 40]);
    rest.extend_from_slice(&body);
    let crc = crc32c::crc32c(&rest).to_le_bytes();
    Some([MAGIC.as_slice(), &crc, &rest].concat())
}

fn read_all(bytes: &[u8]) {
    if let Ok(view) = Decoder::new().decode(bytes) {
        let batch = view.to_batch();
        assert_eq!(batch.points(), view.header.points);
        assert!(bytes.len() >= HEADER_BYTES);
    }
}

fuzz_target!(|data: &[u8]| {
    read_all(data);
    if let Some(frame) = framed(data) {
        read_all(&frame);
    }
    for frame in frame::split(&Bytes::copy_from_slice(data)).into_iter().flatten() {
        read_all(&frame);
    }
});
