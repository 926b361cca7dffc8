//! Makes batches of windows: one for each environment, host and window (more only if it would
//! break a limit), the empty window's too, because a heartbeat tells zero from missing.
//!
//! The way of a batch through here: window → ticket (what it must carry) → frame → seq given →
//! spool → seq noted → released to `deliver`. The seq is given exactly when its frame goes to
//! the spool: whatever cannot be framed has none, and whatever the spool refuses is declared.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use spillway_proto::batch::window_of;
use spillway_proto::frame::Encoder;
use spillway_proto::{Batch, BatchId, HostInfo, Kind, Point, Series, limits};
use spillway_runtime::outside;
use tokio::sync::mpsc;
use tracing::{error, warn};

use crate::deliver::DeliveryStatus;
use crate::identity::{CustodyLog, GivenUp, Identity, Ticket};
use crate::metrics::{Metrics, Reason};
use crate::spool::{NewRecord, Spool};

mod lots;

mod window;

pub use window::{Ended, Window};

/// The series that every batch has: this agent was there.
pub const HEARTBEAT: &str = "spillway.agent.up";
/// Host facts travel in the first batch of an epoch and then in every so many: once a minute.
const HOST_INFO_EVERY: u64 = 6;
/// A clock that is off by less says nothing new about the host.
const SKEW_MS_NEWS: u64 = 1_000;

/// What batches are made with.
pub struct Parts {
    pub identity: Arc<Identity>,
    pub spool: Spool,
    pub delivery: Arc<DeliveryStatus>,
    pub metrics: Metrics,
    /// Labels of the host itself.
    pub labels: Vec<(String, String)>,
    /// Batches of a fleet are spread over this much time.
    pub spread: Duration,
}

/// What became of a batch on its way into the spool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kept {
    pub id: BatchId,
    pub custody: Custody,
}

/// Who answers for a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Custody {
    /// The spool, whatever happens.
    Durable,
    /// The spool, as long as the process lives.
    Volatile,
    /// Nobody: it is declared.
    Refused,
}

/// Makes batches, one window after the other.
pub struct Assembler {
    parts: Parts,
    log: Arc<dyn CustodyLog>,
    encoder: Encoder,
    delay: Duration,
    batches_until_host_info: u64,
    told: HostInfo,
}

impl Assembler {
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        let delay = place_in(parts.spread, parts.identity.agent_id().as_u128());
        let log: Arc<dyn CustodyLog> = parts.identity.clone();
        Self {
            parts,
            log,
            encoder: Encoder::new(),
            delay,
            batches_until_host_info: 0,
            told: HostInfo::default(),
        }
    }

    /// Takes windows until their sender is gone, then closes the epoch.
    pub async fn run(mut self, mut windows: mpsc::Receiver<Window>) {
        let mut last_window_ts = 0;
        while let Some(window) = windows.recv().await {
            let Some(ended) = window.ended() else { continue };
            let due = ended.at + self.delay;
            // A closed channel means the agent stops: nobody waits for the spread any more.
            if !windows.is_closed() {
                tokio::time::sleep_until(due.into()).await;
            }
            last_window_ts = window_of(ended.ts_ms).unwrap_or(last_window_ts);
            self.assemble(window, ended, last_window_ts).await;
        }
        self.close(last_window_ts).await;
    }

    /// Makes the batches of one window; tells what became of each.
    pub async fn assemble(
        &mut self,
        mut window: Window,
        ended: Ended,
        window_ts: u32,
    ) -> Vec<Kept> {
        if self.parts.identity.look_at_clocks(ended.wall_ms, ended.boot_ms) {
            self.batches_until_host_info = 0;
        }
        let mut packed = lots::Packed::new(window.take_packs(), ended.ts_ms);
        let mut series = window.into_series();
        series.push(heartbeat(ended.ts_ms));
        let mut all_kept = self.batches(lots::cut(series), window_ts).await;
        while let Some(series) = packed.next_lot(&self.parts.metrics) {
            all_kept.extend(self.batches(vec![series], window_ts).await);
        }
        all_kept
    }

    /// Makes a batch of each lot, or of parts of it.
    async fn batches(&mut self, lots: Vec<Vec<Series>>, window_ts: u32) -> Vec<Kept> {
        let mut all_kept = Vec::new();
        let mut parts: VecDeque<Vec<Series>> = lots.into();
        while let Some(series) = parts.pop_front() {
            let ticket = self.parts.identity.ticket();
            let batch = self.batch(&ticket, window_ts, series, false);
            let points = batch.points() as u64;
            match self.encoder.encode(&batch) {
                Ok(frame) => {
                    let id = ticket.id;
                    let window_ts = i64::from(window_ts);
                    let record = NewRecord { id, window_ts, points, frame };
                    all_kept.push(self.keep(ticket, record).await);
                }
                Err(cause) if batch.series.len() > 1 => {
                    // Too large, or one of its series breaks a rule: halves find out which.
                    warn!(%cause, series = batch.series.len(), "a batch is cut in halves");
                    let mut first = batch.series;
                    let second = first.split_off(first.len() / 2);
                    parts.push_front(second);
                    parts.push_front(first);
                }
                Err(cause) => {
                    let reason = Reason { reason: "unencodable" };
                    self.parts.metrics.points_dropped.get_or_create(&reason).inc_by(points);
                    let metric = batch.series.first().map(|series| series.metric.as_str());
                    error!(%cause, metric, "a series fits no batch and is dropped");
                }
            }
        }
        all_kept
    }

    /// The record that ends the epoch: its seq is the last one.
    pub async fn close(&mut self, window_ts: u32) -> Option<Kept> {
        let ticket = self.parts.identity.ticket();
        let batch = self.batch(&ticket, window_ts, Vec::new(), true);
        match self.encoder.encode(&batch) {
            Ok(frame) => {
                let (id, window_ts) = (ticket.id, i64::from(window_ts));
                let record = NewRecord { id, window_ts, points: 0, frame };
                Some(self.keep(ticket, record).await)
            }
            Err(cause) => {
                error!(%cause, "the closing record can't be made");
                None
            }
        }
    }

    fn batch(
        &mut self,
        ticket: &Ticket,
        window_ts: u32,
        series: Vec<Series>,
        closing: bool,
    ) -> Batch {
        let binding = self.parts.identity.binding();
        Batch {
            id: ticket.id,
            environment: binding.environment.clone(),
            host: binding.host.clone(),
            window_ts,
            series,
            previous: ticket.previous,
            declarations: ticket.declarations.clone(),
            closing,
            host_info: self.host_info(closing),
        }
    }

    /// The host's facts, when they are due or news.
    fn host_info(&mut self, due: bool) -> Option<HostInfo> {
        let totals = self.parts.spool.totals();
        let now = HostInfo {
            agent_version: env!("CARGO_PKG_VERSION").to_owned(),
            clock_skew_ms: self.parts.delivery.snapshot().clock_skew_ms,
            labels: self.parts.labels.clone(),
            backlog_batches: Some(totals.backlog_batches),
        };
        let had_backlog = self.told.backlog_batches.unwrap_or(0) > 0;
        let skew = |info: &HostInfo| info.clock_skew_ms.unwrap_or(0);
        let news = had_backlog != (totals.backlog_batches > 0)
            || skew(&now).abs_diff(skew(&self.told)) > SKEW_MS_NEWS;
        if !(due || news || self.batches_until_host_info == 0) {
            self.batches_until_host_info -= 1;
            return None;
        }
        self.batches_until_host_info = HOST_INFO_EVERY - 1;
        self.told = now.clone();
        Some(now)
    }

    /// Gives the seq, stores the frame, notes the seq, and lets `deliver` have it, in that order.
    async fn keep(&mut self, ticket: Ticket, record: NewRecord) -> Kept {
        let metrics = &self.parts.metrics;
        let (id, points) = (record.id, record.points);
        self.parts.identity.give(&ticket);
        metrics.batches_emitted.inc();
        metrics.points_emitted.inc_by(points);
        let kept = self.parts.spool.append(record, &self.log).await;
        let custody = match &kept {
            Ok(held) if held.volatile() => Custody::Volatile,
            Ok(_) => Custody::Durable,
            Err(_) => Custody::Refused,
        };
        let identity = Arc::clone(&self.parts.identity);
        let (epoch, seq) = identity.position();
        // Both wait for the disk, so they do it where waiting is allowed.
        let noted = outside::blocking(move || {
            identity.note(&ticket);
            if let Err(refused) = &kept {
                error!(cause = %refused.cause, seq, "a batch can't be kept");
                let reason = refused.reason;
                let (first_seq, last_seq) = (seq, seq);
                let lost = GivenUp { epoch, first_seq, last_seq, points, reason };
                // There are no bytes to keep: unnoted, its seq alone will tell that it is missing.
                identity.gone(&lost);
            }
            // Here a batch that was kept is released (`Held`), its seq noted.
            drop(kept);
        });
        if let Err(cause) = noted.await {
            error!(%cause, "a seq could not be noted");
        }
        Kept { id, custody }
    }
}

fn heartbeat(ts_ms: i64) -> Series {
    Series {
        metric: HEARTBEAT.to_owned(),
        labels: Vec::new(),
        kind: Kind::Gauge,
        unit: "1".to_owned(),
        points: vec![Point { ts_ms: ts_ms.clamp(0, limits::TS_MS_MAX), value: 1.0 }],
    }
}

/// This agent's place in `spread`: random between agents, the same for one agent always.
fn place_in(spread: Duration, agent_id: u128) -> Duration {
    let parts = (agent_id % 1_000) as u32;
    spread * parts / 1_000
}

#[cfg(test)]
#[path = "assemble/tests.rs"]
mod tests;
