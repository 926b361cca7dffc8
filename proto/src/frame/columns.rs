//! Finds the columns of a decompressed body in place, and bounds every count before it is used.
//!
//! The body is protobuf on the wire; reading it as slices instead of vectors costs no allocation
//! per point, and lets each column be measured against the header before anything is built.

use prost::encoding::{WireType, decode_key, decode_varint};

use super::body::field;
use super::{FrameError, within};
use crate::limits::{BATCH_DECLARATIONS_MAX, BATCH_STRINGS_MAX};

/// Longest encoded small message (declaration, previous epoch, host info), in bytes. Bounds what
/// decoding one may allocate; 64 labels of a host fit.
const SMALL_MESSAGE_BYTES_MAX: usize = 64 * 1024;
/// All small messages of one body together, for the same reason.
const SMALL_MESSAGES_BYTES_MAX: usize = 256 * 1024;

/// The fields of a body, as slices of it. Nothing but framing and counts is checked yet.
#[derive(Default)]
pub struct Columns<'a> {
    pub strings: Vec<&'a str>,
    pub environment: u32,
    pub host: u32,
    pub metric: &'a [u8],
    pub label_count: &'a [u8],
    pub label_refs: &'a [u8],
    pub kind: &'a [u8],
    pub unit: &'a [u8],
    pub point_count: &'a [u8],
    pub ts_delta_ms: &'a [u8],
    pub values: &'a [u8],
    pub previous: Option<&'a [u8]>,
    pub declarations: Vec<&'a [u8]>,
    pub closing: bool,
    pub host_info: Option<&'a [u8]>,
    small_bytes: usize,
}

impl<'a> Columns<'a> {
    pub fn find(mut rest: &'a [u8]) -> Result<Self, FrameError> {
        let mut columns = Self::default();
        while !rest.is_empty() {
            let (tag, wire) =
                decode_key(&mut rest).map_err(|_| FrameError::Malformed("bad field key"))?;
            match wire {
                WireType::Varint => columns.take_number(tag, take_varint(&mut rest)?)?,
                WireType::LengthDelimited => columns.take_bytes(tag, take_slice(&mut rest)?)?,
                _ => return Err(FrameError::Malformed("unknown wire type")),
            }
        }
        Ok(columns)
    }

    fn take_number(&mut self, tag: u32, number: u64) -> Result<(), FrameError> {
        let reference = || u32::try_from(number).map_err(|_| FrameError::Malformed("reference"));
        match tag {
            field::ENVIRONMENT => self.environment = reference()?,
            field::HOST => self.host = reference()?,
            field::CLOSING => self.closing = number != 0,
            _ => return Err(FrameError::Malformed("unknown number field")),
        }
        Ok(())
    }

    fn take_bytes(&mut self, tag: u32, bytes: &'a [u8]) -> Result<(), FrameError> {
        let column = match tag {
            field::STRINGS => return self.push_string(bytes),
            field::DECLARATIONS => {
                within("declarations", self.declarations.len() + 1, BATCH_DECLARATIONS_MAX)?;
                let message = self.small(bytes)?;
                self.declarations.push(message);
                return Ok(());
            }
            field::PREVIOUS => {
                self.previous = Some(self.small(bytes)?);
                return Ok(());
            }
            field::HOST_INFO => {
                self.host_info = Some(self.small(bytes)?);
                return Ok(());
            }
            field::METRIC => &mut self.metric,
            field::LABEL_COUNT => &mut self.label_count,
            field::LABEL_REFS => &mut self.label_refs,
            field::KIND => &mut self.kind,
            field::UNIT => &mut self.unit,
            field::POINT_COUNT => &mut self.point_count,
            field::TS_DELTA_MS => &mut self.ts_delta_ms,
            field::VALUES => &mut self.values,
            _ => return Err(FrameError::Malformed("unknown bytes field")),
        };
        if !column.is_empty() {
            return Err(FrameError::Malformed("a column comes twice"));
        }
        *column = bytes;
        Ok(())
    }

    fn push_string(&mut self, bytes: &'a [u8]) -> Result<(), FrameError> {
        within("strings in the table", self.strings.len() + 1, BATCH_STRINGS_MAX)?;
        let text = std::str::from_utf8(bytes)
            .map_err(|_| FrameError::Content("a name is not valid UTF-8"))?;
        if bytes.contains(&0) {
            return Err(FrameError::Content("a name contains a NUL byte"));
        }
        self.strings.push(text);
        Ok(())
    }

    fn small(&mut self, bytes: &'a [u8]) -> Result<&'a [u8], FrameError> {
        within("size of a declaration or host info", bytes.len(), SMALL_MESSAGE_BYTES_MAX)?;
        self.small_bytes += bytes.len();
        within("size of declarations", self.small_bytes, SMALL_MESSAGES_BYTES_MAX)?;
        Ok(bytes)
    }
}

/// The number of varints in a packed column: bytes without the continuation bit.
pub fn count_varints(column: &[u8]) -> usize {
    column.iter().filter(|byte| **byte < 0x80).count()
}

/// Takes one varint off the front.
pub fn take_varint(rest: &mut &[u8]) -> Result<u64, FrameError> {
    decode_varint(rest).map_err(|_| FrameError::Malformed("bad varint"))
}

/// Takes one varint that must fit 32 bits off the front.
pub fn take_u32(rest: &mut &[u8]) -> Result<u32, FrameError> {
    u32::try_from(take_varint(rest)?).map_err(|_| FrameError::Malformed("number too large"))
}

/// Takes one zigzag-coded number (protobuf `sint64`) off the front.
pub fn take_signed(rest: &mut &[u8]) -> Result<i64, FrameError> {
    let zigzag = take_varint(rest)?;
    Ok(((zigzag >> 1) as i64) ^ -((zigzag & 1) as i64))
}

fn take_slice<'a>(rest: &mut &'a [u8]) -> Result<&'a [u8], FrameError> {
    let bytes = usize::try_from(take_varint(rest)?).unwrap_or(usize::MAX);
    let (slice, after) =
        rest.split_at_checked(bytes).ok_or(FrameError::Malformed("a field is cut off"))?;
    *rest = after;
    Ok(slice)
}
