//! A primary and two replicas, and everything that may go wrong while another takes over.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use serde_json::Value as Json;
use spillway_testkit::Stack;
use sqlx::MySqlPool;

use crate::publish_one;
use crate::site::Site;

/// Records that Kafka's retention takes before anybody applied them.
const TRIMMED: i64 = 3;
const SETTLES_WITHIN: Duration = Duration::from_secs(30);

/// The servers by hand: pools with every privilege, and their addresses as operators type them.
struct Servers {
    pools: Vec<MySqlPool>,
    at: Vec<String>,
    names: Vec<String>,
}

impl Servers {
    fn of(stack: &Stack) -> Self {
        let servers = stack.servers();
        let all = servers.primary("s0").into_iter().chain(servers.replicas("s0"));
        let mut own = Self { pools: Vec::new(), at: Vec::new(), names: Vec::new() };
        for server in all {
            own.pools.push(server.admin_pool());
            own.at.push(server.port.address().to_string());
            own.names.push(server.name.clone());
        }
        own
    }

    async fn run(&self, server: usize, sql: &str) {
        sqlx::raw_sql(sql).execute(&self.pools[server]).await.unwrap();
    }

    async fn number(&self, server: usize, sql: &str) -> i64 {
        let sql = format!("SELECT CAST(({sql}) AS SIGNED)");
        sqlx::query_scalar(&sql).fetch_one(&self.pools[server]).await.unwrap()
    }

    async fn is_fenced(&self, server: usize) -> bool {
        self.number(server, "@@global.super_read_only").await == 1
    }

    async fn until(&self, server: usize, sql: &str, wanted: i64) {
        let began = Instant::now();
        while self.number(server, sql).await != wanted {
            assert!(began.elapsed() < SETTLES_WITHIN, "{sql} is not {wanted}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

/// A second machine: the same servers and shards.toml, a lock file and a journal of its own.
fn elsewhere(site: &Site) -> Site {
    let other = Site::new("", "");
    let text = site.read("spillway.toml");
    let own = |name: &str, text: &str| {
        let (from, to) = (site.path(name), other.path(name));
        text.replace(&from.display().to_string(), &to.display().to_string())
    };
    let text = own("journal.jsonl", &own("maintenance.json", &text));
    std::fs::write(other.path("spillway.toml"), text).unwrap();
    other
}

/// The site must know all three servers of s0, and its schema be made.
pub async fn is_rehearsed(site: &Site, stack: &Stack) {
    let servers = Servers::of(stack);
    servers.until(1, "SELECT COUNT(*) FROM spillway_store.shard_meta", 1).await;
    servers.until(2, "SELECT COUNT(*) FROM spillway_store.positions", 8).await;
    // From here on the second replica gets nothing, and the first everything.
    servers.run(2, "STOP REPLICA IO_THREAD").await;
    servers
        .run(0, "UPDATE spillway_store.positions SET live_next = 5 WHERE partition_id = 1")
        .await;
    let applied = "SELECT live_next FROM spillway_store.positions WHERE partition_id = 1";
    servers.until(1, applied, 5).await;
    what_is_refused(site, &servers).await;
    a_lock_is_everybodys(site, &servers).await;
    a_console_dies_in_the_middle(site, &servers).await;
    a_primary_dies(site, stack, &servers).await;
    a_change_that_was_not_finished_goes_on(site, &servers).await;
    what_kafka_no_longer_holds_is_lost_by_the_operators_word_alone(site, stack, &servers).await;
}

async fn what_is_refused(site: &Site, servers: &Servers) {
    let lags = &servers.at[2];
    let asked = site.refused(&format!("shard failover s0 --to {lags}"), 64);
    assert!(asked.contains("consumers replay 5 records"), "it is said before: {asked}");
    assert!(asked.contains("1 transactions more than"), "{asked}");
    assert!(asked.contains("pass --yes"), "and nothing happens without a word: {asked}");
    let wrong = format!("shard failover s0 --expected-primary {lags} --yes");
    assert!(site.refused(&wrong, 2).contains("somebody was faster"));
    let wrong = format!("shard failover s0 --primary-is-gone {lags} --yes");
    assert!(site.refused(&wrong, 2).contains("is primary (epoch 1)"));
    assert!(!servers.is_fenced(0).await, "so far nobody touched the primary");
    let late = format!("shard switchover s0 --to {lags} --catch-up 1s --yes");
    let late = site.refused(&late, 2);
    assert!(late.contains("did not have all") && late.contains("writable again"), "{late}");
    assert!(!servers.is_fenced(0).await, "what failed left things as they were");
}

async fn a_lock_is_everybodys(site: &Site, servers: &Servers) {
    let other = elsewhere(site);
    let begun = site.ok("maintenance begin --reason kernels --for 1h --yes");
    assert_eq!(begun["servers"], 3, "{begun:#}");
    let seen = other.ok("maintenance show");
    assert_eq!((&seen["held"], &seen["reason"]), (&true.into(), &"kernels".into()));
    servers.run(0, "UPDATE spillway_store.maintenance SET owner = 'ann'").await;
    servers
        .until(1, "SELECT COUNT(*) FROM spillway_store.maintenance WHERE owner = 'ann'", 1)
        .await;
    let refused = other.refused("shard switchover s0 --yes", 2);
    assert!(refused.contains("ann is at work") && refused.contains("kernels"), "{refused}");
    assert!(!servers.is_fenced(0).await);
    let wrong = "maintenance begin --reason mine --take-over-from bob --yes";
    assert!(other.refused(wrong, 2).contains("it is ann who holds"));
    other.ok("maintenance begin --reason mine --take-over-from ann --yes");
    other.ok("maintenance end --yes");
    std::fs::remove_file(site.path("maintenance.json")).unwrap();
    assert_eq!(site.ok("maintenance show")["held"], false);
    // Its time is over: it holds nobody up.
    let over = "INSERT INTO spillway_store.maintenance VALUES (1, 'ann', 'forgotten', 1, 2)";
    servers.run(0, over).await;
    assert_eq!(site.ok("maintenance show")["held"], false);
}

/// Killed between fence and promotion; meanwhile a second operator is refused.
async fn a_console_dies_in_the_middle(site: &Site, servers: &Servers) {
    let mut dies = start(&site.path("spillway.toml"), &servers.at[2]);
    let fenced = "@@global.super_read_only";
    servers.until(0, fenced, 1).await;
    let refused = elsewhere(site).refused("shard failover s0 --yes", 2);
    assert!(refused.contains("at this moment") && refused.contains("switchover s0"), "{refused}");
    dies.kill().unwrap();
    dies.wait().unwrap();
    assert!(servers.is_fenced(0).await, "it could not tidy up");
    let given_back = site.ok("shard unfence s0 --yes");
    assert_eq!(given_back["primary"], servers.at[0].as_str());
    assert!(!servers.is_fenced(0).await);
    let again = site.ok("shard unfence s0 --yes");
    assert_eq!(again["notes"][0], "there is nothing to do", "{again:#}");
}

fn start(config: &Path, to: &str) -> std::process::Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_spillway"));
    command.arg("--config").arg(config).args(["shard", "switchover", "s0", "--to", to]);
    command.args(["--catch-up", "5m", "--yes"]).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().unwrap()
}

async fn a_primary_dies(site: &Site, stack: &Stack, servers: &Servers) {
    stack.kill(&servers.names[0]).await.unwrap();
    let refused = site.refused("shard failover s0 --yes", 2);
    assert!(refused.contains("can't be fenced") && refused.contains("--primary-is-gone"));
    let gone = &servers.at[0];
    let command = format!("shard failover s0 --primary-is-gone {gone} --consumers-within 0s --yes");
    let done = site.ok(&command);
    assert_eq!(done["new_primary"], servers.at[1].as_str(), "the one that has most: {done:#}");
    servers
        .run(1, "UPDATE spillway_store.positions SET live_next = 6 WHERE partition_id = 1")
        .await;
    // The other replica follows the new primary, and has what it lacked.
    let applied = "SELECT live_next FROM spillway_store.positions WHERE partition_id = 1";
    servers.until(2, applied, 6).await;
    servers.until(2, "SELECT epoch FROM spillway_store.shard_meta", 2).await;
    let twice = site.refused(&command, 2);
    assert!(twice.contains("a change was done already"), "{twice}");
    assert!(!servers.is_fenced(1).await, "the new primary is not taken away");
}

/// As a console leaves it that dies after the promotion and before it writes shards.toml.
async fn a_change_that_was_not_finished_goes_on(site: &Site, servers: &Servers) {
    servers.run(1, "SET GLOBAL super_read_only = ON").await;
    servers.run(2, "STOP REPLICA; RESET REPLICA ALL; SET GLOBAL super_read_only = OFF").await;
    servers.run(2, "SET GLOBAL read_only = OFF").await;
    let half = site.run("shard unfence s0 --yes");
    assert!(half.errors.contains("two primaries"), "{half:?}");
    servers.run(2, "UPDATE spillway_store.shard_meta SET epoch = 3").await;
    let over = site.run("shard unfence s0 --yes");
    assert!(over.errors.contains("primary of epoch 3 already"), "{over:?}");
    let planned = site.run("shard switchover s0 --dry-run");
    assert!(planned.errors.contains("go on with a change that was not finished"), "{planned:?}");
    let done = site.ok("shard switchover s0 --consumers-within 0s --yes");
    let (resumed, epoch): (&Json, &Json) = (&done["resumed"], &done["epoch"]);
    assert_eq!((resumed, epoch), (&true.into(), &3.into()), "{done:#}");
    servers.until(1, "SELECT epoch FROM spillway_store.shard_meta", 3).await;
    let listed = site.run("shard ls").json;
    assert_eq!(listed["servers"][0]["server"], servers.at[2].as_str(), "{listed:#}");
    assert!(servers.is_fenced(1).await, "the old one follows, read-only");
}

/// The log begins above where every server stands: somebody's retention was too short.
async fn what_kafka_no_longer_holds_is_lost_by_the_operators_word_alone(
    site: &Site,
    stack: &Stack,
    servers: &Servers,
) {
    let kafka = stack.file().kafka.clone();
    for _ in 0..TRIMMED + 2 {
        publish_one(&kafka, 2).await;
    }
    trim(&kafka, 2, TRIMMED).await;
    let refused = site.refused("shard failover s0 --yes", 2);
    assert!(refused.contains("3 below 3 on spillway.live partition 2"), "{refused}");
    assert!(refused.contains("--accept-loss 3"), "{refused}");
    assert!(site.refused("shard switchover s0 --yes", 2).contains("no longer holds"));
    let few = site.refused("shard failover s0 --accept-loss 2 --yes", 2);
    assert!(few.contains("would lose them"), "{few}");
    assert!(!servers.is_fenced(2).await, "nobody touched the primary");
    let asked = site.refused("shard failover s0 --accept-loss 3", 64);
    assert!(asked.contains("3 records are lost by your word"), "it is said before: {asked}");
    let done = site.ok("shard failover s0 --accept-loss 3 --consumers-within 0s --yes");
    let (lost, primary): (&Json, &Json) = (&done["lost_records"], &done["new_primary"]);
    assert_eq!((lost, primary), (&TRIMMED.into(), &servers.at[1].as_str().into()), "{done:#}");
    // No offset is guessed: the consumer finds it outside its log, and holds the partition.
    let stands = "SELECT live_next FROM spillway_store.positions WHERE partition_id = 2";
    assert_eq!(servers.number(1, stands).await, 0);
}

/// As retention does, but now.
async fn trim(kafka: &str, partition: i32, below: i64) {
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", kafka).create().unwrap();
    let mut list = TopicPartitionList::new();
    list.add_partition_offset("spillway.live", partition, Offset::Offset(below)).unwrap();
    let options = AdminOptions::new().operation_timeout(Some(SETTLES_WITHIN));
    let done = admin.delete_records(&list, &options).await.unwrap();
    done.elements().iter().for_each(|element| element.error().unwrap());
}
