//! A batch to bytes. What is encoded is verified before it leaves, by the reader's own rules.
//!
//! So a sender learns at once, on its own machine, what the API would refuse.

use std::collections::HashMap;

use bytes::Bytes;
use prost::Message as _;

use super::body::{Body, DeclarationMessage, HostInfoMessage, PreviousEpochMessage};
use super::decode::content_id;
use super::{CHECKED_FROM, Decoder, FrameError, HEADER_BYTES, MAGIC, VERSION, within};
use crate::batch::{Batch, HostInfo};
use crate::limits::{BATCH_POINTS_MAX, BATCH_SERIES_MAX, FRAME_RAW_BYTES_MAX};

/// zstd's level: 1 costs an agent next to nothing, and doubles barely shrink further above it.
const COMPRESSION_LEVEL: i32 = 1;

/// Why a batch can't be a frame.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// It breaks a rule of the format. [`FrameError::Limit`] asks for the batch to be split.
    #[error(transparent)]
    Invalid(#[from] FrameError),
    #[error("zstd could not compress the batch")]
    Compression,
}

/// Encodes batches one after the other, keeping its contexts.
#[derive(Default)]
pub struct Encoder {
    decoder: Decoder,
}

impl Encoder {
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The frame of `batch` under the name that its content gives it ([`BatchId::content_of`]),
    /// whatever id it holds: for senders that do not count.
    pub fn encode_by_content(&mut self, batch: &mut Batch) -> Result<Bytes, EncodeError> {
        let raw = raw_of(batch)?;
        batch.id = content_id(&batch.environment, batch.window_ts, &raw);
        self.finish(batch, &raw)
    }

    /// The frame of `batch`. Deterministic: the same batch gives the same bytes.
    pub fn encode(&mut self, batch: &Batch) -> Result<Bytes, EncodeError> {
        self.finish(batch, &raw_of(batch)?)
    }

    fn finish(&mut self, batch: &Batch, raw: &[u8]) -> Result<Bytes, EncodeError> {
        let body =
            zstd::bulk::compress(raw, COMPRESSION_LEVEL).map_err(|_| EncodeError::Compression)?;
        let frame = assemble(batch, raw.len(), &body);
        self.decoder.decode(&frame)?;
        Ok(frame)
    }
}

fn raw_of(batch: &Batch) -> Result<Vec<u8>, FrameError> {
    within("series in the batch", batch.series.len(), BATCH_SERIES_MAX)?;
    within("points in the batch", batch.points(), BATCH_POINTS_MAX)?;
    let raw = body_of(batch).encode_to_vec();
    within("decompressed size in bytes", raw.len(), FRAME_RAW_BYTES_MAX)?;
    Ok(raw)
}

fn assemble(batch: &Batch, raw_bytes: usize, body: &[u8]) -> Bytes {
    let mut checked = Vec::with_capacity(HEADER_BYTES + body.len());
    checked.extend_from_slice(&[VERSION, 0, 0, 0]);
    // Each is far below 2^32: the limits above, and the decoder's own check of the result.
    for number in [body.len(), raw_bytes, batch.series.len(), batch.points()] {
        checked.extend_from_slice(&(number as u32).to_le_bytes());
    }
    checked.extend_from_slice(&batch.window_ts.to_le_bytes());
    checked.extend_from_slice(&batch.id.to_bytes());
    checked.extend_from_slice(body);
    let mut frame = Vec::with_capacity(CHECKED_FROM + checked.len());
    frame.extend_from_slice(&MAGIC);
    frame.extend_from_slice(&crc32c::crc32c(&checked).to_le_bytes());
    frame.extend_from_slice(&checked);
    frame.into()
}

/// Gives each distinct text its number.
#[derive(Default)]
struct StringTable<'a> {
    numbers: HashMap<&'a str, u32>,
    strings: Vec<String>,
}

impl<'a> StringTable<'a> {
    fn number(&mut self, text: &'a str) -> u32 {
        let next = self.strings.len() as u32;
        *self.numbers.entry(text).or_insert_with(|| {
            self.strings.push(text.to_owned());
            next
        })
    }
}

fn body_of(batch: &Batch) -> Body {
    let mut table = StringTable::default();
    let mut body = Body {
        environment: table.number(&batch.environment),
        host: table.number(&batch.host),
        closing: batch.closing,
        ..Body::default()
    };
    let window_ms = i64::from(batch.window_ts) * 1_000;
    for series in &batch.series {
        body.metric.push(table.number(&series.metric));
        body.unit.push(table.number(&series.unit));
        body.kind.push(series.kind as u32);
        body.label_count.push(series.labels.len() as u32);
        for (name, value) in &series.labels {
            body.label_refs.push(table.number(name));
            body.label_refs.push(table.number(value));
        }
        body.point_count.push(series.points.len() as u32);
        let mut before = window_ms;
        for point in &series.points {
            body.ts_delta_ms.push(point.ts_ms.wrapping_sub(before));
            body.values.push(point.value);
            before = point.ts_ms;
        }
    }
    body.previous = batch.previous.map(|previous| PreviousEpochMessage {
        epoch: previous.epoch.as_bytes().to_vec(),
        last_seq: previous.last_seq,
    });
    body.declarations = batch
        .declarations
        .iter()
        .map(|declaration| DeclarationMessage {
            epoch: declaration.epoch.as_bytes().to_vec(),
            first_seq: declaration.first_seq,
            last_seq: declaration.last_seq,
            reason: declaration.reason.clone(),
        })
        .collect();
    body.host_info = batch.host_info.as_ref().map(host_info_of);
    body.strings = table.strings;
    body
}

fn host_info_of(info: &HostInfo) -> HostInfoMessage {
    HostInfoMessage {
        agent_version: info.agent_version.clone(),
        clock_skew_ms: info.clock_skew_ms,
        labels: info
            .labels
            .iter()
            .flat_map(|(name, value)| [name.clone(), value.clone()])
            .collect(),
        backlog_batches: info.backlog_batches,
    }
}
