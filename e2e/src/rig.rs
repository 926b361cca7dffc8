//! What every scenario does alike: a stack, a load, and the verdict at the end.

use std::time::Duration;

use crate::rollups::rolled_up;
use crate::{Ledger, Sender, SenderOptions, compare, settled};
use spillway_testkit::metrics::Metrics;
use spillway_testkit::stack::{AgentOptions, Stack, StackOptions};
use sqlx::mysql::MySqlPoolOptions;
use sqlx::{MySqlPool, Row as _};
use tokio::time::Instant;

/// After the fault is healed, everything must have been accepted within this.
pub const ACCEPTED_WITHIN: Duration = Duration::from_secs(120);
/// …and be in MySQL within this.
pub const SETTLED_WITHIN: Duration = Duration::from_secs(120);
/// Between two looks at something that takes its time.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Settings with which an agent shows within seconds what takes minutes in production.
pub const HASTY_AGENT: &str = r#"
[collect]
interval = "1s"
spread = "0s"
[deliver]
request_timeout = "5s"
backlog_after = "12s"
park_after = "3s"
probe_interval = "1s"
probe_interval_max = "2s"
retry_min = "200ms"
retry_max = "1s"
"#;

/// A consumer that notices within seconds what takes half a minute in production.
pub const HASTY_CONSUMER: &str = r#"
[group]
session_timeout = "6s"
[store]
retry_pause_max = "500ms"
statement_timeout = "5s"
[mysql]
lock_wait_timeout = "2s"
"#;

/// A running stack.
pub struct Rig {
    pub stack: Stack,
}

impl Rig {
    pub async fn start(options: StackOptions) -> Self {
        // Recovery without its patience: the hold time and pauses are for production.
        let options = options.set("recovery-worker", HASTY_WORKER);
        // Making topics and readers is no part of any drill, and the machine may be busy.
        let options = options.set("console", PATIENT_CONSOLE);
        let rig = Self { stack: Stack::start(options).await.expect("the stack starts") };
        rig.apis_take_batches().await;
        rig
    }

    /// A server is ready before it has looked at Kafka's topics, and answers 503 until then: right
    /// for a sender that comes again, and no failure that a drill is about.
    async fn apis_take_batches(&self) {
        for number in 0..self.stack.api_urls().len() {
            let name = format!("ingest-api-{number}");
            until(&format!("{name} takes batches"), async || {
                let told = self.stack.admin_page(&name, "/deepz").await;
                told.is_ok_and(|page| page.status == 200)
            })
            .await;
        }
    }

    /// A small load for an environment, straight at the API servers.
    pub fn load(&self, environment: &str) -> SenderOptions {
        let file = self.stack.file();
        let token = file.tokens.get(environment).expect("the environment has a token");
        SenderOptions::small(file.api.clone(), token.clone(), environment)
    }

    /// Reads an environment's shard as an operator who sees everything.
    pub fn mysql(&self, environment: &str) -> MySqlPool {
        let file = self.stack.file();
        let shard = file
            .mysql
            .iter()
            .find(|shard| shard.environments.iter().any(|name| name == environment))
            .expect("the environment has a shard");
        let url = shard.reader.as_deref().expect("the shard has a reader");
        MySqlPoolOptions::new()
            .max_connections(2)
            .acquire_timeout(Duration::from_secs(10))
            .connect_lazy(url)
            .expect("the reader's URL is one")
    }

    /// Waits for the load's end and for MySQL, then compares (L1–L4, L8).
    pub async fn judge(&self, sender: Sender) -> (Ledger, SenderOptions) {
        let (ledger, options) = sender.finish(ACCEPTED_WITHIN).await;
        self.judge_sent(&ledger, &options).await;
        (ledger, options)
    }

    /// Rollups too, wherever a keeper runs to make them.
    pub async fn judge_sent(&self, ledger: &Ledger, options: &SenderOptions) {
        let mysql = self.mysql(&options.environment);
        settled(&mysql, ledger, options, SETTLED_WITHIN).await;
        let verdict = compare(&mysql, ledger, options).await;
        eprintln!("{} of {}: {verdict}", options.environment, ledger.summary());
        verdict.must_hold();
        assert_eq!(verdict.points_expected, options.total_points());
        if self.stack.is_running("keeper") {
            rolled_up(&mysql, options).await;
        }
    }

    pub async fn kill_and_start(&self, name: &str, away: Duration) {
        self.stack.kill(name).await.expect("it runs");
        tokio::time::sleep(away).await;
        self.stack.start_process(name).await.expect("it starts again");
    }

    pub async fn metrics(&self, name: &str) -> Metrics {
        self.stack.metrics(name).await.expect("the program answers /metrics")
    }

    /// Waits until a metric of a running program satisfies `enough`.
    pub async fn until(&self, name: &str, metric: &str, enough: impl Fn(f64) -> bool) {
        let until = Instant::now() + SETTLED_WITHIN;
        let mut last = None;
        while Instant::now() < until {
            if let Ok(metrics) = self.stack.metrics(name).await
                && metrics.has(metric)
            {
                let value = metrics.sum(metric);
                if enough(value) {
                    return;
                }
                last = Some(value);
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        panic!("{metric} of {name} stands at {last:?} after {SETTLED_WITHIN:?}");
    }

    pub async fn agent(&self, name: &str, environment: &str) -> Agent {
        let mut options = AgentOptions::new(name, environment, name);
        options.toml = HASTY_AGENT.to_owned();
        self.stack.spawn_agent(options).await.expect("the agent starts");
        Agent { name: name.to_owned(), environment: environment.to_owned() }
    }

    /// Stops an agent in order, and holds what it says it measured against MySQL: every seq of
    /// every epoch is applied exactly once, nothing is missing, declared or a gap.
    pub async fn judge_agent(&self, agent: &Agent) {
        let code = self.stack.terminate(&agent.name, Duration::from_secs(40)).await;
        assert_eq!(code.expect("the agent stops"), Some(0), "its spool was empty in the end");
        let mysql = self.mysql(&agent.environment);
        let until = Instant::now() + SETTLED_WITHIN;
        loop {
            let totals = Totals::read(&mysql, &agent.name).await;
            if totals.complete() {
                eprintln!("{}: {totals:?}", agent.name);
                return;
            }
            assert!(Instant::now() < until, "{} is not complete: {totals:?}", agent.name);
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}

/// On a machine that is busy with other things a broker takes its time to make 192 partitions.
pub const PATIENT_CONSOLE: &str = "remote_deadline = \"60s\"";

/// Settings with which a recovery worker shows within seconds what takes minutes in production.
pub const HASTY_WORKER: &str = r#"
[drain]
poll_period = "1s"
hold = "2s"
[unseal]
patience = "0s"
"#;

/// An agent of the test's own.
pub struct Agent {
    pub name: String,
    pub environment: String,
}

/// `ledger_totals` and `gaps` of one host, all epochs together.
#[derive(Debug, Default)]
pub struct Totals {
    pub epochs: u64,
    pub closed: u64,
    pub highest: u64,
    pub applied: u64,
    pub points: u64,
    pub duplicates: u64,
    pub declared: u64,
    pub missing: u64,
    pub gaps: u64,
    /// Points in `metrics`, each counted once by its place.
    pub stored: u64,
    /// …and counted as often as they lie there.
    pub stored_rows: u64,
}

impl Totals {
    pub async fn read(mysql: &MySqlPool, host: &str) -> Self {
        let ledger = sqlx::query(
            "SELECT COUNT(*), CAST(COALESCE(SUM(closed), 0) AS UNSIGNED), \
             CAST(COALESCE(SUM(highest_seq), 0) AS UNSIGNED), \
             CAST(COALESCE(SUM(applied_batches), 0) AS UNSIGNED), \
             CAST(COALESCE(SUM(applied_points), 0) AS UNSIGNED), \
             CAST(COALESCE(SUM(duplicate_batches), 0) AS UNSIGNED), \
             CAST(COALESCE(SUM(declared_batches), 0) AS UNSIGNED), \
             CAST(COALESCE(SUM(missing_batches), 0) AS UNSIGNED) \
             FROM spillway.ledger_totals WHERE host = ?",
        );
        let row = ledger.bind(host).fetch_one(mysql).await.expect("ledger_totals is readable");
        let number = |at: usize| row.try_get::<u64, _>(at).expect("a count");
        let count = "SELECT COUNT(*) FROM spillway.gaps WHERE host = ?";
        let gaps: i64 =
            sqlx::query_scalar(count).bind(host).fetch_one(mysql).await.expect("gaps is readable");
        let points = "SELECT COUNT(DISTINCT series_id, ts), COUNT(*) FROM spillway.metrics \
                      WHERE host = ?";
        let stored = sqlx::query(points).bind(host).fetch_one(mysql).await.expect("readable");
        let stored_number =
            |at: usize| u64::try_from(stored.try_get::<i64, _>(at).expect("a count")).unwrap_or(0);
        Self {
            epochs: u64::try_from(row.try_get::<i64, _>(0).expect("a count")).unwrap_or(0),
            closed: number(1),
            highest: number(2),
            applied: number(3),
            points: number(4),
            duplicates: number(5),
            declared: number(6),
            missing: number(7),
            gaps: u64::try_from(gaps).unwrap_or(0),
            stored: stored_number(0),
            stored_rows: stored_number(1),
        }
    }

    /// Every seq that was ever given is applied once, and every applied point lies there once.
    pub fn complete(&self) -> bool {
        self.applied > 0
            && self.closed >= 1
            && self.applied == self.highest
            && self.missing + self.gaps + self.declared == 0
            && self.stored == self.points
            && self.stored_rows == self.stored
    }
}

/// Waits until something holds; panics with `what` if it never does.
pub async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let by = Instant::now() + SETTLED_WITHIN;
    while !holds().await {
        assert!(Instant::now() < by, "not within {SETTLED_WITHIN:?}: {what}");
        tokio::time::sleep(LOOK_EVERY).await;
    }
}
