//! Real servers with a fresh schema, one test at a time: the tests share a stack, the last one
//! that runs stops it. Its shard is MySQL, or MariaDB with `SPILLWAY_TEST_DATABASE=mariadb`.

use std::sync::{Arc, Weak};
use std::time::Duration;

use spillway_consumer::migrations::{Options, migrate};
use spillway_keeper::metrics::Metrics;
use spillway_keeper::settings::KeeperSettings;
use spillway_keeper::shard::ShardHandle;
use spillway_runtime::mysql::{MysqlSettings, options_for, pool};
use spillway_testkit::{Database, Stack, StackOptions};
use sqlx::mysql::MySqlPool;
use tokio::sync::{Mutex, MutexGuard};

static STACK: Mutex<Weak<Stack>> = Mutex::const_new(Weak::new());
static TURN: Mutex<()> = Mutex::const_new(());

/// Partitions of the topics: enough to see that they are told apart.
pub const PARTITIONS: u16 = 4;

pub struct World {
    pub admin: MySqlPool,
    pub shard: ShardHandle,
    pub settings: KeeperSettings,
    pub metrics: Metrics,
    pub url: String,
    pub redis_url: String,
    _stack: Arc<Stack>,
    _turn: MutexGuard<'static, ()>,
}

impl World {
    pub async fn new() -> Self {
        let stack = stack().await;
        let turn = TURN.lock().await;
        let servers = stack.servers();
        let name = servers.shards().next().expect("one shard").to_owned();
        let url = servers.primary(&name).expect("its primary").admin_url();
        let mysql = MysqlSettings::default();
        let options =
            options_for(&mysql, &url.parse().expect("a MySQL URL"), None).expect("no files");
        let admin = pool(&mysql, options.clone(), None);
        let mut settings = KeeperSettings::default();
        settings.kafka.brokers = servers.bootstrap().split(',').map(str::to_owned).collect();
        let redis_url = format!("redis://{}", servers.redis.address());
        settings.redis.url = Some(redis_url.clone());
        let handle = pool(&mysql, options, Some("spillway_store"));
        let shard = ShardHandle::new("s0", (0..PARTITIONS).collect(), handle);
        let metrics = Metrics::default();
        let world =
            Self { admin, shard, settings, metrics, url, redis_url, _stack: stack, _turn: turn };
        world.fresh_schema().await;
        world
    }

    async fn fresh_schema(&self) {
        self.run("DROP DATABASE IF EXISTS spillway").await;
        self.run("DROP DATABASE IF EXISTS spillway_store").await;
        let options =
            Options { raw_retention: Duration::from_secs(6 * 3600), now: jiff::Timestamp::now() };
        let mut session = self.session().await;
        migrate(&mut session, &options).await.expect("the migration runs");
        session.give_back();
    }

    /// Positions at the begin of every partition.
    pub async fn seed_positions(&self) {
        for partition in 0..PARTITIONS {
            self.run(&format!(
                "INSERT INTO spillway_store.positions (partition_id) VALUES ({partition})"
            ))
            .await;
        }
    }

    pub async fn session(&self) -> spillway_runtime::mysql::Session {
        spillway_runtime::mysql::checkout(&self.admin, Duration::from_secs(5))
            .await
            .expect("a connection")
    }

    pub async fn run(&self, sql: &str) {
        if let Err(error) = sqlx::raw_sql(sql).execute(&self.admin).await {
            panic!("{error}\n{sql}");
        }
    }

    pub async fn number(&self, sql: &str) -> i64 {
        sqlx::query_scalar(sql).fetch_one(&self.admin).await.expect(sql)
    }

    /// Waits until the query answers `wanted`: the condition itself, with a far deadline.
    pub async fn until(&self, sql: &str, wanted: i64) {
        let reached = async {
            while self.number(sql).await != wanted {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        let reached = tokio::time::timeout(Duration::from_secs(120), reached).await;
        assert!(reached.is_ok(), "never became {wanted}: {sql}");
    }
}

async fn stack() -> Arc<Stack> {
    let mut shared = STACK.lock().await;
    if let Some(stack) = shared.upgrade() {
        return stack;
    }
    let database = Database::of_tests();
    let options = StackOptions { servers_only: true, database, ..StackOptions::default() };
    let stack = Arc::new(Stack::start(options).await.expect("the stack starts"));
    *shared = Arc::downgrade(&stack);
    stack
}
