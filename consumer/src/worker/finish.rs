//! What follows a COMMIT, and only then: the books, Kafka's offsets, last_seen.

use std::collections::BTreeSet;
use std::time::Duration;

use spillway_proto::kafka_record::Lane;
use tokio::time::Instant;

use super::Worker;
use super::apply::{Hand, now_ms};
use crate::commit::Committed;
use crate::last_seen::Seen;
use crate::metrics::Reason as ReasonLabel;
use crate::receive::Appended;
use crate::store::Written;

/// An hour, for the cap on new series.
const HOUR: Duration = Duration::from_secs(3_600);

impl Worker {
    /// Everything that may follow a COMMIT, and only then.
    pub(super) fn finish(&mut self, hand: &mut Hand, written: &Written, committed: &Committed) {
        self.pause.reset();
        self.partitions.advance(committed);
        self.shared.group_offsets.note(committed);
        let metrics = &self.shared.metrics;
        for advance in committed.advances() {
            for (lane, next) in Lane::ALL.into_iter().zip(advance.to) {
                metrics.applied(lane, advance.partition, next);
            }
        }
        metrics.transactions.inc();
        metrics.transaction_points.observe(written.points as f64);
        metrics.batches_applied.inc_by(written.batches);
        metrics.points_applied.inc_by(written.points);
        metrics.batches_duplicate.inc_by(written.duplicates);
        metrics.points_duplicate.inc_by(written.duplicate_points);
        metrics.points_expired.inc_by(written.expired);
        metrics.batches_cloned.inc_by(written.cloned);
        metrics.rows.inc_by(written.rows);
        metrics.merges.inc_by(written.merges);
        for letter in &hand.letters {
            let reason = ReasonLabel { reason: letter.refused.reason.word() };
            metrics.batches_quarantined.get_or_create(&reason).inc();
            metrics.points_quarantined.get_or_create(&reason).inc_by(letter.points);
        }
        let now_ms = now_ms();
        let appended = hand.records.iter().filter_map(|record| match record.appended {
            Appended::At(ms) => Some(ms),
            Appended::Unknown => None,
        });
        if let Some(newest) = appended.max() {
            metrics.append_age_seconds.set(now_ms.saturating_sub(newest) as f64 / 1_000.0);
        }
        self.probe.ok(Duration::ZERO);
        self.count_fresh(written);
        self.tell_last_seen(hand, written, now_ms);
        hand.records.drain(..).for_each(|record| record.receipt.settle());
    }

    fn count_fresh(&mut self, written: &Written) {
        for ((partition, environment), fresh) in &written.fresh {
            self.shared.metrics.series_created.inc_by(fresh.series);
            let Some(held) = self.partitions.get_mut(*partition) else { continue };
            if held.fresh_since.elapsed() >= HOUR {
                held.fresh.clear();
                held.fresh_since = Instant::now();
            }
            let sum = held.fresh.entry(environment.clone()).or_default();
            sum.series += fresh.series;
            sum.epochs += fresh.epochs;
        }
    }

    /// The series of the applied rows are known from now on, and Redis hears of some of them.
    fn tell_last_seen(&mut self, hand: &Hand, written: &Written, now_ms: i64) {
        let at_ts = u32::try_from(now_ms / 1_000).unwrap_or(0);
        let every_s = self.shared.settings.redis.per_series.get().as_secs();
        let every_s = u32::try_from(every_s).unwrap_or(u32::MAX);
        let mut seen = Seen { shard: self.id.shard.clone(), at_ts, ..Seen::default() };
        let mut hosts = BTreeSet::new();
        let batches = self.drafts.batches.iter().zip(&written.fates);
        for (batch, _) in batches.filter(|(_, fate)| fate.applies()) {
            let Some(record) = hand.records.get(batch.index) else { continue };
            let Some(held) = self.partitions.get_mut(record.partition) else { continue };
            let before = seen.series.len();
            for row in self.drafts.rows.get(batch.rows.clone()).unwrap_or_default() {
                if held.known.seen(row.series_id, at_ts, every_s) {
                    seen.series.push(row.series_id);
                }
            }
            if seen.series.len() > before {
                hosts.insert(batch.host_id);
            }
        }
        if !seen.series.is_empty() {
            seen.hosts = hosts.into_iter().collect();
            self.shared.last_seen.tell(seen);
        }
    }
}
