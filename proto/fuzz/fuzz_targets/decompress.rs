//! A compressed body that lies about itself must cost no more than its header was allowed to
//! claim. To be run with `-malloc_limit_mb=8`: twice what a body may be once decompressed, so
//! that one larger allocation, of zstd's or of ours, ends the run.

#![no_main]

mod forge;

use libfuzzer_sys::fuzz_target;
use spillway_proto::frame::Decoder;
use spillway_proto::limits::FRAME_RAW_BYTES_MAX;

fuzz_target!(|data: &[u8]| {
    let Some((head, body)) = data.split_first_chunk::<12>() else { return };
    let (Some(claim), Some(counts)) = (head.first_chunk::<4>(), head.last_chunk::<8>()) else {
        return;
    };
    // What is above the limit is refused in the header; one in a thousand may try.
    let claim = u32::from_le_bytes(*claim) % (FRAME_RAW_BYTES_MAX as u32 + 4_096);
    let frame = forge::frame(counts, claim, body);
    if let Ok(view) = Decoder::new().decode(&frame) {
        assert_eq!(view.header.raw_bytes, claim as usize);
        assert_eq!(view.to_batch().points(), view.header.points);
    }
});
