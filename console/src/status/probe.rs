//! What `status serve` tries from time to time, as metrics for alerts: `spillway check` with its
//! canary through both ways; the room on Kafka's and MySQL's disks; and the maintenance lock, by
//! which Alertmanager keeps still.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use serde_json::Value as Json;
use spillway_runtime::settings::Dur;
use spillway_runtime::shards::{Shard, ShardMap};

use crate::answer::Answer;
use crate::cli::{Check, Options, Output};
use crate::commands::{check, maintenance};
use crate::desk::Desk;
use crate::failure::Failure;
use crate::reach::kafka::wire;
use crate::reach::mysql::{MysqlFault, Server};
use crate::settings::ConsoleSettings;

/// Disks fill up over hours; an operator who takes the lock wants silence soon.
const LOOK_EVERY: Duration = Duration::from_secs(30);
/// How long the canary may take, on each way.
const CANARY_WITHIN: Dur = Dur::from_secs(60);

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct OfStage {
    stage: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct OfShard {
    shard: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct OfDisk {
    broker: String,
    path: String,
}

/// Handles on all metrics; clones share them.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    stage_ok: Family<OfStage, Gauge>,
    stage_seconds: Family<OfStage, Gauge<f64, AtomicU64>>,
    ended: Gauge,
    kafka_total: Family<OfDisk, Gauge>,
    kafka_usable: Family<OfDisk, Gauge>,
    kafka_logs: Family<OfDisk, Gauge>,
    mysql_data: Family<OfShard, Gauge>,
    mysql_disk: Family<OfShard, Gauge>,
    maintenance_until: Gauge,
}

impl Metrics {
    pub fn register(r: &mut Registry) -> Self {
        let own = Self::default();
        r.register(
            "check_stage_ok",
            "1 if this stage of `spillway check` was well when it was last tried",
            own.stage_ok.clone(),
        );
        r.register(
            "check_stage_seconds",
            "How long this stage took when it was last tried",
            own.stage_seconds.clone(),
        );
        r.register(
            "check_ended_timestamp_seconds",
            "When the last check ended, whatever it found; 0 before the first",
            own.ended.clone(),
        );
        r.register(
            "kafka_disk_bytes",
            "Size of the file system under a broker's log directory",
            own.kafka_total.clone(),
        );
        r.register(
            "kafka_disk_usable_bytes",
            "What is left of the file system under a broker's log directory",
            own.kafka_usable.clone(),
        );
        r.register(
            "kafka_log_bytes",
            "What the logs in a broker's log directory take",
            own.kafka_logs.clone(),
        );
        r.register(
            "mysql_data_bytes",
            "What our tables take on a shard, as its statistics tell",
            own.mysql_data.clone(),
        );
        r.register(
            "mysql_disk_bytes",
            "Size of the disk under a shard, as status.mysql_disk says; 0 if it does not",
            own.mysql_disk.clone(),
        );
        r.register(
            "maintenance_until_timestamp_seconds",
            "When the operator's maintenance lock ends by itself; 0 if nobody holds it",
            own.maintenance_until.clone(),
        );
        own
    }

    fn note_check(&self, answer: &Answer, with_token: bool) {
        let page = answer.to_json();
        let stages = page.get("stages").and_then(Json::as_array);
        // Shards and endpoints come and go.
        self.stage_ok.clear();
        self.stage_seconds.clear();
        for row in stages.into_iter().flatten() {
            let word = |name: &str| row.get(name).and_then(Json::as_str).unwrap_or_default();
            let (stage, state) = (word("stage").to_owned(), word("state"));
            // A site that gives us no token wants no canary; that is no fault.
            if state == "skipped" || (stage == "tokens" && !with_token) {
                continue;
            }
            let label = OfStage { stage };
            self.stage_ok.get_or_create(&label).set(i64::from(state == "ok"));
            if let Some(ms) = row.get("took_ms").and_then(Json::as_f64) {
                self.stage_seconds.get_or_create(&label).set(ms / 1_000.0);
            }
        }
        self.ended.set(jiff::Timestamp::now().as_second());
    }
}

/// Tries and looks, for ever.
pub async fn run(settings: Arc<ConsoleSettings>, metrics: Metrics) {
    let options = Options { output: Output::Json, ..Options::default() };
    let desk = Desk { settings: (*settings).clone(), options };
    tokio::join!(check_again_and_again(&desk, &metrics), look_again_and_again(&desk, &metrics));
}

async fn check_again_and_again(desk: &Desk, metrics: &Metrics) {
    let every = desk.settings.status.check_every;
    if every.is_zero() {
        return;
    }
    let api = &desk.settings.api;
    let with_token = api.token.is_set() || api.token_file.is_some();
    let options = Check { within: CANARY_WITHIN, no_canary: !with_token };
    loop {
        tokio::time::sleep(every.get()).await;
        match check::run(desk, &options).await {
            Ok(answer) => metrics.note_check(&answer, with_token),
            Err(failure) => tracing::warn!(error = failure.sentence(), "the check did not end"),
        }
    }
}

async fn look_again_and_again(desk: &Desk, metrics: &Metrics) {
    loop {
        let holder = maintenance::holder(desk).await.ok().flatten();
        metrics.maintenance_until.set(holder.map_or(0, |lock| lock.until.as_second()));
        if let Err(failure) = kafka(desk, metrics).await {
            tracing::debug!(error = failure.sentence(), "Kafka's disks are not known");
        }
        if let Ok(map) = ShardMap::load(&desk.settings.shards_file) {
            for shard in &map.shards {
                mysql(desk, shard, metrics).await;
            }
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

async fn kafka(desk: &Desk, metrics: &Metrics) -> Result<(), Failure> {
    let deadline = desk.settings.remote_deadline.get();
    for (_, broker) in desk.kafka()?.layout().await?.brokers {
        for dir in wire::log_dirs(&desk.settings.kafka, &broker, deadline).await? {
            let label = OfDisk { broker: broker.clone(), path: dir.path };
            metrics.kafka_logs.get_or_create(&label).set(dir.log_bytes);
            if let (Some(total), Some(usable)) = (dir.total_bytes, dir.usable_bytes) {
                metrics.kafka_total.get_or_create(&label).set(total);
                metrics.kafka_usable.get_or_create(&label).set(usable);
            }
        }
    }
    Ok(())
}

async fn mysql(desk: &Desk, shard: &Shard, metrics: &Metrics) {
    let label = OfShard { shard: shard.name.clone() };
    let disk = desk.settings.status.mysql_disk.get();
    metrics.mysql_disk.get_or_create(&label).set(i64::try_from(disk).unwrap_or(i64::MAX));
    match data_bytes(&desk.settings, shard).await {
        Ok(bytes) => {
            metrics.mysql_data.get_or_create(&label).set(bytes);
        }
        Err(error) => tracing::debug!(%error, "the size of a shard's data is not known"),
    }
}

/// What our tables take, as the server's statistics tell.
pub async fn data_bytes(settings: &ConsoleSettings, shard: &Shard) -> Result<i64, MysqlFault> {
    let mut server = Server::connect(settings, shard).await?;
    server.see_sizes_now().await?;
    server
        .ask(async |conn| {
            let sql = "SELECT CAST(COALESCE(SUM(data_length + index_length), 0) AS SIGNED)
                       FROM information_schema.tables WHERE table_schema = 'spillway_store'";
            sqlx::query_scalar(sql).fetch_one(conn).await
        })
        .await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::answer::Verdict;

    #[test]
    fn each_stage_of_a_check_is_a_metric_and_what_is_skipped_is_none() {
        let mut answer = Answer::default();
        answer.worsen(Verdict::Critical);
        let section = answer.section("stages", &["stage", "state", "took_ms", "detail"]);
        for (stage, state) in [("tokens", "failed"), ("kafka", "ok"), ("s3", "failed")] {
            section.row([stage.into(), state.into(), 1_500.into(), "".into()]);
        }
        section.row(["canary".into(), "skipped".into(), Json::Null, "".into()]);
        let metrics = Metrics::default();
        metrics.note_check(&answer, false);
        let mut registry = Registry::default();
        registry.register("ok", "", metrics.stage_ok.clone());
        registry.register("seconds", "", metrics.stage_seconds.clone());
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        assert!(text.contains("ok{stage=\"kafka\"} 1") && text.contains("ok{stage=\"s3\"} 0"));
        assert!(text.contains("seconds{stage=\"s3\"} 1.5"), "{text}");
        assert!(!text.contains("tokens") && !text.contains("canary"), "{text}");
        assert!(metrics.ended.get() > 0);
    }
}
