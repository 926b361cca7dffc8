//! One shard, through the views that dashboards read.

use std::time::Instant;

use spillway_runtime::mysql::text;
use spillway_runtime::program::chain;
use spillway_runtime::shards::Shard;
use sqlx::Row;
use sqlx::mysql::MySqlRow;

use crate::commands::check::CANARY_HOST;
use crate::reach::mysql::{MysqlFault, Server};
use crate::settings::ConsoleSettings;
use crate::status::snapshot::{EnvironmentState, GAP_BATCHES, ShardState};

/// What a shard told, or why it did not.
#[derive(Debug)]
pub struct ShardLook {
    pub state: ShardState,
    pub environments: Vec<EnvironmentState>,
    pub trouble: Option<String>,
}

pub async fn look(settings: &ConsoleSettings, shard: &Shard) -> ShardLook {
    match ask(settings, shard).await {
        Ok((state, environments)) => ShardLook { state, environments, trouble: None },
        Err(fault) => {
            let state = ShardState { shard: shard.name.clone(), ..ShardState::default() };
            ShardLook { state, environments: Vec::new(), trouble: Some(chain(&fault)) }
        }
    }
}

async fn ask(
    settings: &ConsoleSettings,
    shard: &Shard,
) -> Result<(ShardState, Vec<EnvironmentState>), MysqlFault> {
    let mut server = Server::connect(settings, shard).await?;
    let began = Instant::now();
    let mut state = lag_of(&mut server).await?;
    state.answered_ms = Some(began.elapsed().as_secs_f64() * 1e3);
    let mut environments = freshness_of(&mut server).await?;
    count_gaps(&mut server, &mut environments).await?;
    if environments.iter().any(EnvironmentState::is_silent) {
        count_open_epochs(&mut server, &mut environments).await?;
    }
    Ok((state, environments))
}

async fn lag_of(server: &mut Server) -> Result<ShardState, MysqlFault> {
    let shard = server.shard.name.clone();
    server
        .ask(async |conn| {
            // Of a shard with a partition whose lag nobody can tell the sum is not known.
            let sql = "SELECT
                       CAST(IF(COUNT(lag_records) < COUNT(*), NULL, SUM(lag_records)) AS SIGNED),
                       IF(COUNT(lag_s) < COUNT(*), NULL, MAX(lag_s)),
                       CAST(TIMESTAMPDIFF(SECOND, MIN(measured_at), UTC_TIMESTAMP()) AS SIGNED)
                       FROM spillway.consumer_lag";
            let row = sqlx::query(sql).fetch_one(conn).await?;
            Ok(ShardState {
                shard,
                reachable: true,
                lag_records: row.try_get(0)?,
                lag_s: row.try_get(1)?,
                measured_s: row.try_get(2)?,
                answered_ms: None,
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
            let sql = format!(
                "SELECT environment, state, {GAP_BATCHES} FROM spillway.gaps
                 GROUP BY environment, state"
            );
            let rows = sqlx::query(&sql).fetch_all(conn).await?;
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

/// Of each agent its newest epoch counts: epochs are UUIDv7, so their text is in the order of time.
/// Senders that do not number have one of zeros, and never say that they end.
const OPEN_EPOCHS_SQL: &str = "SELECT environment, CAST(SUM(newest LIKE '%0') AS SIGNED)
    FROM (SELECT environment, MAX(CONCAT(epoch, ' ', closed)) AS newest
          FROM spillway.ledger_totals WHERE host <> ? GROUP BY environment, agent_id) agents
    GROUP BY environment";

/// Whether a silent environment has ended. One that the ledger forgot sends no more.
async fn count_open_epochs(
    server: &mut Server,
    environments: &mut [EnvironmentState],
) -> Result<(), MysqlFault> {
    let counts: Vec<(String, i64)> = server
        .ask(async |conn| {
            let rows = sqlx::query(OPEN_EPOCHS_SQL).bind(CANARY_HOST).fetch_all(conn).await?;
            rows.iter().map(|row| Ok((text(row, 0)?, row.try_get(1)?))).collect()
        })
        .await?;
    for known in environments.iter_mut() {
        let count = counts.iter().find(|(environment, _)| *environment == known.environment);
        known.open_epochs = Some(count.map_or(0, |(_, count)| *count));
    }
    Ok(())
}
