//! A batch as a value: what one agent measured for one environment and one host in one window.
//!
//! Built by senders, rebuilt by tests and tools. The consumer's hot path never builds one: it
//! reads a frame in place ([`crate::frame::FrameView`]).

use uuid::Uuid;

use crate::batch_id::BatchId;

/// One batch.
#[derive(Clone, Debug, PartialEq)]
pub struct Batch {
    pub id: BatchId,
    pub environment: String,
    pub host: String,
    /// Start of the window the batch was made for, in seconds since the Unix epoch, on the grid
    /// of [`crate::limits::WINDOW_S`]. Points may lie elsewhere; each goes to its own row.
    pub window_ts: u32,
    pub series: Vec<Series>,
    /// The epoch before this one and the last seq it gave, until a carrier was accepted.
    pub previous: Option<PreviousEpoch>,
    /// What the agent gave up, until a carrier was accepted.
    pub declarations: Vec<Declaration>,
    /// The epoch ends with this batch: its seq is the last one given.
    pub closing: bool,
    pub host_info: Option<HostInfo>,
}

/// The points of one series in a batch.
#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    pub metric: String,
    /// Sorted by name, names unique and not empty.
    pub labels: Vec<(String, String)>,
    pub kind: Kind,
    /// UCUM-like text (`bytes`, `seconds`, `1`), or empty.
    pub unit: String,
    /// Strictly ascending in time.
    pub points: Vec<Point>,
}

/// One measurement. NaN and infinities are allowed here and stored as null.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    /// Milliseconds since the Unix epoch, `0..=limits::TS_MS_MAX`.
    pub ts_ms: i64,
    pub value: f64,
}

/// How the values of a series relate to each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Kind {
    /// A level: the last value is the truth.
    Gauge = 1,
    /// What happened since the previous point.
    Delta = 2,
    /// A counter since some start; falls only at a reset.
    Cumulative = 3,
}

impl Kind {
    /// The kind with this number on the wire and in MySQL.
    #[must_use]
    pub fn from_number(number: u32) -> Option<Self> {
        match number {
            1 => Some(Self::Gauge),
            2 => Some(Self::Delta),
            3 => Some(Self::Cumulative),
            _ => None,
        }
    }
}

/// The bit pattern by which Prometheus says "this series ended" (`value.StaleNaN`).
pub const STALE_MARKER_BITS: u64 = 0x7ff0_0000_0000_0002;

/// The epoch that came before, and the highest seq it ever gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PreviousEpoch {
    pub epoch: Uuid,
    pub last_seq: u64,
}

/// "These seqs of mine will not come": what the agent gave up, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Declaration {
    pub epoch: Uuid,
    pub first_seq: u64,
    /// Inclusive.
    pub last_seq: u64,
    /// A stable word first (`spool-full`, `spool-damaged`, `refused`), details after it.
    pub reason: String,
}

/// What an agent says of itself and its host now and then.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostInfo {
    pub agent_version: String,
    /// Agent's clock minus the server's, in ms, as last measured.
    pub clock_skew_ms: Option<i64>,
    /// Sorted by name, names unique and not empty.
    pub labels: Vec<(String, String)>,
    /// Batches of the past that are still on their way (spool and S3).
    pub backlog_batches: Option<u64>,
}

impl Batch {
    /// Points in all series.
    #[must_use]
    pub fn points(&self) -> usize {
        self.series.iter().map(|series| series.points.len()).sum()
    }
}

/// The start of the window that holds `ts_ms`, in seconds; `None` outside `0..=TS_MS_MAX`.
#[must_use]
pub fn window_of(ts_ms: i64) -> Option<u32> {
    if !(0..=crate::limits::TS_MS_MAX).contains(&ts_ms) {
        return None;
    }
    u32::try_from(ts_ms / crate::limits::WINDOW_MS * i64::from(crate::limits::WINDOW_S)).ok()
}
