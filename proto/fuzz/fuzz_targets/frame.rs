//! Bytes from anywhere must never panic the decoder, nor what iterates an accepted frame.
//!
//! Tried three ways: as they are, as a body behind a true header, and as a list of frames. What
//! is accepted must survive being encoded and read again.

#![no_main]

mod forge;

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use spillway_proto::frame::{self, Decoder, Encoder, HEADER_BYTES};

fn read_all(bytes: &[u8]) {
    let mut decoder = Decoder::new();
    let Ok(view) = decoder.decode(bytes) else { return };
    let batch = view.to_batch();
    assert_eq!(batch.points(), view.header.points);
    assert!(bytes.len() >= HEADER_BYTES);
    // Not every accepted frame is one that our encoder writes, but what it writes is the same.
    let Ok(again) = Encoder::new().encode(&batch) else { return };
    let read = Decoder::new().decode(&again).map(|view| bits(&view.to_batch()));
    assert_eq!(read.ok(), Some(bits(&batch)));
}

/// A batch as text that tells one NaN from another.
fn bits(batch: &spillway_proto::Batch) -> String {
    let values = batch.series.iter().flat_map(|series| &series.points);
    let values: Vec<u64> = values.map(|point| point.value.to_bits()).collect();
    format!("{batch:?} {values:x?}")
}

fuzz_target!(|data: &[u8]| {
    read_all(data);
    if let Some(frame) = forge::around_raw(data) {
        read_all(&frame);
    }
    for frame in frame::split(&Bytes::copy_from_slice(data)).into_iter().flatten() {
        read_all(&frame);
    }
});
