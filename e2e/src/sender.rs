//! Plays agents against `POST /v1/batches`, and against S3 where told: seqs without gaps, the same
//! bytes until a 2xx.
//!
//! It gives up on nothing but a typed refusal, like the agent; unlike the agent it has no disk and
//! no windows of real time, so it can send a day's worth of data in seconds.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use spillway_agent::deliver::S3Park;
use spillway_proto::BatchId;
use spillway_proto::frame::Encoder;
use spillway_proto::verdict::BatchesAnswer;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};
use uuid::Uuid;

use crate::ledger::{Fate, Ledger, Way};
use crate::mix::{Mix, Role};
use crate::recipe::Recipe;

/// Longer than the API's own answer deadline (3 s), so that its answers are seen.
const REQUEST_DEADLINE: Duration = Duration::from_secs(5);
/// Between two attempts of one batch.
const RETRY_PAUSE: Duration = Duration::from_millis(200);
/// An environment that no token stands for: its batches are refused with a typed answer.
pub const ELSEWHERE: &str = "elsewhere";

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
    /// What is sent besides plain batches in a row.
    pub mix: Mix,
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
            mix: Mix::default(),
        }
    }

    /// Points that a whole run of plain batches sends.
    #[must_use]
    pub fn total_points(&self) -> usize {
        self.hosts * self.windows * self.series * self.points
    }

    /// The batch of one host and window, both counted from 0, in this agent's epoch.
    #[must_use]
    pub fn recipe(&self, host: usize, window: usize, (agent_id, epoch): (Uuid, Uuid)) -> Recipe {
        Recipe {
            id: BatchId::Sequenced { agent_id, epoch, seq: window as u64 + 1 },
            environment: self.environment.clone(),
            host: self.host(host),
            window_ts: self.first_window_ts + window as u32 * 10,
            series: self.series,
            points: self.points,
            revises: false,
            declares: Vec::new(),
            closing: window + 1 == self.windows,
        }
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
        Self::noting(options, Ledger::default())
    }

    /// The same with a ledger that others share.
    #[must_use]
    pub fn noting(options: SenderOptions, ledger: Ledger) -> Self {
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
    pub async fn finish(self, limit: Duration) -> (Ledger, SenderOptions) {
        let (ledger, options) = self.ended(limit).await;
        assert_eq!(ledger.count(Fate::Info), 0, "open after {limit:?}: {}", ledger.summary());
        (ledger, options)
    }

    /// Waits until each batch was accepted, refused, or tried for `limit`: then it stays open.
    pub async fn ended(mut self, limit: Duration) -> (Ledger, SenderOptions) {
        self.give_up_at.send_replace(Some(Instant::now() + limit));
        while let Some(played) = self.hosts.join_next().await {
            played.expect("a played host does not panic");
        }
        (self.ledger, self.options)
    }
}

struct PlayedHost {
    host: usize,
    options: SenderOptions,
    ledger: Ledger,
    deadline: watch::Receiver<Option<Instant>>,
    client: Client<HttpConnector, Full<Bytes>>,
    s3: Option<S3Park>,
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
        let s3 = options.mix.s3.as_ref().map(|door| door.park(&options.token));
        let (agent_id, epoch) = (Uuid::new_v4(), Uuid::now_v7());
        Self { host, options, ledger, deadline, client, s3, agent_id, epoch }
    }

    async fn play(self) {
        let mut encoder = Encoder::new();
        let mut owed = Vec::new();
        for window in 0..self.options.windows {
            let role = self.options.mix.role(window, self.options.windows);
            let mut recipe = self.recipe(window, role);
            match role {
                Role::Withheld => self.ledger.withheld(recipe, Fate::Withheld).await,
                Role::Declared => {
                    owed.extend(recipe.counted().map(|(_, _, seq)| seq));
                    self.ledger.withheld(recipe, Fate::Declared).await;
                }
                Role::Plain | Role::Parked | Role::Both => {
                    if role != Role::Parked {
                        recipe.declares = std::mem::take(&mut owed);
                    }
                    self.send(Arc::new(recipe), role, &mut encoder).await;
                }
            }
            if self.options.mix.refuses(window) {
                let refused = Arc::new(self.refused(window));
                self.send(refused, Role::Plain, &mut encoder).await;
            }
            tokio::time::sleep(self.options.pace).await;
        }
    }

    fn recipe(&self, window: usize, role: Role) -> Recipe {
        Recipe {
            // A copy that comes round by S3 may be applied before the live batches ahead of it: it
            // has no place in the order that "last" speaks of.
            revises: self.options.mix.revises && role == Role::Plain,
            ..self.options.recipe(self.host, window, (self.agent_id, self.epoch))
        }
    }

    /// A batch for an environment that the token does not stand for.
    fn refused(&self, window: usize) -> Recipe {
        Recipe {
            id: BatchId::Sequenced { agent_id: Uuid::new_v4(), epoch: Uuid::now_v7(), seq: 1 },
            environment: ELSEWHERE.to_owned(),
            revises: false,
            ..self.recipe(window, Role::Parked)
        }
    }

    async fn send(&self, recipe: Arc<Recipe>, role: Role, encoder: &mut Encoder) {
        let frame = encoder.encode(&recipe.batch()).expect("a made-up batch is valid");
        if role != Role::Parked {
            self.to_api(&recipe, &frame).await;
        }
        if role != Role::Plain {
            self.to_s3(&recipe, &frame).await;
        }
    }

    async fn to_api(&self, recipe: &Arc<Recipe>, frame: &Bytes) {
        for attempt in 0_usize.. {
            self.ledger.attempt(recipe, Way::Http).await;
            let api = self.options.api.get((self.host + attempt) % self.options.api.len());
            let answer = timeout(REQUEST_DEADLINE, self.post(api, frame.clone())).await;
            match answer.ok().flatten() {
                Some(answer) if answer.accepted == 1 => {
                    return self.ledger.answered(&recipe.id, Fate::Ok).await;
                }
                Some(answer) if !answer.rejected.is_empty() => {
                    return self.ledger.answered(&recipe.id, Fate::Fail).await;
                }
                _ => {}
            }
            if self.is_given_up() {
                return;
            }
            tokio::time::sleep(RETRY_PAUSE).await;
        }
    }

    async fn to_s3(&self, recipe: &Arc<Recipe>, frame: &Bytes) {
        let Some(s3) = &self.s3 else { return };
        loop {
            self.ledger.attempt(recipe, Way::S3).await;
            if s3.park(std::slice::from_ref(frame)).await.is_ok() {
                return self.ledger.answered(&recipe.id, Fate::Ok).await;
            }
            if self.is_given_up() {
                return;
            }
            tokio::time::sleep(RETRY_PAUSE).await;
        }
    }

    fn is_given_up(&self) -> bool {
        self.deadline.borrow().is_some_and(|at| Instant::now() > at)
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
