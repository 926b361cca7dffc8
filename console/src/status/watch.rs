//! What only this side can measure, as metrics of `status serve`, for alerts: gaps as dashboards
//! see them, replicas, copies of Kafka's partitions, tokens that run out.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use spillway_runtime::shards::{Replica, Shard, ShardMap};
use spillway_runtime::tokens::Tokens;
use sqlx::mysql::MySqlRow;
use sqlx::{Column, Row};

use super::snapshot::Snapshot;
use crate::reach::kafka::Kafka;
use crate::reach::mysql::{MysqlFault, Server};
use crate::settings::ConsoleSettings;

/// Replicas, copies and tokens change slowly, and asking costs connections.
const LOOK_EVERY: Duration = Duration::from_secs(30);

type Seconds = Gauge<f64, AtomicU64>;

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct OfState {
    state: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct OfShard {
    shard: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct OfReplica {
    shard: String,
    replica: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct OfToken {
    id: String,
}

/// Handles on all metrics; clones share them.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    gaps: Family<OfState, Gauge>,
    newest_data: Seconds,
    shard_reachable: Family<OfShard, Gauge>,
    replica_lag: Family<OfReplica, Seconds>,
    replica_running: Family<OfReplica, Gauge>,
    short_of_copies: Gauge,
    token_expiry: Family<OfToken, Gauge>,
}

impl Metrics {
    pub fn register(r: &mut Registry) -> Self {
        let metrics = Self::default();
        r.register(
            "gaps",
            "Batches in gaps by state, all environments; a tail without an end counts as one",
            metrics.gaps.clone(),
        );
        r.register(
            "newest_data_seconds",
            "Age of the newest data of the environment that has the oldest and has not ended",
            metrics.newest_data.clone(),
        );
        r.register(
            "shard_reachable",
            "1 if the shard answers through its views",
            metrics.shard_reachable.clone(),
        );
        r.register(
            "replica_lag_seconds",
            "How far a replica is behind its primary",
            metrics.replica_lag.clone(),
        );
        r.register(
            "replica_running",
            "1 if a replica answers and both its threads run",
            metrics.replica_running.clone(),
        );
        r.register(
            "kafka_partitions_short_of_copies",
            "Partitions of our topics with fewer copies in sync than copies",
            metrics.short_of_copies.clone(),
        );
        r.register(
            "token_expiry_timestamp_seconds",
            "When a token in force expires",
            metrics.token_expiry.clone(),
        );
        metrics
    }

    /// What every look tells. Of a shard that can't be asked nothing is known, so gaps stay.
    pub fn note(&self, snapshot: &Snapshot) {
        for shard in &snapshot.shards {
            let label = OfShard { shard: shard.shard.clone() };
            self.shard_reachable.get_or_create(&label).set(i64::from(shard.reachable));
        }
        if snapshot.shards.iter().any(|shard| !shard.reachable) {
            return;
        }
        let mut sums = [0; 5];
        for e in &snapshot.environments {
            let counts = [e.late, e.unknown_tail, e.quarantined, e.declared, e.lost];
            sums.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count);
        }
        let states = ["late", "unknown_tail", "quarantined", "declared", "lost"];
        for (state, sum) in states.into_iter().zip(sums) {
            self.gaps.get_or_create(&OfState { state }).set(sum);
        }
        let goes_on = snapshot.environments.iter().filter(|e| !e.has_ended());
        let newest = goes_on.filter_map(|e| e.freshest_s).max();
        self.newest_data.set(newest.unwrap_or(0) as f64);
    }

    fn note_tokens(&self, tokens: &Tokens) {
        self.token_expiry.clear();
        for token in tokens.iter().filter(|token| token.revoked.is_none()) {
            if let Some(expires) = token.expires {
                let label = OfToken { id: token.id.clone() };
                self.token_expiry.get_or_create(&label).set(expires.as_second());
            }
        }
    }
}

/// Looks at what changes slowly, for ever.
pub async fn run(settings: Arc<ConsoleSettings>, metrics: Metrics) {
    loop {
        if let Ok(tokens) = Tokens::load(&settings.tokens_file) {
            metrics.note_tokens(&tokens);
        }
        if let Ok(map) = ShardMap::load(&settings.shards_file) {
            for shard in &map.shards {
                for replica in &shard.replicas {
                    look_at(&settings, &metrics, shard, replica).await;
                }
            }
        }
        match short_of_copies(&settings).await {
            Ok(short) => {
                metrics.short_of_copies.set(i64::try_from(short).unwrap_or(i64::MAX));
            }
            Err(error) => tracing::debug!(error, "copies of Kafka's partitions can't be counted"),
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

async fn short_of_copies(settings: &ConsoleSettings) -> Result<usize, String> {
    let kafka = Kafka::new(&settings.kafka, settings.remote_deadline.get());
    let kafka = kafka.map_err(|error| error.to_string())?;
    kafka.short_of_copies().await.map_err(|error| error.to_string())
}

async fn look_at(settings: &ConsoleSettings, metrics: &Metrics, shard: &Shard, replica: &Replica) {
    let address = format!("{}:{}", replica.url.host, replica.url.port);
    let label = OfReplica { shard: shard.name.clone(), replica: address };
    let state = replication(settings, shard, replica).await;
    let running = match &state {
        Ok(state) => state.running,
        Err(error) => {
            tracing::debug!(%error, "a replica can't be asked");
            false
        }
    };
    metrics.replica_running.get_or_create(&label).set(i64::from(running));
    if let Some(behind) = state.ok().and_then(|state| state.behind_s) {
        metrics.replica_lag.get_or_create(&label).set(behind as f64);
    }
}

/// What `SHOW REPLICA STATUS` says.
#[derive(Debug, Default)]
struct Replication {
    running: bool,
    behind_s: Option<u64>,
}

async fn replication(
    settings: &ConsoleSettings,
    shard: &Shard,
    replica: &Replica,
) -> Result<Replication, MysqlFault> {
    let server = Shard {
        primary: replica.url.clone(),
        primary_password_file: shard.primary_password_file.clone(),
        ..shard.clone()
    };
    let mut server = Server::connect(settings, &server).await?;
    let row = server
        .ask(async |conn| sqlx::query("SHOW REPLICA STATUS").fetch_optional(conn).await)
        .await?;
    Ok(row.map(|row| replication_of(&row)).unwrap_or_default())
}

/// MySQL says Replica and Source, MariaDB Slave and Master.
fn replication_of(row: &MySqlRow) -> Replication {
    let at = |names: [&str; 2]| {
        let mut columns = row.columns().iter();
        columns.find(|c| names.contains(&c.name())).map(Column::ordinal)
    };
    let yes = |names| {
        let text = at(names).and_then(|i| spillway_runtime::mysql::text(row, i).ok());
        text.as_deref() == Some("Yes")
    };
    let behind = at(["Seconds_Behind_Source", "Seconds_Behind_Master"]);
    Replication {
        running: yes(["Replica_IO_Running", "Slave_IO_Running"])
            && yes(["Replica_SQL_Running", "Slave_SQL_Running"]),
        behind_s: behind.and_then(|i| row.try_get_unchecked::<Option<u64>, _>(i).ok()).flatten(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::snapshot::{EnvironmentState, ShardState};

    #[test]
    fn gaps_are_told_to_be_batches() {
        let mut registry = Registry::default();
        Metrics::register(&mut registry).note(&Snapshot::default());
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        let help = text.lines().find(|line| line.starts_with("# HELP gaps ")).unwrap();
        assert!(help.contains("Batches") && help.contains("counts as one"), "{help}");
    }

    #[test]
    fn gaps_are_summed_and_a_shard_that_is_silent_does_not_make_them_vanish() {
        let metrics = Metrics::default();
        let lost = EnvironmentState { lost: 3, freshest_s: Some(9), ..EnvironmentState::default() };
        let shard = |reachable| ShardState { reachable, ..ShardState::default() };
        let well =
            Snapshot { environments: vec![lost], shards: vec![shard(true)], ..Snapshot::default() };
        metrics.note(&well);
        metrics.note(&Snapshot { shards: vec![shard(false)], ..Snapshot::default() });
        let lost = OfState { state: "lost" };
        assert_eq!(metrics.gaps.get_or_create(&lost).get(), 3);
        assert_eq!(metrics.newest_data.get(), 9.0);
        let label = OfShard { shard: String::new() };
        assert_eq!(metrics.shard_reachable.get_or_create(&label).get(), 0);
    }
}
