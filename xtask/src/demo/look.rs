//! One look at the whole pipeline: the agents' own metrics, and the views as an operator who sees
//! all environments reads them. What can't be had at the moment is `None`, never a guess.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use spillway_testkit::{Stack, StackError};
use sqlx::mysql::{MySqlConnectOptions, MySqlRow};
use sqlx::{ConnectOptions as _, Connection as _, Row as _};

/// One shard's answers; slower than this counts as no answer.
const SQL_DEADLINE: Duration = Duration::from_secs(3);

pub const LEDGER_SQL: &str = "SELECT environment, \
    CAST(SUM(applied_batches) AS SIGNED), CAST(SUM(applied_points) AS SIGNED), \
    CAST(SUM(duplicate_batches) AS SIGNED), CAST(SUM(missing_batches) AS SIGNED), \
    CAST(SUM(declared_batches) AS SIGNED), CAST(SUM(quarantined_batches) AS SIGNED), \
    CAST(SUM(closed = 0) AS SIGNED) FROM ledger_totals GROUP BY environment";
pub const GAPS_SQL: &str = "SELECT environment, COUNT(*) FROM gaps GROUP BY environment";
pub const FRESHNESS_SQL: &str =
    "SELECT environment, CAST(MAX(age_s) AS SIGNED) FROM freshness GROUP BY environment";
pub const LAG_SQL: &str = "SELECT CAST(COALESCE(SUM(lag_records), 0) AS SIGNED), \
    CAST(COALESCE(MAX(lag_s), 0) AS DOUBLE), \
    CAST(COALESCE(TIMESTAMPDIFF(SECOND, MIN(measured_at), UTC_TIMESTAMP(3)), 999999) AS SIGNED) \
    FROM consumer_lag";

/// An agent's own account. The last one known stays when the agent is gone.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct AgentAccount {
    pub environment: String,
    pub points_emitted: u64,
    pub points_acked: u64,
    pub points_parked: u64,
    pub spool_batches: u64,
    pub batches_emitted: u64,
    /// 0 direct, 1 park, 2 probe.
    pub route: u64,
}

/// What the ledger says of one environment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LedgerAccount {
    pub batches: i64,
    pub points: i64,
    pub duplicates: i64,
    pub missing: i64,
    pub declared: i64,
    pub quarantined: i64,
    pub open_epochs: i64,
}

/// What the consumers have not applied yet, by the keeper's measurement.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct LagAccount {
    pub records: i64,
    pub seconds: f64,
    /// Age of the oldest measurement it is made of.
    pub measured_ago_s: i64,
}

/// The views of all shards together.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Views {
    pub ledger: BTreeMap<String, LedgerAccount>,
    pub gaps: BTreeMap<String, i64>,
    pub freshness: BTreeMap<String, i64>,
    pub lag: LagAccount,
}

#[derive(Debug, Clone, Default)]
pub struct Look {
    pub agents: BTreeMap<String, AgentAccount>,
    /// `None` when a shard did not answer.
    pub views: Option<Views>,
    /// Why not.
    pub trouble: Option<String>,
    pub objects_in_s3: usize,
}

impl Look {
    /// Points of an environment that can be read in MySQL.
    pub fn applied(&self, environment: &str) -> Option<i64> {
        let views = self.views.as_ref()?;
        Some(views.ledger.get(environment).map_or(0, |ledger| ledger.points))
    }
}

pub struct Looker<'a> {
    stack: &'a Stack,
    shards: Vec<MySqlConnectOptions>,
    last: Mutex<BTreeMap<String, AgentAccount>>,
}

impl<'a> Looker<'a> {
    pub fn new(stack: &'a Stack) -> Result<Self, StackError> {
        let mut shards = Vec::new();
        for url in stack.seeds().all_readers.values() {
            let options: Result<MySqlConnectOptions, _> = url.parse();
            shards.push(options.map_err(StackError::sql("a reader's address"))?);
        }
        Ok(Self { stack, shards, last: Mutex::default() })
    }

    pub async fn look(&self) -> Look {
        let mut agents = self.last.lock().map(|last| last.clone()).unwrap_or_default();
        for name in self.stack.process_names() {
            if let Some(account) = self.agent(&name).await {
                agents.insert(name, account);
            }
        }
        if let Ok(mut last) = self.last.lock() {
            last.clone_from(&agents);
        }
        let objects_in_s3 = self.stack.parked_objects();
        let (views, trouble) = match self.views().await {
            Ok(views) => (Some(views), None),
            Err(error) => (None, Some(error.to_string())),
        };
        Look { agents, views, trouble, objects_in_s3 }
    }

    async fn agent(&self, name: &str) -> Option<AgentAccount> {
        let environment = environment_of(name)?;
        let metrics = self.stack.metrics(name).await.ok()?;
        let count = |metric: &str| metrics.sum(&format!("spillway_agent_{metric}")) as u64;
        Some(AgentAccount {
            environment: environment.to_owned(),
            points_emitted: count("points_emitted_total"),
            points_acked: count("points_acked_total"),
            points_parked: count("points_parked_total"),
            spool_batches: count("spool_batches"),
            batches_emitted: count("batches_emitted_total"),
            route: count("route"),
        })
    }

    /// The views of all shards, summed.
    pub async fn views(&self) -> Result<Views, sqlx::Error> {
        let mut all = Views::default();
        for shard in &self.shards {
            let read = tokio::time::timeout(SQL_DEADLINE, read(shard, &mut all)).await;
            read.unwrap_or(Err(sqlx::Error::PoolTimedOut))?;
        }
        Ok(all)
    }
}

/// Whose agent a process is; `None` for what is no agent.
fn environment_of(process: &str) -> Option<&'static str> {
    if process == "agent" {
        return Some("demo");
    }
    super::OTHERS
        .iter()
        .find(|(name, _, _)| *name == process)
        .map(|(_, environment, _)| *environment)
}

async fn read(shard: &MySqlConnectOptions, all: &mut Views) -> Result<(), sqlx::Error> {
    let mut mysql = shard.connect().await?;
    for row in sqlx::query(LEDGER_SQL).fetch_all(&mut mysql).await? {
        let to = all.ledger.entry(name(&row)?).or_default();
        to.batches += number(&row, 1)?;
        to.points += number(&row, 2)?;
        to.duplicates += number(&row, 3)?;
        to.missing += number(&row, 4)?;
        to.declared += number(&row, 5)?;
        to.quarantined += number(&row, 6)?;
        to.open_epochs += number(&row, 7)?;
    }
    for row in sqlx::query(GAPS_SQL).fetch_all(&mut mysql).await? {
        *all.gaps.entry(name(&row)?).or_default() += number(&row, 1)?;
    }
    for row in sqlx::query(FRESHNESS_SQL).fetch_all(&mut mysql).await? {
        // None of its points is stored yet.
        let Some(age) = row.try_get::<Option<i64>, _>(1)? else { continue };
        let worst = all.freshness.entry(name(&row)?).or_insert(age);
        *worst = age.max(*worst);
    }
    let row = sqlx::query(LAG_SQL).fetch_one(&mut mysql).await?;
    all.lag.records += number(&row, 0)?;
    all.lag.seconds = all.lag.seconds.max(row.try_get(1)?);
    all.lag.measured_ago_s = all.lag.measured_ago_s.max(number(&row, 2)?);
    mysql.close().await
}

fn number(row: &MySqlRow, column: usize) -> Result<i64, sqlx::Error> {
    row.try_get::<Option<i64>, _>(column).map(Option::unwrap_or_default)
}

/// A name in a binary collation, which sqlx takes for bytes.
fn name(row: &MySqlRow) -> Result<String, sqlx::Error> {
    row.try_get_unchecked(0)
}
