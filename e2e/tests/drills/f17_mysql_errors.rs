//! Row 17: what MySQL answers when it can't, each error a real one, told by the server itself.

use std::net::Ipv4Addr;
use std::time::Duration;

use spillway_e2e::rig::Rig;
use spillway_e2e::{Sender, SenderOptions};
use spillway_testkit::stack::{End, StackOptions};
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;

use crate::storing::{HASTY_CONSUMER, Server, errors, reading, until};

const CONSUMER: &str = "consumer-0";
const USER: &str = "spillway_consumer";

/// A stack in trouble.
struct Ordeal {
    rig: Rig,
    server: Server,
}

impl Ordeal {
    async fn start(options: StackOptions) -> Self {
        let rig = Rig::start(options.set("consumer", HASTY_CONSUMER)).await;
        let server = Server::primary(&rig, "s0");
        reading(&rig, &[CONSUMER], 64.0).await;
        Self { rig, server }
    }

    /// A load of this error's own, so that each is judged by itself.
    fn load(&self, name: &str) -> Sender {
        let pace = Duration::from_millis(50);
        Sender::start(SenderOptions { name: name.into(), pace, ..self.rig.load("demo") })
    }

    async fn met(&self, class: &str) -> f64 {
        errors(&self.rig, CONSUMER, class).await
    }

    /// Waits until the consumer has met a class of errors some more times.
    async fn meets(&self, class: &str, before: f64, times: f64) {
        let met = async || self.met(class).await >= before + times;
        until(&format!("the consumer meets {class}"), met).await;
    }

    /// Everything arrived, and nothing of it went to dead letters.
    async fn heals(&self, load: Sender) {
        self.rig.judge(load).await;
        assert_eq!(self.server.quarantined().await, 0, "nothing transient is in dead letters");
    }

    /// 1040: all places are taken.
    async fn too_many_connections(&self) {
        let before = self.met("too-many-connections").await;
        self.server.run("SET GLOBAL max_connections = 1").await;
        self.server.end_connections(USER).await;
        let load = self.load("e1040");
        self.meets("too-many-connections", before, 3.0).await;
        self.server.run("SET GLOBAL max_connections = 300").await;
        self.heals(load).await;
    }

    /// 1205: somebody holds the rows for longer than we wait.
    async fn lock_wait_timeout(&self) {
        let (before, told) = (self.met("retry").await, self.server.told(1205, USER).await);
        let mut holder = self.server.0.begin_here().await;
        holder.hold("SELECT * FROM spillway_store.positions FOR UPDATE").await;
        let load = self.load("e1205");
        self.meets("retry", before, 2.0).await;
        assert!(self.server.told(1205, USER).await >= told + 2, "the server said 1205");
        holder.let_go().await;
        self.heals(load).await;
    }

    /// 1213: a deadlock whose victim is the consumer, since the other has changed more.
    async fn deadlock(&self) {
        const WAITS: &str = "SELECT COUNT(*) FROM performance_schema.data_lock_waits";
        self.server.run("CREATE DATABASE IF NOT EXISTS ordeal").await;
        self.server.run("CREATE TABLE ordeal.weight (n INT PRIMARY KEY)").await;
        let told = self.server.told(1213, USER).await;
        let mut load = Some(self.load("e1213"));
        // The transaction that is waited for may be a claim, which holds nothing: then again.
        for round in 0..20 {
            let mut holder = self.server.0.begin_here().await;
            holder
                .hold(&format!(
                    "INSERT INTO ordeal.weight WITH RECURSIVE c AS (SELECT 1 AS n UNION ALL \
                     SELECT n + 1 FROM c WHERE n < 1000) \
                     SELECT a.n + b.n * 1000 FROM c a, c b WHERE b.n <= 30 AND {round} >= 0"
                ))
                .await;
            holder.hold("SELECT * FROM spillway_store.positions FOR UPDATE").await;
            until("the consumer waits for its positions", async || {
                self.server.number(WAITS).await > 0
            })
            .await;
            holder.try_hold("SELECT * FROM spillway_store.ledger_epochs FOR UPDATE").await;
            holder.let_go().await;
            if self.server.told(1213, USER).await > told {
                return self.heals(load.take().expect("once")).await;
            }
            if load.is_none() {
                load = Some(self.load("again"));
            }
        }
        panic!("the server never said 1213");
    }

    /// 1290: the server takes no writes.
    async fn read_only(&self) {
        let (before, told) = (self.met("read-only").await, self.server.told(1290, USER).await);
        self.server.run("SET GLOBAL super_read_only = ON").await;
        let load = self.load("e1290");
        self.meets("read-only", before, 3.0).await;
        assert!(self.server.told(1290, USER).await > told, "the server said 1290");
        self.server.run("SET GLOBAL super_read_only = OFF; SET GLOBAL read_only = OFF").await;
        self.heals(load).await;
    }

    /// The server takes less in a packet than one batch may need: it is not written to until an
    /// operator has followed the remedy.
    async fn packets_too_small(&self) {
        let before = self.met("small-packets").await;
        self.server.run("SET GLOBAL max_allowed_packet = 16384").await;
        self.server.end_connections(USER).await;
        let load = self.load("e1153");
        self.meets("small-packets", before, 3.0).await;
        self.server.run("SET GLOBAL max_allowed_packet = 67108864").await;
        self.heals(load).await;
    }

    /// 2006 and 2013: the connection goes, while idle and in the middle of a statement.
    async fn connections_lost(&self) {
        let before = self.met("reconnect").await;
        let load = self.load("e2013");
        let mut rounds = 0;
        while self.met("reconnect").await < before + 5.0 {
            rounds += 1;
            assert!(rounds < 1_000, "no connection was lost in use");
            self.server.end_connections(USER).await;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        self.heals(load).await;
    }
}

/// A transaction of the drill's own on a connection of its own.
struct Holder(sqlx::MySqlConnection);

trait BeginHere {
    async fn begin_here(&self) -> Holder;
}

impl BeginHere for sqlx::MySqlPool {
    async fn begin_here(&self) -> Holder {
        use sqlx::ConnectOptions as _;
        let conn = self.connect_options().connect().await.expect("the drill may log in");
        let mut holder = Holder(conn);
        holder.hold("START TRANSACTION").await;
        holder
    }
}

impl Holder {
    async fn hold(&mut self, sql: &str) {
        sqlx::raw_sql(sql).execute(&mut self.0).await.expect("the holder gets its locks");
    }

    /// May be refused.
    async fn try_hold(&mut self, sql: &str) {
        if let Err(error) = sqlx::raw_sql(sql).execute(&mut self.0).await {
            eprintln!("the holder: {error}");
        }
    }

    async fn let_go(mut self) {
        self.try_hold("ROLLBACK").await;
        use sqlx::Connection as _;
        self.0.close().await.expect("the holder leaves");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_passing_error_of_mysql_is_classified_waited_out_and_sends_nothing_to_dead_letters() {
    let ordeal = Ordeal::start(StackOptions::default()).await;
    ordeal.too_many_connections().await;
    ordeal.lock_wait_timeout().await;
    ordeal.deadlock().await;
    ordeal.read_only().await;
    ordeal.connections_lost().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_of_too_small_packets_is_waited_for_and_then_everything_is_stored() {
    let ordeal = Ordeal::start(StackOptions::default()).await;
    ordeal.packets_too_small().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blocked_host_is_told_from_a_dead_server_and_goes_on_after_flush_hosts() {
    // MySQL never blocks 127.0.0.1, nor anybody whose name it does not look up.
    let options = StackOptions::default().mysqld("--skip-name-resolve=OFF");
    let rig = Rig::start(options.set("consumer", HASTY_CONSUMER).link(End::Consumer, End::Mysql));
    let rig = rig.await;
    let server = Server::primary(&rig, "s0");
    let link = rig.stack.link(End::Consumer, End::Mysql).expect("asked for");
    let proxy = link.proxies().first().expect("one server");
    reading(&rig, &[CONSUMER], 64.0).await;
    proxy.call_from(Ipv4Addr::new(127, 0, 0, 2));
    server.run("SET GLOBAL max_connect_errors = 3").await;
    for _ in 0..6 {
        let mut half = TcpStream::connect(proxy.address()).await.expect("the proxy listens");
        // The greeting is read to its end and never answered: a handshake that was broken off.
        let mut greeting = [0_u8; 1_024];
        let read = half.read(&mut greeting).await.expect("the server greets");
        assert!(read > 0);
        drop(half);
    }
    // A login that succeeds before the server has counted these would clear them.
    let counted = "SELECT SUM(sum_connect_errors) FROM performance_schema.host_cache \
                   WHERE ip = '127.0.0.2'";
    until("the server counts broken handshakes", async || server.number(counted).await >= 3).await;
    let ordeal = Ordeal { rig, server };
    let (before, load) = (ordeal.met("host-blocked").await, ordeal.load("e1129"));
    ordeal.server.end_connections(USER).await;
    ordeal.meets("host-blocked", before, 3.0).await;
    ordeal.server.run("TRUNCATE TABLE performance_schema.host_cache").await;
    ordeal.heals(load).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_tablespace_is_waited_out_and_sends_nothing_to_dead_letters() {
    const FILL: &str = "INSERT INTO ordeal.filler SELECT NULL, REPEAT('x', 7000) FROM \
                        information_schema.columns LIMIT ";
    let options =
        StackOptions::default().mysqld("--innodb-data-file-path=ibdata1:12M:autoextend:max:24M");
    let ordeal = Ordeal::start(options).await;
    let server = &ordeal.server;
    // Names of new series are to go where there is no room left.
    server.run("ALTER TABLE spillway_store.series TABLESPACE innodb_system").await;
    server.run("CREATE DATABASE ordeal").await;
    server
        .run(
            "CREATE TABLE ordeal.filler (id INT AUTO_INCREMENT PRIMARY KEY, x VARCHAR(7000)) \
             CHARSET latin1 TABLESPACE innodb_system",
        )
        .await;
    for rows in [400, 50, 10, 1] {
        while sqlx::raw_sql(&format!("{FILL}{rows}")).execute(&server.0).await.is_ok() {}
    }
    let before = ordeal.met("disk-full").await;
    let pace = Duration::from_millis(50);
    let load = SenderOptions { name: "e1114".into(), series: 400, pace, ..ordeal.rig.load("demo") };
    let load = Sender::start(load);
    ordeal.meets("disk-full", before, 3.0).await;
    assert!(server.told(1114, USER).await > 0, "the server said 1114");
    server.run("DROP TABLE ordeal.filler").await;
    ordeal.heals(load).await;
}
