//! Bytes to a batch, read in place: verify everything once, then iterate without errors.
//!
//! The consumer decodes every point that enters MySQL here, so nothing is allocated per point;
//! per series one small entry, and per frame one buffer that is used again.

use super::about::{
    check_environment, check_host, read_declarations, read_host_info, read_previous,
};
use super::columns::{Columns, count_varints, take_signed, take_u32};
use super::names;
use super::{FrameError, HEADER_BYTES, Header, Verified, check, within};
use crate::batch::{Batch, Declaration, HostInfo, Kind, Point, PreviousEpoch, Series};
use crate::batch_id::BatchId;
use crate::limits;

/// Decodes frames one after the other, keeping its buffer (≤ `FRAME_RAW_BYTES_MAX`).
pub struct Decoder {
    zstd: Option<zstd::bulk::Decompressor<'static>>,
    raw: Vec<u8>,
}

impl Default for Decoder {
    fn default() -> Self {
        Self::new()
    }
}

impl Decoder {
    #[must_use]
    pub fn new() -> Self {
        Self { zstd: None, raw: Vec::new() }
    }

    /// Verifies one whole frame and opens it for reading.
    pub fn decode(&mut self, frame: &[u8]) -> Result<FrameView<'_>, FrameError> {
        let header = check(frame)?;
        self.decompress(&header, frame.get(HEADER_BYTES..).unwrap_or_default())?;
        FrameView::read(header, &self.raw)
    }

    /// Verifies one whole frame and keeps only what names and places it.
    pub fn verify(&mut self, frame: &[u8]) -> Result<Verified, FrameError> {
        let view = self.decode(frame)?;
        Ok(Verified {
            header: view.header,
            environment: view.environment.to_owned(),
            host: view.host.to_owned(),
        })
    }

    fn decompress(&mut self, header: &Header, body: &[u8]) -> Result<(), FrameError> {
        let failed = || FrameError::Compression(header.raw_bytes);
        let zstd = match &mut self.zstd {
            Some(zstd) => zstd,
            none => none.insert(zstd::bulk::Decompressor::new().map_err(|_| failed())?),
        };
        self.raw.clear();
        // Decompression stops at the buffer's capacity, which Header::parse has bounded.
        self.raw.reserve_exact(header.raw_bytes);
        let bytes = zstd.decompress_to_buffer(body, &mut self.raw).map_err(|_| failed())?;
        if bytes == header.raw_bytes { Ok(()) } else { Err(failed()) }
    }
}

/// A verified frame, open for reading.
pub struct FrameView<'a> {
    pub header: Header,
    pub environment: &'a str,
    pub host: &'a str,
    pub previous: Option<PreviousEpoch>,
    pub declarations: Vec<Declaration>,
    pub closing: bool,
    pub host_info: Option<HostInfo>,
    strings: Vec<&'a str>,
    label_refs: Vec<u32>,
    entries: Vec<Entry>,
    ts_delta_ms: &'a [u8],
    values: &'a [u8],
}

/// Where one series lies in the columns.
#[derive(Clone, Copy)]
struct Entry {
    metric: u32,
    unit: u32,
    kind: Kind,
    labels_from: u32,
    labels: u32,
    ts_from: u32,
    points_from: u32,
    points: u32,
}

/// The id of a batch that is named by its content: its window's start (little-endian) and its
/// body before compression.
pub(super) fn content_id(environment: &str, window_ts: u32, raw: &[u8]) -> BatchId {
    BatchId::content_of_parts(environment, &[&window_ts.to_le_bytes(), raw])
}

/// One series of a frame.
#[derive(Clone, Copy)]
pub struct SeriesView<'a> {
    pub metric: &'a str,
    pub labels: Labels<'a>,
    pub kind: Kind,
    pub unit: &'a str,
    pub points: Points<'a>,
}

/// The labels of one series, sorted by name.
#[derive(Clone, Copy)]
pub struct Labels<'a> {
    strings: &'a [&'a str],
    refs: &'a [u32],
}

/// The points of one series, ascending: yields [`Point`]s.
#[derive(Clone, Copy)]
pub struct Points<'a> {
    ts_ms: i64,
    ts_delta_ms: &'a [u8],
    values: &'a [u8],
}

impl<'a> FrameView<'a> {
    fn read(header: Header, raw: &'a [u8]) -> Result<Self, FrameError> {
        let columns = Columns::find(raw)?;
        check_counts(&header, &columns)?;
        let text = |at: u32| {
            columns.strings.get(at as usize).copied().ok_or(FrameError::Malformed("reference"))
        };
        let mut view = Self {
            header,
            environment: text(columns.environment)?,
            host: text(columns.host)?,
            previous: columns.previous.map(read_previous).transpose()?,
            declarations: read_declarations(&columns.declarations)?,
            closing: columns.closing,
            host_info: columns.host_info.map(read_host_info).transpose()?,
            label_refs: Vec::with_capacity(count_varints(columns.label_refs)),
            entries: Vec::with_capacity(header.series),
            ts_delta_ms: columns.ts_delta_ms,
            values: columns.values,
            strings: Vec::new(),
        };
        check_environment(view.environment)?;
        check_host(view.host)?;
        view.check_id(raw)?;
        let mut refs = columns.label_refs;
        while !refs.is_empty() {
            view.label_refs.push(take_u32(&mut refs)?);
        }
        view.read_entries(&columns)?;
        view.strings = columns.strings;
        view.check_series()?;
        Ok(view)
    }

    /// A name that was not counted or computed could keep others from being heard: a seq beyond all
    /// counting is poison further on, and an id that is another's content would pass for its copy.
    fn check_id(&self, raw: &[u8]) -> Result<(), FrameError> {
        let seq = match self.header.id {
            BatchId::Sequenced { seq, .. } => seq,
            id @ BatchId::Content { .. } => {
                if id != content_id(self.environment, self.header.window_ts, raw) {
                    return Err(FrameError::Content("the id is not that of this content"));
                }
                0
            }
        };
        let before = self.previous.iter().map(|previous| previous.last_seq);
        let declared = self.declarations.iter().map(|declaration| declaration.last_seq);
        if before.chain(declared).fold(seq, u64::max) > limits::SEQ_MAX {
            return Err(FrameError::Content("a seq no agent can have counted to"));
        }
        Ok(())
    }

    fn read_entries(&mut self, columns: &Columns<'a>) -> Result<(), FrameError> {
        let [mut metric, mut labels, mut kind] =
            [columns.metric, columns.label_count, columns.kind];
        let [mut unit, mut points, mut ts] =
            [columns.unit, columns.point_count, columns.ts_delta_ms];
        let (mut labels_from, mut points_from) = (0_u32, 0_u32);
        for series in 0..self.header.series {
            let entry = Entry {
                metric: take_u32(&mut metric)?,
                unit: take_u32(&mut unit)?,
                kind: Kind::from_number(take_u32(&mut kind)?)
                    .ok_or(FrameError::Series { series, what: "its kind is unknown" })?,
                labels_from,
                labels: take_u32(&mut labels)?,
                ts_from: (columns.ts_delta_ms.len() - ts.len()) as u32,
                points_from,
                points: take_u32(&mut points)?,
            };
            within("labels of one series", entry.labels as usize, limits::LABELS_MAX)?;
            within("points of one series", entry.points as usize, self.header.points)?;
            labels_from += entry.labels * 2;
            points_from += entry.points;
            self.skip_points(series, entry, &mut ts)?;
            self.entries.push(entry);
        }
        if labels_from as usize != self.label_refs.len() {
            return Err(FrameError::Malformed("label counts and labels disagree"));
        }
        if points_from as usize != self.header.points {
            return Err(FrameError::Malformed("point counts and points disagree"));
        }
        Ok(())
    }

    /// Walks over one series' times, which must ascend strictly and lie within bounds.
    fn skip_points(&self, series: usize, entry: Entry, ts: &mut &[u8]) -> Result<(), FrameError> {
        let mut ts_ms = i64::from(self.header.window_ts) * 1_000;
        for point in 0..entry.points {
            let delta = take_signed(ts)?;
            if point > 0 && delta <= 0 {
                let what = "its points do not ascend strictly in time";
                return Err(FrameError::Series { series, what });
            }
            ts_ms = ts_ms.saturating_add(delta);
            if !(0..=limits::TS_MS_MAX).contains(&ts_ms) {
                return Err(FrameError::Series { series, what: "a time is outside 1970..2106" });
            }
        }
        Ok(())
    }

    fn check_series(&self) -> Result<(), FrameError> {
        for (series, entry) in self.entries.iter().enumerate() {
            let wrong = |what| Err(FrameError::Series { series, what });
            let (Some(metric), Some(unit)) = (self.text(entry.metric), self.text(entry.unit))
            else {
                return Err(FrameError::Malformed("reference"));
            };
            if entry.points == 0 {
                return wrong("it has no points");
            }
            let mut whole = true;
            let labels = self.refs_of(entry).chunks_exact(2).filter_map(|pair| {
                let [name, value] = pair else { return None };
                let label = self.text(*name).zip(self.text(*value));
                whole &= label.is_some();
                label
            });
            names::check(metric, unit, labels).map_err(|fault| fault.of(series))?;
            if !whole {
                return Err(FrameError::Malformed("reference"));
            }
        }
        Ok(())
    }

    fn text(&self, at: u32) -> Option<&'a str> {
        self.strings.get(at as usize).copied()
    }

    fn refs_of(&self, entry: &Entry) -> &[u32] {
        let from = entry.labels_from as usize;
        self.label_refs.get(from..from + entry.labels as usize * 2).unwrap_or_default()
    }

    /// The series of this frame, in its order; a (metric, labels) may come more than once.
    pub fn series(&self) -> impl ExactSizeIterator<Item = SeriesView<'_>> {
        self.entries.iter().map(|entry| {
            let from = entry.points_from as usize * 8;
            let to = from + entry.points as usize * 8;
            SeriesView {
                metric: self.text(entry.metric).unwrap_or_default(),
                labels: Labels { strings: &self.strings, refs: self.refs_of(entry) },
                kind: entry.kind,
                unit: self.text(entry.unit).unwrap_or_default(),
                points: Points {
                    ts_ms: i64::from(self.header.window_ts) * 1_000,
                    ts_delta_ms: self.ts_delta_ms.get(entry.ts_from as usize..).unwrap_or_default(),
                    values: self.values.get(from..to).unwrap_or_default(),
                },
            }
        })
    }

    /// The batch as a value of its own: for tools and tests, not for the hot path.
    #[must_use]
    pub fn to_batch(&self) -> Batch {
        let own = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
        Batch {
            id: self.header.id,
            environment: self.environment.to_owned(),
            host: self.host.to_owned(),
            window_ts: self.header.window_ts,
            series: self
                .series()
                .map(|series| Series {
                    metric: series.metric.to_owned(),
                    labels: series.labels.iter().map(own).collect(),
                    kind: series.kind,
                    unit: series.unit.to_owned(),
                    points: series.points.collect(),
                })
                .collect(),
            previous: self.previous,
            declarations: self.declarations.clone(),
            closing: self.closing,
            host_info: self.host_info.clone(),
        }
    }
}

impl<'a> Labels<'a> {
    /// Name and value of each label.
    pub fn iter(self) -> impl Iterator<Item = (&'a str, &'a str)> {
        let text = move |at: &u32| self.strings.get(*at as usize).copied().unwrap_or_default();
        self.refs.chunks_exact(2).filter_map(move |pair| match pair {
            [name, value] => Some((text(name), text(value))),
            _ => None,
        })
    }

    #[must_use]
    pub fn is_empty(self) -> bool {
        self.refs.is_empty()
    }
}

impl Iterator for Points<'_> {
    type Item = Point;

    fn next(&mut self) -> Option<Point> {
        let (value, after) = self.values.split_first_chunk::<8>()?;
        self.values = after;
        // Verified by `skip_points`: every value has a time.
        self.ts_ms += take_signed(&mut self.ts_delta_ms).ok()?;
        Some(Point { ts_ms: self.ts_ms, value: f64::from_le_bytes(*value) })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.values.len() / 8, Some(self.values.len() / 8))
    }
}

impl ExactSizeIterator for Points<'_> {}

fn check_counts(header: &Header, columns: &Columns<'_>) -> Result<(), FrameError> {
    let per_series =
        [columns.metric, columns.label_count, columns.kind, columns.unit, columns.point_count];
    if per_series.iter().any(|column| count_varints(column) != header.series) {
        return Err(FrameError::Malformed("series columns and the header's count disagree"));
    }
    if !header.window_ts.is_multiple_of(limits::WINDOW_S) {
        return Err(FrameError::Content("the window does not start on the 10 s grid"));
    }
    let (refs, refs_max) =
        (count_varints(columns.label_refs), header.series * limits::LABELS_MAX * 2);
    if refs > refs_max {
        // Some series has too many: that is the limit which its sender knows.
        let mut counts = columns.label_count;
        for _ in 0..header.series {
            within("labels of one series", take_u32(&mut counts)? as usize, limits::LABELS_MAX)?;
        }
    }
    within("names and values of labels in the batch", refs, refs_max)?;
    if columns.values.len() != header.points * 8
        || count_varints(columns.ts_delta_ms) != header.points
    {
        return Err(FrameError::Malformed("point columns and the header's count disagree"));
    }
    Ok(())
}
