//! A batch as bytes: the same bytes over HTTP, in the spool, in Kafka and inside sealed objects.
//!
//! ```text
//! offset bytes  what (little-endian unless said)
//!      0     4  magic "SPWF"
//!      4     4  crc32c of everything that follows, to the end of the body
//!      8     1  format version (1)
//!      9     3  zero
//!     12     4  body: compressed bytes        }
//!     16     4  body: bytes once decompressed }  checked against limits.rs and against each other
//!     20     4  series                        }  before anything is allocated
//!     24     4  points                        }
//!     28     4  window start, seconds
//!     32    40  batch id (batch_id.rs)
//!     72     …  body: zstd of one protobuf message (body.rs): a string table and columns
//! ```
//!
//! Invariants: decoding never panics; it allocates at most [`FRAME_RAW_BYTES_MAX`] for the body
//! plus what the checked counts imply; whatever [`Decoder::decode`] accepts, every later reader
//! may iterate without meeting an error. Old versions decode for ever (`golden/`).

mod body;
mod columns;
mod about;
mod decode;
mod encode;
mod names;

use bytes::Bytes;

pub use about::is_environment_name;
pub use decode::{Decoder, FrameView, Labels, Points, SeriesView};
pub use encode::{EncodeError, Encoder};
pub use names::{NameFault, check as check_names, check_host_name};

use crate::batch_id::{BATCH_ID_BYTES, BatchId};
use crate::limits::{
    BATCH_POINTS_MAX, BATCH_SERIES_MAX, FRAME_BYTES_MAX, FRAME_RAW_BYTES_MAX, FRAMES_PER_BODY_MAX,
};
use crate::verdict::Refusal;

/// The first bytes of every frame.
pub const MAGIC: [u8; 4] = *b"SPWF";
/// The version this build writes.
pub const VERSION: u8 = 1;
/// Bytes before the body.
pub const HEADER_BYTES: usize = 72;

/// Where the checksummed part begins.
const CHECKED_FROM: usize = 8;

/// The fixed part of a frame. Numbers are as stated; [`Decoder`] holds them against the body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// crc32c of all that follows it in the frame; the ledger tells two contents apart by it.
    pub crc: u32,
    pub body_bytes: usize,
    pub raw_bytes: usize,
    pub series: usize,
    pub points: usize,
    /// Seconds since the Unix epoch.
    pub window_ts: u32,
    pub id: BatchId,
}

/// Why bytes are not a frame that can be taken. None of it is transient.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    #[error("not a frame: {0}")]
    NotAFrame(&'static str),
    #[error("frame version {0} is not known here (this build reads version {VERSION})")]
    Version(u8),
    #[error("frame damaged: checksum {stated:08x} stated, {computed:08x} computed")]
    Checksum { stated: u32, computed: u32 },
    #[error("frame body does not decompress to the {0} bytes that its header states")]
    Compression(usize),
    #[error("{what} is {got}, the limit is {max}")]
    Limit { what: &'static str, got: u64, max: u64 },
    #[error("frame body malformed: {0}")]
    Malformed(&'static str),
    #[error("series {series}: {what}")]
    Series { series: usize, what: &'static str },
    #[error("not allowed: {0}")]
    Content(&'static str),
}

impl FrameError {
    /// The stable name under which the API reports it.
    #[must_use]
    pub fn refusal(&self) -> Refusal {
        match self {
            Self::Version(_) => Refusal::UnsupportedVersion,
            Self::Limit { .. } => Refusal::LimitExceeded,
            Self::Series { .. } | Self::Content(_) => Refusal::InvalidContent,
            Self::NotAFrame(_)
            | Self::Checksum { .. }
            | Self::Compression(_)
            | Self::Malformed(_) => Refusal::UndecodableFrame,
        }
    }
}

pub(crate) fn within(what: &'static str, got: usize, max: usize) -> Result<(), FrameError> {
    if got <= max {
        return Ok(());
    }
    Err(FrameError::Limit { what, got: got as u64, max: max as u64 })
}

impl Header {
    /// Reads the header at the start of `bytes`, which may go on after the frame. Checks magic,
    /// version, limits and the id, but not the checksum.
    pub fn parse(bytes: &[u8]) -> Result<Self, FrameError> {
        let short = FrameError::NotAFrame("shorter than a frame header");
        let header = bytes.first_chunk::<HEADER_BYTES>().ok_or(short)?;
        let word = |at: usize| -> u32 {
            let mut word = [0; 4];
            word.iter_mut().zip(header.iter().skip(at)).for_each(|(to, from)| *to = *from);
            u32::from_le_bytes(word)
        };
        if !header.starts_with(&MAGIC) {
            return Err(FrameError::NotAFrame("the magic bytes are missing"));
        }
        let [version, zeros @ ..] = word(8).to_le_bytes();
        if version != VERSION {
            return Err(FrameError::Version(version));
        }
        if zeros != [0; 3] {
            return Err(FrameError::NotAFrame("reserved header bytes are not zero"));
        }
        let id = header.last_chunk::<BATCH_ID_BYTES>().and_then(BatchId::from_bytes);
        let parsed = Self {
            crc: word(4),
            body_bytes: word(12) as usize,
            raw_bytes: word(16) as usize,
            series: word(20) as usize,
            points: word(24) as usize,
            window_ts: word(28),
            id: id.ok_or(FrameError::NotAFrame("the batch id is half a counted one"))?,
        };
        within("frame size in bytes", parsed.frame_bytes(), FRAME_BYTES_MAX)?;
        within("decompressed size in bytes", parsed.raw_bytes, FRAME_RAW_BYTES_MAX)?;
        within("series in the batch", parsed.series, BATCH_SERIES_MAX)?;
        within("points in the batch", parsed.points, BATCH_POINTS_MAX)?;
        Ok(parsed)
    }

    /// The whole frame's length.
    #[must_use]
    pub fn frame_bytes(&self) -> usize {
        HEADER_BYTES.saturating_add(self.body_bytes)
    }
}

/// Points that `frame` claims to hold, before anything of it is checked: for accounts and sizes.
/// What has no header claims none.
#[must_use]
pub fn points_claimed(frame: &[u8]) -> usize {
    Header::parse(frame).map_or(0, |header| header.points)
}

/// Reads the header of a whole frame and holds the checksum against its bytes.
///
/// This tells a frame that travelled unharmed; only [`Decoder::decode`] tells a valid one.
pub fn check(frame: &[u8]) -> Result<Header, FrameError> {
    let header = Header::parse(frame)?;
    if frame.len() != header.frame_bytes() {
        return Err(FrameError::NotAFrame("its length is not what its header states"));
    }
    let computed = crc32c::crc32c(frame.get(CHECKED_FROM..).unwrap_or_default());
    if computed != header.crc {
        return Err(FrameError::Checksum { stated: header.crc, computed });
    }
    Ok(header)
}

/// The one check that API, recovery worker and consumer share; `None` of its parts is skipped by
/// any of them. Convenience for callers without a [`Decoder`] at hand.
pub fn verify(frame: &[u8]) -> Result<Verified, FrameError> {
    Decoder::new().verify(frame)
}

/// What a verified frame says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    pub header: Header,
    pub environment: String,
    pub host: String,
}

/// Cuts a body of frames, one after the other, into single frames, without verifying them.
///
/// A frame whose header can't be read hides where the next one begins, so its error is the last
/// entry. An empty body is an empty list; more than [`FRAMES_PER_BODY_MAX`] frames are an error.
#[must_use]
pub fn split(body: &Bytes) -> Vec<Result<Bytes, FrameError>> {
    let mut frames = Vec::new();
    let mut rest = body.clone();
    while !rest.is_empty() {
        if frames.len() == FRAMES_PER_BODY_MAX {
            let max = FRAMES_PER_BODY_MAX as u64;
            frames.push(Err(FrameError::Limit { what: "frames in the body", got: max + 1, max }));
            break;
        }
        match Header::parse(&rest) {
            Ok(header) if header.frame_bytes() <= rest.len() => {
                frames.push(Ok(rest.split_to(header.frame_bytes())));
            }
            Ok(_) => {
                frames.push(Err(FrameError::NotAFrame("cut off before its end")));
                break;
            }
            Err(error) => {
                frames.push(Err(error));
                break;
            }
        }
    }
    frames
}
