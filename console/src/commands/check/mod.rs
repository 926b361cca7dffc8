//! `spillway check`: is everything there, and does a batch come through both ways?
//!
//! Stages stand in the order a batch takes. A stage that fails is named and does not hide the
//! others; the canary is sent over HTTP and over S3, and must be readable in MySQL in time.

pub mod preflight;
pub mod canary;

pub use canary::HOST as CANARY_HOST;

use std::time::Instant;

use serde_json::Value as Json;

use crate::answer::{Answer, Verdict};
use crate::cli::Check;
use crate::desk::Desk;
use crate::failure::Failure;

/// What the stages found so far.
#[derive(Debug, Default)]
pub struct Stages {
    rows: Vec<Vec<Json>>,
    failed: Vec<String>,
}

impl Stages {
    /// Runs one stage; its value goes on if it succeeded.
    pub async fn stage<T>(
        &mut self,
        name: &str,
        work: impl Future<Output = Result<(T, String), Failure>>,
    ) -> Option<T> {
        let began = Instant::now();
        let result = work.await;
        let took_ms = began.elapsed().as_millis() as u64;
        let (state, detail, value) = match result {
            Ok((value, detail)) => ("ok", detail, Some(value)),
            Err(failure) => {
                self.failed.push(name.to_owned());
                ("failed", failure.sentence(), None)
            }
        };
        self.rows.push(vec![name.into(), state.into(), took_ms.into(), detail.into()]);
        value
    }

    fn skipped(&mut self, name: &str, why: &str) {
        self.rows.push(vec![name.into(), "skipped".into(), Json::Null, why.into()]);
    }

    fn into_answer(self) -> Answer {
        let mut answer = Answer::default();
        if let Some(first) = self.failed.first() {
            answer.worsen(Verdict::Critical).note(format!("failing stage: {first}"));
        }
        answer.fact("failed", self.failed);
        answer.section("stages", &["stage", "state", "took_ms", "detail"]).rows = self.rows;
        answer
    }
}

/// Looks at everything, then sends the canary.
pub async fn run(desk: &Desk, options: &Check) -> Result<Answer, Failure> {
    let mut stages = Stages::default();
    let token = stages.stage("tokens", preflight::token(desk)).await;
    let map = stages.stage("shards", preflight::shards(desk)).await;
    let Some(map) = map else { return Ok(stages.into_answer()) };
    let kafka = stages.stage("kafka", preflight::kafka(desk, &map)).await;
    for shard in &map.shards {
        let stage = format!("mysql {}", shard.name);
        stages.stage(&stage, preflight::shard(desk, &map, shard, kafka.as_ref())).await;
    }
    stages.stage("s3", preflight::s3(desk)).await;
    for endpoint in &desk.settings.api.endpoints {
        let stage = format!("api {}", crate::reach::http::host_of(endpoint));
        stages.stage(&stage, preflight::api(desk, endpoint)).await;
    }
    stages.stage("consumer", preflight::consumer(desk, &map)).await;
    match token {
        _ if options.no_canary => stages.skipped("canary", "--no-canary"),
        None => stages.skipped("canary", "there is no good [api] token to send it with"),
        Some(token) => canary::send_both(desk, &map, &token, options, &mut stages).await,
    }
    Ok(stages.into_answer())
}
