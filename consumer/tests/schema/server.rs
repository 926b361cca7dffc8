//! A real server with a fresh schema, in a stack that the tests share: MySQL, or MariaDB with
//! `SPILLWAY_TEST_DATABASE=mariadb`.

use std::sync::{Arc, Weak};
use std::time::Duration;

use spillway_consumer::migrations::{Options, Report, migrate};
use spillway_testkit::{Database, Stack, StackOptions};
use sqlx::mysql::{MySqlConnectOptions, MySqlRow, MySqlSslMode, MySqlTypeInfo, MySqlValueRef};
use sqlx::{ConnectOptions as _, MySql, MySqlConnection, Row as _};
use tokio::sync::{Mutex, MutexGuard};

/// Kept by the tests that run at the moment; the last one stops it.
static STACK: Mutex<Weak<Stack>> = Mutex::const_new(Weak::new());
/// The database names are fixed, so one test at a time has the server.
static TURN: Mutex<()> = Mutex::const_new(());

/// The schema's own two hours back keep the tests quick.
pub const RAW_RETENTION: Duration = Duration::from_secs(2 * 3600);

pub struct Server {
    pub conn: MySqlConnection,
    /// Of every migration: an hour that begins between two would have a partition of its own.
    now: jiff::Timestamp,
    options: MySqlConnectOptions,
    _turn: MutexGuard<'static, ()>,
    _stack: Arc<Stack>,
}

impl Server {
    /// A server whose two databases are gone.
    pub async fn empty() -> Self {
        let stack = stack().await;
        let shard = stack.servers().shards().next().expect("one shard").to_owned();
        let url = stack.servers().primary(&shard).expect("its primary").admin_url();
        let turn = TURN.lock().await;
        let options: MySqlConnectOptions = url.parse().expect("a MySQL URL");
        let options = options.ssl_mode(MySqlSslMode::Preferred).pipes_as_concat(false);
        let mut conn = options.connect().await.expect("an administrator's login");
        for database in ["spillway", "spillway_store"] {
            run(&mut conn, &format!("DROP DATABASE IF EXISTS {database}")).await;
        }
        Self { conn, now: jiff::Timestamp::now(), options, _turn: turn, _stack: stack }
    }

    /// A server with today's schema, on which the administrator reads every environment.
    pub async fn migrated() -> Self {
        let mut server = Self::empty().await;
        server.migrate().await;
        run(
            &mut server.conn,
            "INSERT INTO spillway_store.readers (name, environment, created_at)
             VALUES (SUBSTRING_INDEX(USER(), '@', 1), NULL, 0)",
        )
        .await;
        server
    }

    pub async fn migrate(&mut self) -> Report {
        let options = Options { raw_retention: RAW_RETENTION, now: self.now };
        migrate(&mut self.conn, &options).await.expect("the migration runs")
    }

    pub async fn connect_as(&self, user: &str, password: &str) -> MySqlConnection {
        self.options.clone().username(user).password(password).connect().await.expect("a login")
    }

    pub async fn second_connection(&self) -> MySqlConnection {
        self.options.connect().await.expect("a second login")
    }

    /// `HOST:PORT`.
    pub fn address(&self) -> String {
        format!("{}:{}", self.options.get_host(), self.options.get_port())
    }

    pub async fn is_mariadb(&mut self) -> bool {
        text(&mut self.conn, "SELECT VERSION()").await.contains("MariaDB")
    }

    /// How the server would answer a query, step by step, with the partitions that it reads.
    pub async fn plan(&mut self, sql: &str) -> Vec<MySqlRow> {
        let explain = if self.is_mariadb().await { "EXPLAIN PARTITIONS" } else { "EXPLAIN" };
        let plan = sqlx::raw_sql(&format!("{explain} {sql}")).fetch_all(&mut self.conn).await;
        plan.unwrap_or_else(|error| panic!("{error}\n{sql}"))
    }

    pub async fn text(&mut self, sql: &str) -> String {
        text(&mut self.conn, sql).await
    }

    pub async fn run(&mut self, sql: &str) {
        run(&mut self.conn, sql).await;
    }
}

/// A text column. sqlx 0.8 takes utf8mb4_bin for bytes and would refuse a plain String.
#[derive(Debug, PartialEq, Eq)]
pub struct Name(pub String);

impl From<&str> for Name {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl sqlx::Type<MySql> for Name {
    fn type_info() -> MySqlTypeInfo {
        <[u8] as sqlx::Type<MySql>>::type_info()
    }

    fn compatible(ty: &MySqlTypeInfo) -> bool {
        <[u8] as sqlx::Type<MySql>>::compatible(ty)
    }
}

impl<'r> sqlx::Decode<'r, MySql> for Name {
    fn decode(value: MySqlValueRef<'r>) -> Result<Self, sqlx::error::BoxDynError> {
        <String as sqlx::Decode<'r, MySql>>::decode(value).map(Self)
    }
}

pub fn options_now() -> Options {
    Options { raw_retention: RAW_RETENTION, now: jiff::Timestamp::now() }
}

/// A column of a plan, which MySQL and MariaDB give in other types.
pub fn column(step: &MySqlRow, name: &str) -> String {
    step.try_get_unchecked::<Option<String>, _>(name).ok().flatten().unwrap_or_default()
}

pub async fn run(conn: &mut MySqlConnection, sql: &str) {
    if let Err(error) = sqlx::raw_sql(sql).execute(conn).await {
        panic!("{error}\n{sql}");
    }
}

pub async fn text(conn: &mut MySqlConnection, sql: &str) -> String {
    let name: Name = sqlx::query_scalar(sql).fetch_one(conn).await.expect(sql);
    name.0
}

pub async fn number(conn: &mut MySqlConnection, sql: &str) -> i64 {
    sqlx::query_scalar(sql).fetch_one(conn).await.expect(sql)
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
