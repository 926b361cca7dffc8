//! What the drills of the sending side share: a sender that looks closely at every answer, what
//! really lies in Kafka, and faults of system calls and disks.

pub mod disk;
pub mod log;
pub mod seal;
pub mod strace;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use spillway_e2e::ledger::Way;
use spillway_e2e::recipe::Recipe;
use spillway_e2e::rig::Rig;
use spillway_e2e::{Fate, Ledger, SenderOptions};
use spillway_proto::frame::Encoder;
use tokio::time::{Instant, timeout};
use uuid::Uuid;

/// What the least patient sender waits for an answer (Telegraf's default); ours comes within 3 s.
pub const SENDERS_PATIENCE: Duration = Duration::from_secs(5);
/// After the fault is healed, a batch must have been accepted within this.
pub const HEALED_WITHIN: Duration = Duration::from_secs(90);
/// Between two looks at something that takes its time.
pub const LOOK_EVERY: Duration = Duration::from_millis(100);

/// One answer of ingest-api, as a sender sees it.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub retry_after_s: Option<u32>,
    pub closes: bool,
    pub body: serde_json::Value,
}

impl Answer {
    pub fn accepted(&self) -> bool {
        self.status == 200 && self.body.get("accepted").is_some_and(|count| count == 1)
    }

    /// "Not now", in the only form that every sender retries.
    pub fn must_be_later(&self) {
        assert_eq!(self.status, 503, "{self:?}");
        assert!(self.retry_after_s.is_some_and(|s| (1..=600).contains(&s)), "{self:?}");
        assert!(self.closes, "{self:?}");
    }
}

/// One agent's credentials at one API server.
#[derive(Clone)]
pub struct Door {
    client: Client<HttpConnector, Full<Bytes>>,
    url: String,
    token: String,
}

impl Door {
    pub fn new(url: &str, token: &str) -> Self {
        let client = Client::builder(TokioExecutor::new()).build_http();
        Self { client, url: url.to_owned(), token: token.to_owned() }
    }

    /// The stack's first API server, with an environment's token.
    pub fn of(rig: &Rig, environment: &str) -> Self {
        let file = rig.stack.file();
        let token = file.tokens.get(environment).expect("the environment has a token");
        Self::new(file.api.first().expect("an API server"), token)
    }

    /// One attempt; panics when no answer comes within [`SENDERS_PATIENCE`].
    pub async fn post(&self, body: &Bytes) -> Answer {
        let answer = timeout(SENDERS_PATIENCE, self.try_post(body, 0)).await;
        answer.expect("an answer comes before senders lose patience").expect("an answer comes")
    }

    /// One attempt, the `attempt`th of its sender; `None` when the connection ends without an
    /// answer.
    pub async fn try_post(&self, body: &Bytes, attempt: u32) -> Option<Answer> {
        let request = http::Request::post(format!("{}/v1/batches", self.url))
            .header("authorization", format!("Bearer {}", self.token))
            .header("spillway-attempt", attempt)
            .body(Full::new(body.clone()))
            .expect("a request");
        let answer = self.client.request(request).await.ok()?;
        let status = answer.status().as_u16();
        let text = |name: &str| answer.headers().get(name)?.to_str().ok().map(str::to_owned);
        let retry_after_s = text("retry-after").and_then(|text| text.parse().ok());
        let closes = text("connection").is_some_and(|value| value == "close");
        let body = answer.into_body().collect().await.ok()?.to_bytes();
        let body = serde_json::from_slice(&body).unwrap_or_default();
        Some(Answer { status, retry_after_s, closes, body })
    }

    /// Comes again until the batch is accepted.
    pub async fn post_until_accepted(&self, body: &Bytes) {
        let until = Instant::now() + HEALED_WITHIN;
        let mut last = None;
        while Instant::now() < until {
            last = timeout(SENDERS_PATIENCE, self.try_post(body, 0)).await.ok().flatten();
            if last.as_ref().is_some_and(Answer::accepted) {
                return;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        panic!("not accepted within {HEALED_WITHIN:?}: {last:?}");
    }
}

/// One host whose batches a drill sends by hand, and the ledger's view of them.
pub struct Host {
    pub options: SenderOptions,
    pub ledger: Ledger,
    agent_id: Uuid,
    epoch: Uuid,
}

/// A batch with its bytes.
#[derive(Clone)]
pub struct Sent {
    pub recipe: Arc<Recipe>,
    pub frame: Bytes,
}

impl Host {
    /// `windows` batches of a host of its own; the last one closes the epoch.
    pub fn new(rig: &Rig, environment: &str, name: &str, windows: usize) -> Self {
        let load = rig.load(environment);
        let options = SenderOptions { hosts: 1, windows, name: name.to_owned(), ..load };
        let (agent_id, epoch) = (Uuid::new_v4(), Uuid::now_v7());
        Self { options, ledger: Ledger::default(), agent_id, epoch }
    }

    /// The host's name.
    pub fn name(&self) -> String {
        self.options.host(0)
    }

    /// Batch number `window`, from 0.
    pub fn batch(&self, window: usize) -> Sent {
        let recipe = Arc::new(self.options.recipe(0, window, (self.agent_id, self.epoch)));
        let frame = Encoder::new().encode(&recipe.batch()).expect("a made-up batch is valid");
        Sent { recipe, frame }
    }

    /// Sends one batch once and notes what was answered.
    pub async fn post(&self, door: &Door, sent: &Sent) -> Answer {
        self.ledger.attempt(&sent.recipe, Way::Http).await;
        let answer = door.post(&sent.frame).await;
        if answer.accepted() {
            self.ledger.answered(&sent.recipe.id, Fate::Ok).await;
        }
        answer
    }

    /// Sends one batch until it is accepted.
    pub async fn deliver(&self, door: &Door, sent: &Sent) {
        self.ledger.attempt(&sent.recipe, Way::Http).await;
        door.post_until_accepted(&sent.frame).await;
        self.ledger.answered(&sent.recipe.id, Fate::Ok).await;
    }

    /// Holds MySQL against what was accepted.
    pub async fn judge(&self, rig: &Rig) {
        rig.judge_sent(&self.ledger, &self.options).await;
    }
}

/// Waits for a condition; panics with `what` when it does not come true in time.
pub async fn until(what: &str, within: Duration, holds: impl AsyncFn() -> bool) {
    let deadline = Instant::now() + within;
    while !holds().await {
        assert!(Instant::now() < deadline, "{what}: not within {within:?}");
        tokio::time::sleep(LOOK_EVERY).await;
    }
}
