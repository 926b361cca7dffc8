//! Plays agents against `POST /v1/batches`: seqs without gaps, the same bytes until a 2xx.
//!
//! It gives up on nothing but a typed refusal, like the agent; unlike the agent it has no disk,
//! no S3 and no windows of real time, so it can send a day's worth of data in seconds.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use spillway_proto::frame::Encoder;
use spillway_proto::verdict::BatchesAnswer;
use spillway_proto::{Batch, BatchId};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};
use uuid::Uuid;

use crate::ledger::{Fate, Ledger, series_of_window};

/// Longer than the API's own answer deadline (3 s), so that its answers are seen.
const REQUEST_DEADLINE: Duration = Duration::from_secs(5);
/// Between two attempts of one batch.
const RETRY_PAUSE: Duration = Duration::from_millis(200);

/// What to send, and where.
#[derive(Clone, Debug)]
pub struct SenderOptions {
    /// Base URLs, used in turn.
    pub api: Vec<String>,
    pub token: String,
    pub environment: String,
    /// Hosts played at once, each an agent of its own.
    pub hosts: usize,
    /// Windows per host; the last one closes the epoch.
    pub windows: usize,
    pub series: usize,
    /// Points per series and window.
    pub points: usize,
    /// Pause between two batches of one host; zero = as fast as answers come.
    pub pace: Duration,
    /// Start of the first window, seconds, on the 10 s grid.
    pub first_window_ts: u32,
    /// Tells runs apart in host names.
    pub name: String,
}

impl SenderOptions {
    /// A load that takes some seconds and touches everything: 4 hosts, 30 windows, 20 series.
    #[must_use]
    pub fn small(api: Vec<String>, token: String, environment: &str) -> Self {
        let now = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(0, |since| since.as_secs());
        // An hour back: old enough not to be in the future, young enough for any retention.
        let first_window_ts = u32::try_from(now / 10 * 10).unwrap_or(0).saturating_sub(3_600);
        Self {
            api,
            token,
            environment: environment.to_owned(),
            hosts: 4,
            windows: 30,
            series: 20,
            points: 10,
            pace: Duration::from_millis(100),
            first_window_ts,
            name: "e2e".into(),
        }
    }

    /// Points that a whole run sends.
    #[must_use]
    pub fn total_points(&self) -> usize {
        self.hosts * self.windows * self.series * self.points
    }

    /// The name of host number `host`.
    #[must_use]
    pub fn host(&self, host: usize) -> String {
        format!("{}-{host:02}", self.name)
    }
}

/// A running load.
pub struct Sender {
    pub ledger: Ledger,
    pub options: SenderOptions,
    hosts: JoinSet<()>,
    give_up_at: watch::Sender<Option<Instant>>,
}

impl Sender {
    /// Starts all hosts at once.
    #[must_use]
    pub fn start(options: SenderOptions) -> Self {
        let ledger = Ledger::default();
        let (give_up_at, deadline) = watch::channel(None);
        let mut hosts = JoinSet::new();
        for host in 0..options.hosts {
            let played = PlayedHost::new(host, options.clone(), ledger.clone(), deadline.clone());
            hosts.spawn(played.play());
        }
        Self { ledger, options, hosts, give_up_at }
    }

    /// Waits until each batch was accepted or refused.
    ///
    /// Panics when that takes longer than `limit`, with what is still open.
    pub async fn finish(mut self, limit: Duration) -> (Ledger, SenderOptions) {
        self.give_up_at.send_replace(Some(Instant::now() + limit));
        while let Some(played) = self.hosts.join_next().await {
            played.expect("a played host does not panic");
        }
        let open = self.ledger.batches(Fate::Info);
        assert!(open.is_empty(), "not accepted within {limit:?}: {}", self.ledger.summary());
        (self.ledger, self.options)
    }
}

struct PlayedHost {
    host: usize,
    options: SenderOptions,
    ledger: Ledger,
    deadline: watch::Receiver<Option<Instant>>,
    client: Client<HttpConnector, Full<Bytes>>,
    agent_id: Uuid,
    epoch: Uuid,
}

impl PlayedHost {
    fn new(
        host: usize,
        options: SenderOptions,
        ledger: Ledger,
        deadline: watch::Receiver<Option<Instant>>,
    ) -> Self {
        let client = Client::builder(TokioExecutor::new()).build_http();
        let (agent_id, epoch) = (Uuid::new_v4(), Uuid::now_v7());
        Self { host, options, ledger, deadline, client, agent_id, epoch }
    }

    async fn play(self) {
        let mut encoder = Encoder::new();
        for window in 0..self.options.windows {
            let batch = Arc::new(self.batch(window));
            let frame = encoder.encode(&batch).expect("a made-up batch is valid");
            self.send(&batch, frame).await;
            tokio::time::sleep(self.options.pace).await;
        }
    }

    fn batch(&self, window: usize) -> Batch {
        let window_ts = self.options.first_window_ts + window as u32 * 10;
        Batch {
            id: BatchId::Sequenced {
                agent_id: self.agent_id,
                epoch: self.epoch,
                seq: window as u64 + 1,
            },
            environment: self.options.environment.clone(),
            host: self.options.host(self.host),
            window_ts,
            series: series_of_window(window_ts, self.options.series, self.options.points),
            previous: None,
            declarations: vec![],
            closing: window + 1 == self.options.windows,
            host_info: None,
        }
    }

    async fn send(&self, batch: &Arc<Batch>, frame: Bytes) {
        for attempt in 0_usize.. {
            self.ledger.attempt(batch);
            let api = self.options.api.get((self.host + attempt) % self.options.api.len());
            let answer = timeout(REQUEST_DEADLINE, self.post(api, frame.clone())).await;
            match answer.ok().flatten() {
                Some(answer) if answer.accepted == 1 => {
                    return self.ledger.answered(&batch.id, Fate::Ok);
                }
                Some(answer) if !answer.rejected.is_empty() => {
                    return self.ledger.answered(&batch.id, Fate::Fail);
                }
                _ => {}
            }
            let given_up = self.deadline.borrow().is_some_and(|at| Instant::now() > at);
            if given_up {
                return;
            }
            tokio::time::sleep(RETRY_PAUSE).await;
        }
    }

    /// `None` for whatever does not say what became of the batch.
    async fn post(&self, api: Option<&String>, frame: Bytes) -> Option<BatchesAnswer> {
        let request = http::Request::post(format!("{}/v1/batches", api?))
            .header("authorization", format!("Bearer {}", self.options.token))
            .header("content-type", "application/vnd.spillway.frames")
            .body(Full::new(frame))
            .ok()?;
        let answer = self.client.request(request).await.ok()?;
        if answer.status() != http::StatusCode::OK {
            return None;
        }
        let body = answer.into_body().collect().await.ok()?.to_bytes();
        serde_json::from_slice(&body).ok()
    }
}
