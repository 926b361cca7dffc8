//! Carrying batches in hand to a sink, and ending each custody by what was told.
//!
//! Every function here that takes a lot gives all of it an ending: acked, parked, in quarantine
//! or returned.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use spillway_proto::kafka_record::Lane;
use spillway_proto::verdict::{Outcome, RejectedBatch};
use spillway_runtime::outside;
use spillway_runtime::settings::Secret;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use super::ingest_api::{Attempt, IngestApi, Refused};
use super::pace::Pace;
use super::quarantine::Quarantine;
use super::route::{Heard, Pressure, Route, Rules, State, Way};
use super::s3_park::{ParkError, S3Park};
use super::warm::Warmth;
use super::{Parts, StartError, Stop};
use crate::metrics::{RequestOutcome, Target};
use crate::settings::Settings;
use crate::spool::InHand;

/// What the lanes share.
pub struct Carrier {
    pub parts: Parts,
    pub stop: Stop,
    pub api: IngestApi,
    s3: Option<S3Park>,
    route: Mutex<Route>,
    tokens: Option<Mutex<watch::Receiver<Option<Arc<Secret>>>>>,
    pub pace: Mutex<Pace>,
    pub quarantine: Arc<Mutex<Quarantine>>,
    warmth: Warmth,
    warming: TaskTracker,
    /// Bytes of frames in one request: halved when a server finds that too large.
    request_bytes_max: AtomicUsize,
    started: Instant,
}

impl Carrier {
    pub async fn new(parts: Parts, stop: Stop) -> Result<Self, StartError> {
        let settings = Arc::clone(&parts.settings);
        let network = &*parts.network;
        let api = IngestApi::over(network, &settings, parts.credential.clone())?;
        let s3 = S3Park::over(network, &settings, parts.credential.clone())?;
        let (folder, log) = (Arc::clone(&parts.quarantine), Arc::clone(&parts.log));
        let metrics = parts.metrics.clone();
        let opening = outside::blocking(move || Quarantine::open(folder, log, metrics));
        let quarantine = Arc::new(Mutex::new(opening.await?));
        Ok(Self {
            tokens: parts.credential.changes().map(Mutex::new),
            route: Mutex::new(Route::new(rules(&settings, s3.is_some()))),
            pace: Mutex::new(Pace::new(settings.deliver.backlog_rate, 0)),
            quarantine,
            warmth: Warmth::new(ms(settings.deliver.warm_every.get())),
            warming: TaskTracker::new(),
            request_bytes_max: AtomicUsize::new(settings.deliver.request_bytes_max.as_usize()),
            started: Instant::now(),
            parts,
            stop,
            api,
            s3,
        })
    }

    /// Monotonic, from this carrier's start.
    pub fn now_ms(&self) -> i64 {
        ms(self.started.elapsed())
    }

    pub fn instant(&self, at_ms: i64) -> Instant {
        self.started + Duration::from_millis(u64::try_from(at_ms).unwrap_or_default())
    }

    pub fn request_bytes_max(&self) -> usize {
        self.request_bytes_max.load(Ordering::Relaxed)
    }

    pub fn way(&self, urgent: bool) -> Way {
        if let Some(tokens) = &self.tokens
            && lock(tokens).has_changed().unwrap_or(false)
        {
            lock(tokens).mark_unchanged();
            self.route().new_token();
        }
        let fill = self.parts.spool.totals().fill();
        let way = self.route().way(self.now_ms(), Pressure { fill, urgent });
        self.show_route();
        way
    }

    pub fn not_probed(&self) {
        self.route().not_probed();
        self.show_route();
    }

    /// Failures of the API in a row.
    pub fn failures(&self) -> u32 {
        self.route().attempts()
    }

    pub fn route(&self) -> MutexGuard<'_, Route> {
        lock(&self.route)
    }

    fn heard(&self, heard: Heard) {
        self.route().heard(self.now_ms(), heard, jitter());
        self.show_route();
    }

    fn show_route(&self) {
        let (state, denied) = {
            let route = self.route();
            (route.state(), route.denied())
        };
        let number = match state {
            State::Direct => 0,
            State::Park => 1,
            State::Probe => 2,
        };
        self.parts.metrics.route.set(number);
        if self.parts.status.route(state, denied) {
            tracing::info!(route = state.as_str(), "the route changed");
        }
    }

    /// One request to the API with everything in `lot`.
    pub async fn to_api(self: &Arc<Self>, lane: Lane, lot: Vec<InHand>) {
        let frames: Vec<Bytes> = lot.iter().map(|batch| batch.frame().clone()).collect();
        let attempts = self.route().attempts();
        let told = tokio::select! {
            biased;
            told = self.api.send(lane, &frames, attempts) => told,
            // Whether they arrived is not known: they are sent again after the next start.
            () = self.stop.now.cancelled() => return lot.into_iter().for_each(InHand::returned),
        };
        self.note_request(&told, &frames);
        match told.outcome {
            Outcome::Done => {
                self.heard(Heard::Answered);
                self.acknowledged(lane, lot, told.rejected).await;
            }
            Outcome::Refused(Refused::Content { index, refusal, error }) => {
                self.heard(Heard::Answered);
                self.one_refused(lot, RejectedBatch { index, error, refusal }).await;
            }
            Outcome::Refused(Refused::TooLarge) => {
                self.heard(Heard::Answered);
                self.send_less(frames.iter().map(Bytes::len).sum());
                lot.into_iter().for_each(InHand::returned);
            }
            Outcome::Refused(Refused::Token { revoked, .. }) => {
                self.heard(Heard::Denied { revoked });
                lot.into_iter().for_each(InHand::returned);
            }
            Outcome::TryLater { retry_after } => {
                let retry_after_ms = retry_after.map(ms);
                self.heard(Heard::Failed { retry_after_ms });
                lot.into_iter().for_each(InHand::returned);
            }
            Outcome::Unknown => {
                self.heard(Heard::Failed { retry_after_ms: None });
                lot.into_iter().for_each(InHand::returned);
            }
        }
    }

    /// Kafka has them, but for those that were rejected.
    async fn acknowledged(
        self: &Arc<Self>,
        lane: Lane,
        lot: Vec<InHand>,
        rejected: Vec<RejectedBatch>,
    ) {
        if lane == Lane::Live
            && let Some(batch) = lot.first()
        {
            self.keep_warm(batch.frame().clone());
        }
        let mut accepted = Vec::with_capacity(lot.len());
        let mut refused = Vec::new();
        for (index, batch) in lot.into_iter().enumerate() {
            match rejected.iter().find(|rejected| rejected.index == index) {
                None => accepted.push(batch),
                Some(why) => refused.push((batch, why.clone())),
            }
        }
        self.told_books(&accepted).await;
        accepted.into_iter().for_each(InHand::acked);
        for (batch, why) in refused {
            self.to_quarantine(batch, why).await;
        }
    }

    async fn one_refused(&self, lot: Vec<InHand>, why: RejectedBatch) {
        for (index, batch) in lot.into_iter().enumerate() {
            match index == why.index {
                true => self.to_quarantine(batch, why.clone()).await,
                false => batch.returned(),
            }
        }
    }

    /// What they carried has arrived. The books may write a file.
    async fn told_books(&self, accepted: &[InHand]) {
        let ids: Vec<_> = accepted.iter().map(InHand::id).collect();
        let log = Arc::clone(&self.parts.log);
        let telling = move || ids.iter().for_each(|id| log.accepted(id));
        if outside::blocking(telling).await.is_err() {
            tracing::error!("the books could not be told what arrived; it is carried again");
        }
    }

    fn send_less(&self, sent: usize) {
        // Down to single batches if need be: the first of a lot comes however large it is.
        let less = (sent / 2).max(1);
        self.request_bytes_max.fetch_min(less, Ordering::Relaxed);
        tracing::warn!(sent, now = less, "a server finds our requests too large: smaller ones now");
    }

    /// One sealed object with everything in `lot`.
    pub async fn to_s3(&self, lot: Vec<InHand>) {
        let Some(s3) = &self.s3 else {
            return lot.into_iter().for_each(InHand::returned);
        };
        let frames: Vec<Bytes> = lot.iter().map(|batch| batch.frame().clone()).collect();
        let began = Instant::now();
        let put = tokio::select! {
            biased;
            put = s3.park(&frames) => put,
            () = self.stop.now.cancelled() => return lot.into_iter().for_each(InHand::returned),
        };
        self.note_put(&put, began.elapsed());
        let (key, bytes) = match put {
            Ok(put) => put,
            Err(error) => {
                let retry_after_ms = error.retry_after().map(ms);
                self.route().park_failed(self.now_ms(), retry_after_ms, jitter());
                return lot.into_iter().for_each(InHand::returned);
            }
        };
        self.route().parked(bytes as u64);
        self.parts.status.parked();
        let batches = lot.len();
        match self.parts.spool.parked(&key, lot, &self.parts.log).await {
            Ok(()) => tracing::info!(%key, batches, "parked in S3"),
            // They will go again; S3 then has them twice, and MySQL once.
            Err(lot) => lot.into_iter().for_each(InHand::returned),
        }
    }

    /// Now and then, one batch that the API just took goes over S3 as well, beside everything.
    fn keep_warm(self: &Arc<Self>, frame: Bytes) {
        if self.s3.is_none() || !self.warmth.take_turn(self.now_ms()) {
            return;
        }
        let carrier = Arc::clone(self);
        let warming = async move { carrier.warm(frame).await };
        let now = self.stop.now.clone();
        self.warming.spawn(async move { now.run_until_cancelled(warming).await });
    }

    async fn warm(&self, frame: Bytes) {
        let Some(s3) = &self.s3 else { return };
        let began = Instant::now();
        let put = s3.park(&[frame]).await;
        self.note_put(&put, began.elapsed());
        match put {
            Ok(_) => {
                self.parts.metrics.batches_warmed.inc();
                self.parts.status.warmed();
            }
            Err(_) => self.warmth.failed(self.now_ms()),
        }
    }

    /// Lets a warming that is under way end with its own deadline.
    pub async fn end_warming(&self) {
        self.warming.close();
        tokio::select! {
            biased;
            () = self.warming.wait() => {}
            () = self.stop.now.cancelled() => {}
        }
    }

    pub fn note_request(&self, told: &Attempt, frames: &[Bytes]) {
        let parts = &self.parts;
        let outcome = RequestOutcome { target: "api", outcome: told.word() };
        parts.metrics.requests.get_or_create(&outcome).inc();
        let bytes: usize = frames.iter().map(Bytes::len).sum();
        parts.metrics.bytes_sent.get_or_create(&Target { target: "api" }).inc_by(bytes as u64);
        if let Some(skew_ms) = told.clock_skew_ms {
            parts.metrics.clock_skew_ms.set(skew_ms);
            parts.status.skew(skew_ms);
        }
        match &told.error {
            None => {
                parts.api_health.ok(told.took);
                parts.status.acked(&told.endpoint);
            }
            Some(error) => {
                tracing::warn!(error, "ingest-api did not take a request");
                parts.api_health.failed(error);
                parts.status.failed(error);
            }
        }
        let own = &parts.settings.agent.environment;
        if let Some(theirs) = told.environment.as_ref().filter(|theirs| *theirs != own) {
            tracing::error!(own, theirs, "the token is for another environment");
        }
    }

    fn note_put(&self, put: &Result<(impl Sized, usize), ParkError>, took: Duration) {
        let parts = &self.parts;
        let word = put.as_ref().map_or_else(ParkError::word, |_| "done");
        let outcome = RequestOutcome { target: "s3", outcome: word };
        parts.metrics.requests.get_or_create(&outcome).inc();
        match put {
            Ok((_, bytes)) => {
                let sent = parts.metrics.bytes_sent.get_or_create(&Target { target: "s3" });
                sent.inc_by(*bytes as u64);
                parts.s3_health.ok(took);
            }
            Err(error) => {
                let text = spillway_runtime::program::chain(error);
                tracing::warn!(error = text, "S3 did not take an object");
                parts.s3_health.failed(&text);
                parts.status.failed(&text);
            }
        }
    }
}

fn rules(settings: &Settings, spill: bool) -> Rules {
    let deliver = &settings.deliver;
    Rules {
        spill,
        park_after_ms: ms(deliver.park_after.get()),
        park_fill: deliver.park_fill,
        probe_min_ms: ms(deliver.probe_interval.get()),
        probe_max_ms: ms(deliver.probe_interval_max.get()),
        retry_min_ms: ms(deliver.retry_min.get()),
        retry_max_ms: ms(deliver.retry_max.get()),
        auth_park_bytes_max: deliver.auth_park_bytes_max.get(),
    }
}

pub fn ms(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// Between 0 and 1. Without randomness the spread is lost, not the pause.
fn jitter() -> f64 {
    f64::from(outside::spread()) / f64::from(u32::MAX)
}

/// None of these is held over an await, and none is left half changed by a panic.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
