//! Looking at everything at once: the programs' admin pages and each shard's views.

use std::collections::BTreeMap;
use std::time::Instant;

use spillway_runtime::mysql::text;
use spillway_runtime::program::chain;
use spillway_runtime::shards::{Shard, ShardMap};
use sqlx::Row;
use sqlx::mysql::MySqlRow;

use super::metrics_text;
use super::snapshot::{EnvironmentState, Hop, ProgramState, ShardState, Snapshot};
use crate::commands::check::CANARY_HOST;
use crate::failure::Failure;
use crate::reach::http::{Http, HttpFault, join};
use crate::reach::mysql::{MysqlFault, Server};
use crate::settings::{ConsoleSettings, ProgramSettings};

/// A leg of the way: its counter, and where its waiting things are counted.
struct Leg {
    name: &'static str,
    unit: &'static str,
    counter: &'static str,
    held: Option<&'static str>,
    oldest: Option<&'static str>,
}

const LEGS: [Leg; 5] = [
    Leg {
        name: "measured by agents",
        unit: "points",
        counter: "spillway_agent_points_emitted_total",
        held: Some("spillway_agent_spool_batches"),
        oldest: Some("spillway_agent_oldest_in_spool_seconds"),
    },
    Leg {
        name: "agent → API",
        unit: "points",
        counter: "spillway_agent_points_acked_total",
        held: None,
        oldest: None,
    },
    Leg {
        name: "API → Kafka",
        unit: "points",
        counter: "spillway_ingest_points_accepted_total",
        held: None,
        oldest: None,
    },
    Leg {
        name: "S3 → Kafka",
        unit: "batches",
        counter: "spillway_recovery_batches_drained_total",
        held: Some("spillway_recovery_objects_pending"),
        oldest: Some("spillway_recovery_oldest_object_seconds"),
    },
    Leg {
        name: "Kafka → MySQL",
        unit: "points",
        counter: "spillway_consumer_points_applied_total",
        held: None,
        oldest: None,
    },
];

type Sums = BTreeMap<String, f64>;

/// Keeps what rates are computed from.
#[derive(Debug)]
pub struct Gatherer {
    settings: ConsoleSettings,
    http: Http,
    before: Option<(Instant, BTreeMap<String, Sums>)>,
}

impl Gatherer {
    pub fn new(settings: &ConsoleSettings) -> Result<Self, HttpFault> {
        let http = Http::new(settings.remote_deadline.get())?;
        Ok(Self { settings: settings.clone(), http, before: None })
    }

    /// One look. What can't be asked is told in `troubles`, and hides nothing else.
    pub async fn look(&mut self) -> Snapshot {
        let mut snapshot =
            Snapshot { at_ms: jiff::Timestamp::now().as_millisecond(), ..Snapshot::default() };
        let mut now = BTreeMap::new();
        for program in &self.settings.status.programs {
            let (state, sums) = self.program(program).await;
            snapshot.programs.push(state);
            if let Some(sums) = sums {
                now.insert(program.name.clone(), sums);
            }
        }
        self.shards(&mut snapshot).await;
        snapshot.hops = self.hops(&now, &snapshot);
        self.before = Some((Instant::now(), now));
        snapshot
    }

    async fn program(&self, program: &ProgramSettings) -> (ProgramState, Option<Sums>) {
        let name = program.name.clone();
        let began = Instant::now();
        let ready = self.http.get(&join(&program.admin, "/readyz")).await;
        let Ok(ready) = ready else {
            return (ProgramState { name, state: "down", answered_ms: None }, None);
        };
        let answered_ms = Some(began.elapsed().as_secs_f64() * 1e3);
        let state = if ready.status.is_success() { "ready" } else { "not ready" };
        let metrics = self.http.get(&join(&program.admin, "/metrics")).await;
        let sums = metrics.ok().map(|page| metrics_text::sums(&page.text()));
        (ProgramState { name, state, answered_ms }, sums)
    }

    fn hops(&self, now: &BTreeMap<String, Sums>, snapshot: &Snapshot) -> Vec<Hop> {
        let total = |name: &str| sum_of(now.values(), name);
        let mut hops = Vec::new();
        for leg in &LEGS {
            hops.push(Hop {
                name: leg.name,
                unit: leg.unit,
                total: total(leg.counter),
                per_second: self.rate(now, leg.counter),
                held: leg.held.and_then(total),
                oldest_s: leg.oldest.and_then(|name| max_of(now.values(), name)),
            });
        }
        // What Kafka holds is known to the keeper, which measures it apart from the consumer.
        if let Some(last) = hops.last_mut() {
            let records = snapshot.shards.iter().filter_map(|shard| shard.lag_records);
            last.held = Some(records.sum::<i64>() as f64);
            last.oldest_s = snapshot.shards.iter().filter_map(|s| s.lag_s).reduce(f64::max);
        }
        hops
    }

    /// Per program, so that one that came or went is no jump; a counter that fell was restarted.
    fn rate(&self, now: &BTreeMap<String, Sums>, counter: &str) -> Option<f64> {
        let (then, before) = self.before.as_ref()?;
        let seconds = then.elapsed().as_secs_f64().max(0.001);
        let risen = now.iter().filter_map(|(program, sums)| {
            let (new, old) = (sums.get(counter)?, before.get(program)?.get(counter)?);
            Some(if new >= old { new - old } else { *new })
        });
        risen.reduce(|a, b| a + b).map(|risen| risen / seconds)
    }

    async fn shards(&self, snapshot: &mut Snapshot) {
        let map = match ShardMap::load(&self.settings.shards_file) {
            Ok(map) => map,
            Err(error) => {
                snapshot.troubles.push(error.to_string());
                return;
            }
        };
        for shard in &map.shards {
            match self.shard(shard).await {
                Ok((state, environments)) => {
                    snapshot.shards.push(state);
                    snapshot.environments.extend(environments);
                }
                Err(fault) => {
                    snapshot.troubles.push(chain(&fault));
                    snapshot.shards.push(ShardState {
                        shard: shard.name.clone(),
                        reachable: false,
                        lag_records: None,
                        lag_s: None,
                        measured_s: None,
                    });
                }
            }
        }
    }

    async fn shard(
        &self,
        shard: &Shard,
    ) -> Result<(ShardState, Vec<EnvironmentState>), MysqlFault> {
        let mut server = Server::connect(&self.settings, shard).await?;
        let state = lag_of(&mut server).await?;
        let mut environments = freshness_of(&mut server).await?;
        count_gaps(&mut server, &mut environments).await?;
        Ok((state, environments))
    }
}

fn sum_of<'a>(programs: impl Iterator<Item = &'a Sums>, name: &str) -> Option<f64> {
    programs.filter_map(|sums| sums.get(name).copied()).reduce(|a, b| a + b)
}

fn max_of<'a>(programs: impl Iterator<Item = &'a Sums>, name: &str) -> Option<f64> {
    programs.filter_map(|sums| sums.get(name).copied()).reduce(f64::max)
}

async fn lag_of(server: &mut Server) -> Result<ShardState, MysqlFault> {
    let shard = server.shard.name.clone();
    server
        .ask(async |conn| {
            let sql = "SELECT CAST(SUM(lag_records) AS SIGNED), MAX(lag_s),
                       CAST(TIMESTAMPDIFF(SECOND, MIN(measured_at), UTC_TIMESTAMP()) AS SIGNED)
                       FROM spillway.consumer_lag";
            let row = sqlx::query(sql).fetch_one(conn).await?;
            Ok(ShardState {
                shard,
                reachable: true,
                lag_records: row.try_get(0)?,
                lag_s: row.try_get(1)?,
                measured_s: row.try_get(2)?,
            })
        })
        .await
}

async fn freshness_of(server: &mut Server) -> Result<Vec<EnvironmentState>, MysqlFault> {
    let shard = server.shard.name.clone();
    server
        .ask(async |conn| {
            let sql = "SELECT environment, COUNT(*), CAST(MIN(age_s) AS SIGNED),
                       CAST(MAX(age_s) AS SIGNED),
                       CAST(COALESCE(SUM(backlog_batches), 0) AS SIGNED)
                       FROM spillway.freshness WHERE host <> ?
                       GROUP BY environment ORDER BY environment";
            let rows = sqlx::query(sql).bind(CANARY_HOST).fetch_all(conn).await?;
            let state = |row: &MySqlRow| {
                Ok(EnvironmentState {
                    environment: text(row, 0)?,
                    shard: shard.clone(),
                    hosts: row.try_get(1)?,
                    freshest_s: row.try_get(2)?,
                    stalest_s: row.try_get(3)?,
                    backlog_batches: row.try_get(4)?,
                    ..EnvironmentState::default()
                })
            };
            rows.iter().map(state).collect()
        })
        .await
}

async fn count_gaps(
    server: &mut Server,
    environments: &mut [EnvironmentState],
) -> Result<(), MysqlFault> {
    let counts: Vec<(String, String, i64)> = server
        .ask(async |conn| {
            let sql = "SELECT environment, state, COUNT(*) FROM spillway.gaps
                       GROUP BY environment, state";
            let rows = sqlx::query(sql).fetch_all(conn).await?;
            let row = |row: &MySqlRow| Ok((text(row, 0)?, text(row, 1)?, row.try_get(2)?));
            rows.iter().map(row).collect()
        })
        .await?;
    for (environment, state, count) in counts {
        let known = environments.iter_mut().find(|known| known.environment == environment);
        let Some(known) = known else { continue };
        match state.as_str() {
            "late" => known.late = count,
            "unknown_tail" => known.unknown_tail = count,
            "quarantined" => known.quarantined = count,
            "declared" => known.declared = count,
            _ => known.lost = count,
        }
    }
    Ok(())
}

/// The first look, for a page that is asked before the second.
pub async fn first(settings: &ConsoleSettings) -> Result<(Gatherer, Snapshot), Failure> {
    let mut gatherer = Gatherer::new(settings)?;
    let snapshot = gatherer.look().await;
    Ok((gatherer, snapshot))
}
