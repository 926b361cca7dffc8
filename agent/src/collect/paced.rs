//! Inputs with a pace of their own: a target that is scraped, a server that is asked, a command
//! that is run. Each has a task, a place on the wall clock's grid and a deadline; one that hangs,
//! fails or panics misses its own reads and nobody else's.
//!
//! A read is due at whole multiples of its interval plus an offset that its name decides, so that
//! hundreds of targets are not asked in the same millisecond and yet each is asked at equal
//! distances, which is what storage packs best. What was read carries the time it was due at.

use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use spillway_runtime::deadline::within;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::Labels;
use super::sample::Troubles;
use super::tray::{Pack, Tray};
use crate::clock::Clock;
use crate::metrics::{self, Metrics};

/// A read that starts later than this after it was due carries the time at which it did start.
const LATE: Duration = Duration::from_millis(500);
/// What a source gets beyond its own deadline, before it is given up from outside.
const GRACE: Duration = Duration::from_millis(500);

/// Why a read failed. Shown, it is the whole chain of causes.
#[derive(Debug)]
pub struct ReadError(Box<dyn Error + Send + Sync>);

impl ReadError {
    /// For whoever knows what to do about it.
    #[must_use]
    pub fn cause(&self) -> &(dyn Error + 'static) {
        &*self.0
    }
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&spillway_runtime::program::chain(self.cause()))
    }
}

impl<E: Error + Send + Sync + 'static> From<E> for ReadError {
    fn from(cause: E) -> Self {
        Self(cause.into())
    }
}

/// How often, and how long at most.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    pub interval: Duration,
    pub deadline: Duration,
}

/// How a read ended.
#[derive(Clone, Copy, Debug)]
pub struct Done {
    /// The time its readings carry.
    pub ts_ms: i64,
    pub took: Duration,
    pub ok: bool,
}

/// Something that is read at its own pace.
#[async_trait]
pub trait Source: Send + 'static {
    /// Which of many, for status and logs: `scrape node web-1:9100`.
    fn name(&self) -> String;

    /// What kind of input, as a label of the agent's own metrics.
    fn input(&self) -> &'static str;

    fn pace(&self) -> Pace;

    /// Labels of everything it says.
    fn labels(&self) -> Labels {
        Labels::new()
    }

    /// Adds what it sees now, as of `ts_ms`. May be dropped at any await when its time is up.
    ///
    /// # Errors
    /// Whatever stands in `out` by then is left out as well: a half answer looks like a whole one.
    async fn read(&mut self, ts_ms: i64, out: &mut Pack) -> Result<(), ReadError>;

    /// What it can't see of what it should, although the read as a whole went well.
    fn missing(&self) -> Option<String> {
        None
    }

    /// Adds what is to be said of the read itself (`up`), also of one that failed.
    fn after(&mut self, done: Done, out: &mut Pack);
}

/// What all sources share.
#[derive(Clone)]
pub struct Surroundings {
    pub tray: Tray,
    pub clock: Arc<dyn Clock>,
    pub troubles: Troubles,
    pub metrics: Metrics,
}

impl Surroundings {
    /// Starts a task for each source, until `stop`.
    pub fn start(
        &self,
        sources: Vec<Box<dyn Source>>,
        tasks: &TaskTracker,
        stop: &CancellationToken,
    ) {
        for source in sources {
            let (this, stop) = (self.clone(), stop.clone());
            tasks.spawn(async move {
                let (name, input) = (source.name(), source.input());
                let going = tokio::spawn(this.clone().keep_reading(source, stop));
                if let Err(gone) = going.await {
                    this.metrics.inputs_failed.get_or_create(&metrics::Input { input }).inc();
                    this.troubles.note(&name, Some(format!("the input failed for good: {gone}")));
                }
            });
        }
    }

    async fn keep_reading(self, mut source: Box<dyn Source>, stop: CancellationToken) {
        let name = source.name();
        let mut last = i64::MIN;
        loop {
            let pause = self.next_due(&name, source.pace().interval, last);
            let Some(ts_ms) = stop.run_until_cancelled(pause).await else { return };
            last = ts_ms;
            // A read under way is given up when the agent stops: waiting for a slow one would
            // hold up the last window.
            let read = self.read_once(source.as_mut(), ts_ms);
            let Some(pack) = stop.run_until_cancelled(read).await else { return };
            if self.tray.put(pack).is_err() {
                return;
            }
        }
    }

    /// Waits until the next read is due; its time.
    async fn next_due(&self, name: &str, interval: Duration, last: i64) -> i64 {
        let interval = i64::try_from(interval.as_millis()).unwrap_or(i64::MAX).max(1);
        let offset = offset(name, interval);
        let late = i64::try_from(LATE.as_millis()).unwrap_or(0).min(interval / 2);
        loop {
            let now = self.clock.wall_ms();
            let due = (now - offset).div_euclid(interval) * interval + interval + offset;
            let wait = u64::try_from(due - now).unwrap_or(0);
            tokio::time::sleep(Duration::from_millis(wait)).await;
            let now = self.clock.wall_ms();
            let started = if (0..=late).contains(&(now - due)) { due } else { now };
            // Timers may end a hair early, and clocks be set back a little.
            if started >= due && started != last {
                return started;
            }
            if now < due - interval {
                return now;
            }
        }
    }

    /// Reads `source` once; what it said, and what is to be said of it.
    pub async fn read_once(&self, source: &mut dyn Source, ts_ms: i64) -> Pack {
        let (name, input) = (source.name(), metrics::Input { input: source.input() });
        let mut out = self.tray.pack(source.labels());
        let began = Instant::now();
        let limit = source.pace().deadline + GRACE;
        let read = within(limit, source.read(ts_ms, &mut out)).await;
        let trouble = match read {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(error.to_string()),
            Err(late) => {
                self.metrics.inputs_late.get_or_create(&input).inc();
                Some(late.to_string())
            }
        };
        if trouble.is_some() {
            self.metrics.inputs_failed.get_or_create(&input).inc();
            out.clear();
        }
        source.after(Done { ts_ms, took: began.elapsed(), ok: trouble.is_none() }, &mut out);
        self.troubles.note(&name, trouble.or_else(|| source.missing()));
        out
    }
}

/// A source's place in its interval, the same after every start.
fn offset(name: &str, interval_ms: i64) -> i64 {
    let hash = xxhash_rust::xxh3::xxh3_64(name.as_bytes()) >> 1;
    i64::try_from(hash).unwrap_or(0).rem_euclid(interval_ms)
}

#[cfg(test)]
#[path = "paced_tests.rs"]
mod tests;
