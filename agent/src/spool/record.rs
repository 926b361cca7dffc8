//! One record of a segment as bytes; the only file that knows them.
//!
//! ```text
//! offset bytes  what (integers little-endian)
//!      0     4  magic "SPWR"
//!      4     1  format version (1)
//!      5     1  kind: 1 batch, 2 parked
//!      6     2  zero
//!      8     4  payload length
//!     12     4  crc32c of the payload
//!     16     8  when it was spooled, ms since the Unix epoch
//!     24    40  batch id (kind 2: of the first batch parked)
//!     64     4  window_ts of the batch, s
//!     68     4  points in the batch
//!     72     4  crc32c of offset 0..72, seeded with the segment's salt
//!     76     4  state: "DONE" once somebody else has the batch, else zeros
//!     80     …  payload, then zeros up to a multiple of 8
//! ```
//!
//! - The header has a crc of its own, so a damaged payload still has a name.
//! - The salt is in the segment's file name. Payloads are made of customers' strings: without it
//!   somebody could hide a forged record in one, for a reader that searches for the next magic.
//! - The state lies outside both crcs. It is written in place and synced when it suits the
//!   kernel: if it is lost, the batch is sent again, which is harmless. It is 4-aligned, so no
//!   write of it is ever torn. Anything but `DONE` reads as "still waiting".
//! - There is no lane: live or backlog is a matter of age, and what a restart finds is backlog.

use bytes::Bytes;
use spillway_proto::batch_id::BATCH_ID_BYTES;
use spillway_proto::limits::FRAME_BYTES_MAX;
use spillway_proto::object_key::ObjectKey;
use spillway_proto::{BatchId, limits};

const MAGIC: [u8; 4] = *b"SPWR";
const VERSION: u8 = 1;
/// Bytes before the payload.
pub const HEADER_BYTES: usize = 80;
const HEADER_CRC_AT: usize = 72;
const STATE_AT: u64 = 76;
const DONE: [u8; 4] = *b"DONE";
/// Records start on multiples of this.
const ALIGN: usize = 8;
/// The largest payload: a frame, or the note of a full sealed object.
pub const PAYLOAD_BYTES_MAX: usize = FRAME_BYTES_MAX;
/// The largest record.
pub const RECORD_BYTES_MAX: usize = (HEADER_BYTES + PAYLOAD_BYTES_MAX).next_multiple_of(ALIGN);

const _: () = assert!(limits::FRAMES_PER_BODY_MAX * BATCH_ID_BYTES + 1024 <= PAYLOAD_BYTES_MAX);

/// What a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A batch; the payload is its frame.
    Batch = 1,
    /// "These batches are in S3 under this key" ([`ParkedNote`]).
    Parked = 2,
}

/// A record's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    pub kind: Kind,
    pub payload_bytes: u32,
    pub payload_crc: u32,
    pub spooled_at_ms: i64,
    pub id: BatchId,
    pub window_ts: u32,
    pub points: u32,
}

impl Header {
    /// The header of a record with this payload; `None` if the payload is over its limit.
    pub fn of(kind: Kind, id: BatchId, payload: &[u8]) -> Option<Self> {
        let payload_bytes =
            u32::try_from(payload.len()).ok().filter(|_| payload.len() <= PAYLOAD_BYTES_MAX)?;
        let payload_crc = crc32c::crc32c(payload);
        Some(Self {
            kind,
            payload_bytes,
            payload_crc,
            spooled_at_ms: 0,
            id,
            window_ts: 0,
            points: 0,
        })
    }

    /// Bytes of the whole record, padding included.
    pub fn record_bytes(&self) -> usize {
        record_bytes(self.payload_bytes as usize)
    }

    /// Appends the whole record to `out`, not done.
    pub fn write_record(&self, salt: u32, payload: &[u8], out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&[VERSION, self.kind as u8, 0, 0]);
        out.extend_from_slice(&self.payload_bytes.to_le_bytes());
        out.extend_from_slice(&self.payload_crc.to_le_bytes());
        out.extend_from_slice(&self.spooled_at_ms.to_le_bytes());
        out.extend_from_slice(&self.id.to_bytes());
        out.extend_from_slice(&self.window_ts.to_le_bytes());
        out.extend_from_slice(&self.points.to_le_bytes());
        let crc = crc32c::crc32c_append(salt, out.get(start..).unwrap_or_default());
        out.extend_from_slice(&crc.to_le_bytes());
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(payload);
        out.resize(start + self.record_bytes(), 0);
    }

    /// Reads the header at the start of `bytes`; `None` unless its crc is right.
    pub fn read(salt: u32, bytes: &[u8]) -> Option<(Self, bool)> {
        let header = bytes.first_chunk::<HEADER_BYTES>()?;
        let (covered, rest) = header.split_first_chunk::<HEADER_CRC_AT>()?;
        let (crc, rest) = rest.split_first_chunk::<4>()?;
        let (magic, fields) = covered.split_first_chunk::<4>()?;
        if *magic != MAGIC || crc32c::crc32c_append(salt, covered) != u32::from_le_bytes(*crc) {
            return None;
        }
        let ([version, kind, ..], fields) = fields.split_first_chunk::<4>()?;
        let (payload_bytes, fields) = fields.split_first_chunk::<4>()?;
        let (payload_crc, fields) = fields.split_first_chunk::<4>()?;
        let (spooled_at, fields) = fields.split_first_chunk::<8>()?;
        let (id, fields) = fields.split_first_chunk::<BATCH_ID_BYTES>()?;
        let (window_ts, fields) = fields.split_first_chunk::<4>()?;
        let points = fields.first_chunk::<4>()?;
        let header = Self {
            kind: match (version, kind) {
                (&VERSION, 1) => Kind::Batch,
                (&VERSION, 2) => Kind::Parked,
                _ => return None,
            },
            payload_bytes: u32::from_le_bytes(*payload_bytes),
            payload_crc: u32::from_le_bytes(*payload_crc),
            spooled_at_ms: i64::from_le_bytes(*spooled_at),
            id: BatchId::from_bytes(id)?,
            window_ts: u32::from_le_bytes(*window_ts),
            points: u32::from_le_bytes(*points),
        };
        let fits = header.payload_bytes as usize <= PAYLOAD_BYTES_MAX;
        fits.then_some((header, *rest == DONE))
    }

    /// The payload behind the header in `record`; `None` if it is cut off or damaged.
    pub fn payload<'a>(&self, record: &'a [u8]) -> Option<&'a [u8]> {
        let end = HEADER_BYTES + self.payload_bytes as usize;
        let payload = record.get(HEADER_BYTES..end)?;
        (crc32c::crc32c(payload) == self.payload_crc).then_some(payload)
    }
}

/// Where the state of the record at `offset` lies, and what says "done".
pub fn done_mark(offset: u64) -> (u64, [u8; 4]) {
    (offset + STATE_AT, DONE)
}

/// Bytes of a record with this much payload.
pub fn record_bytes(payload_bytes: usize) -> usize {
    (HEADER_BYTES + payload_bytes).next_multiple_of(ALIGN)
}

/// The offset of the next place at or behind `from` where a record may start.
pub fn find_magic(bytes: &[u8], from: usize) -> Option<usize> {
    let rest = bytes.get(from..)?;
    rest.windows(MAGIC.len()).position(|window| window == MAGIC).map(|found| from + found)
}

/// The payload of a [`Kind::Parked`] record: the object's key and what is in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParkedNote {
    pub key: ObjectKey,
    pub ids: Vec<BatchId>,
}

impl ParkedNote {
    /// Key length (u16), key, ids.
    pub fn to_bytes(&self) -> Bytes {
        let key = self.key.as_str().as_bytes();
        let mut out = Vec::with_capacity(2 + key.len() + self.ids.len() * BATCH_ID_BYTES);
        out.extend_from_slice(&(key.len() as u16).to_le_bytes());
        out.extend_from_slice(key);
        for id in &self.ids {
            out.extend_from_slice(&id.to_bytes());
        }
        out.into()
    }

    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let (length, rest) = bytes.split_first_chunk::<2>()?;
        let (key, ids) = rest.split_at_checked(usize::from(u16::from_le_bytes(*length)))?;
        let key = ObjectKey::parse(std::str::from_utf8(key).ok()?)?;
        let (ids, rest) = ids.as_chunks::<BATCH_ID_BYTES>();
        let ids: Option<Vec<_>> = ids.iter().map(BatchId::from_bytes).collect();
        rest.is_empty().then_some(Self { key, ids: ids? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    fn header(payload: &[u8]) -> Header {
        let id =
            BatchId::Sequenced { agent_id: Uuid::from_u128(1), epoch: Uuid::from_u128(2), seq: 3 };
        let header = Header::of(Kind::Batch, id, payload).unwrap();
        Header { spooled_at_ms: 1_700_000_000_123, window_ts: 1_700_000_000, points: 4, ..header }
    }

    #[test]
    fn a_record_survives_its_bytes() {
        let mut bytes = Vec::new();
        header(b"payload").write_record(9, b"payload", &mut bytes);
        let (read, done) = Header::read(9, &bytes).unwrap();
        assert_eq!((read, done), (header(b"payload"), false));
        assert_eq!(read.payload(&bytes), Some(b"payload".as_slice()));
        assert_eq!(bytes.len(), read.record_bytes());
    }

    #[test]
    fn the_bytes_of_version_1_never_change() {
        let mut bytes = Vec::new();
        header(b"payload").write_record(9, b"payload", &mut bytes);
        let golden = "5350575201010000070000007069e3f47b68e5cf8b010000\
                      0000000000000000000000000000000100000000000000000000000000000002\
                      030000000000000000f1536504000000f0424451000000007061796c6f616400";
        assert_eq!(hex::encode(&bytes), golden);
    }

    #[test]
    fn a_record_of_another_segment_is_no_record_here() {
        let mut bytes = Vec::new();
        header(b"x").write_record(9, b"x", &mut bytes);
        assert_eq!(Header::read(10, &bytes), None);
    }

    #[test]
    fn done_is_read_only_where_it_was_written_whole() {
        let mut bytes = Vec::new();
        header(b"x").write_record(9, b"x", &mut bytes);
        let (at, mark) = done_mark(0);
        let at = at as usize;
        bytes[at..at + 4].copy_from_slice(&mark);
        assert!(Header::read(9, &bytes).unwrap().1);
        bytes[at] ^= 1;
        assert!(!Header::read(9, &bytes).unwrap().1);
    }

    #[test]
    fn a_parked_note_survives_its_bytes() {
        let note = ParkedNote {
            key: ObjectKey::from_random(7),
            ids: vec![BatchId::Content { hash: 5 }, header(b"").id],
        };
        assert_eq!(ParkedNote::parse(&note.to_bytes()), Some(note.clone()));
        let bytes = note.to_bytes();
        for cut in 0..bytes.len() - 80 {
            assert_eq!(ParkedNote::parse(&bytes[..cut]), None, "{cut}");
        }
    }
}
