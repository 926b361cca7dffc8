//! How much goes into one transaction: live records first, a small share kept for backlog, until a
//! limit in bytes, points, records or time is reached.
//!
//! Records of one partition and lane stay in offset order; that is all the order there is.

use spillway_proto::kafka_record::Lane;
use tokio::time::{Instant, timeout_at};

use crate::receive::{Intake, Record};
use crate::settings::GatherSettings;

/// What has been gathered so far of one lane, or of both.
#[derive(Clone, Copy, Debug, Default)]
struct Load {
    bytes: u64,
    points: u64,
    records: u64,
}

impl Load {
    fn add(&mut self, record: &Record) {
        self.bytes += record.bytes() as u64;
        self.points += record.receipt.points();
        self.records += 1;
    }

    /// How full the transaction is, in percent of the tightest limit.
    fn percent(&self, limits: &GatherSettings) -> u64 {
        let of = |part: u64, whole: u64| part.saturating_mul(100) / whole.max(1);
        let bytes = of(self.bytes, limits.bytes_max.get());
        let points = of(self.points, u64::from(limits.points_max));
        bytes.max(points).max(of(self.records, u64::from(limits.records_max)))
    }
}

/// Takes records from `intake` until a limit is reached. Does not wait for a first record; with one
/// in hand it waits up to `linger` for more, and must not be dropped meanwhile. `current` tells
/// records of partitions held now from those read under an older claim, which are let go.
pub async fn gather(
    intake: &Intake,
    limits: &GatherSettings,
    current: impl Fn(&Record) -> bool,
) -> Vec<Record> {
    let mut gathering = Gathering { limits, live: Load::default(), all: Load::default() };
    let mut records = Vec::new();
    let mut until = None;
    loop {
        while let Some(record) = gathering.next(intake) {
            if current(&record) {
                gathering.add(&record);
                records.push(record);
            }
        }
        if gathering.is_full() || records.is_empty() {
            return records;
        }
        let until = *until.get_or_insert_with(|| Instant::now() + limits.linger.get());
        if timeout_at(until, intake.arrival()).await.is_err() {
            return records;
        }
    }
}

struct Gathering<'a> {
    limits: &'a GatherSettings,
    live: Load,
    all: Load,
}

impl Gathering<'_> {
    fn is_full(&self) -> bool {
        self.all.percent(self.limits) >= 100
    }

    fn add(&mut self, record: &Record) {
        self.all.add(record);
        if record.lane == Lane::Live {
            self.live.add(record);
        }
    }

    /// The next record to take: live while it leaves backlog's share free or backlog has nothing.
    fn next(&self, intake: &Intake) -> Option<Record> {
        if self.is_full() {
            return None;
        }
        let share = 100 - u64::from(self.limits.backlog_percent.min(100));
        if self.live.percent(self.limits) < share {
            return intake.take(Lane::Live).or_else(|| intake.take(Lane::Backlog));
        }
        intake.take(Lane::Backlog).or_else(|| intake.take(Lane::Live))
    }
}

#[cfg(test)]
#[path = "gather_tests.rs"]
mod tests;
