//! A frame whose header and checksum are true, around whatever body: random bytes alone hardly
//! ever get past a checksum.

use spillway_proto::frame::{MAGIC, VERSION};

/// A whole frame around `body` as it lies in the frame, which claims to be `raw_bytes` long once
/// decompressed; `counts` are its series and points.
pub fn frame(counts: &[u8; 8], raw_bytes: u32, body: &[u8]) -> Vec<u8> {
    let mut rest = vec![VERSION, 0, 0, 0];
    rest.extend_from_slice(&(body.len() as u32).to_le_bytes());
    rest.extend_from_slice(&raw_bytes.to_le_bytes());
    rest.extend_from_slice(counts);
    rest.extend_from_slice(&1_700_000_000_u32.to_le_bytes());
    rest.extend_from_slice(&[7; 40]);
    rest.extend_from_slice(body);
    let crc = crc32c::crc32c(&rest).to_le_bytes();
    [MAGIC.as_slice(), &crc, &rest].concat()
}

/// A frame that decompresses to all but the first eight bytes of `data`, which are its counts.
pub fn around_raw(data: &[u8]) -> Option<Vec<u8>> {
    let (counts, raw) = data.split_first_chunk::<8>()?;
    let body = zstd::bulk::compress(raw, 1).ok()?;
    Some(frame(counts, raw.len() as u32, &body))
}
