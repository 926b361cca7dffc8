//! What the drills of foreign senders share: programs of other makers, a target that remembers
//! what it said when it was asked, the faults, and the comparison with MySQL.

pub mod application;
pub mod docs;
pub mod target;
pub mod tools;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use spillway_e2e::rig::{Rig, SETTLED_WITHIN};
use spillway_testkit::debian::unpacked;
use spillway_testkit::process::{Process, ProcessSpec};
use sqlx::Row as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::foreign::target::Target;
use crate::sending::until;

/// How long Kafka is away; the least of these clients keeps a quarter of an hour.
pub const KAFKA_AWAY: Duration = Duration::from_secs(60);
/// How long ingest-api is away.
pub const API_AWAY: Duration = Duration::from_secs(5);
/// A client sends what is in its queues before it ends.
pub const FLUSH_WITHIN: Duration = Duration::from_secs(90);
/// Scrapes before, between and after the faults.
const SCRAPES: u64 = 8;

/// Debian's package of Prometheus, unpacked beside the other servers; a first run downloads it.
pub fn prometheus() -> PathBuf {
    let unpacked = unpacked("prometheus", &["prometheus"]);
    unpacked.expect("apt-get download prometheus works here").join("usr/bin/prometheus")
}

/// A program of another maker, with its files in the stack's folder. It finds the token of `demo`
/// where the blocks of docs/clients.md look for it: in a file and in the environment.
pub fn start(rig: &Rig, name: &str, program: &Path, args: &[&str]) -> Process {
    let cwd = home(rig, name);
    let token = rig.stack.file().tokens["demo"].clone();
    let spec = ProcessSpec {
        name: name.to_owned(),
        program: program.to_owned(),
        args: args.iter().map(|arg| (*arg).to_owned()).collect(),
        env: vec![("SPILLWAY_TOKEN".to_owned(), token)],
        log: cwd.join("log"),
        cwd,
    };
    Process::start(spec).expect("the client starts")
}

/// The folder of a client, made if it is not there.
pub fn home(rig: &Rig, name: &str) -> PathBuf {
    let home = rig.stack.dir().join(name);
    fs::create_dir_all(&home).expect("a folder of its own");
    home
}

/// A file of a client, and its path.
pub fn file(rig: &Rig, name: &str, file: &str, content: &str) -> String {
    let file = home(rig, name).join(file);
    fs::write(&file, content).expect("a file of its own");
    file.display().to_string()
}

/// The file with the token of `demo`.
pub fn token_file(rig: &Rig, name: &str) -> String {
    file(rig, name, "token", &rig.stack.file().tokens["demo"])
}

/// A client's order to stop, and its end.
pub async fn stop(process: &Process, within: Duration) {
    process.signal(rustix::process::Signal::TERM).expect("it runs");
    let ended = process.wait(within).await;
    assert!(ended.is_some(), "it ends by itself: {}", process.spec().log_tail());
}

/// Until the client has scraped some more.
pub async fn scrapes(target: &Target) {
    let wanted = target.served() + SCRAPES;
    until("the client scrapes", SETTLED_WITHIN, async || target.served() >= wanted).await;
}

/// Kafka away for a minute, ingest-api killed, with work before, between and after.
pub async fn faults(rig: &Rig, target: &Target) {
    scrapes(target).await;
    rig.stack.kill("kafka-0").await.expect("it runs");
    tokio::time::sleep(KAFKA_AWAY).await;
    rig.stack.start_process("kafka-0").await.expect("it comes back");
    scrapes(target).await;
    rig.kill_and_start("ingest-api-0", API_AWAY).await;
    scrapes(target).await;
}

/// The points of one series of a target, once the last of so many scrapes is in MySQL: `n` is added
/// to each.
pub async fn settled(rig: &Rig, metric: &str, n: u64, scrapes: u64) -> Vec<(i64, f64)> {
    let name = n.to_string();
    let reached = (scrapes + n) as f64;
    until("MySQL has the last scrape", SETTLED_WITHIN, async || {
        let points = stored(rig, metric, &name).await;
        points.iter().any(|point| point.1 >= reached)
    })
    .await;
    stored(rig, metric, &name).await
}

/// Each of so many scrapes of a series is in MySQL exactly once, in order.
pub async fn each_scrape_is_there_once(rig: &Rig, metric: &str, n: u64, scrapes: u64) {
    let points = settled(rig, metric, n, scrapes).await;
    let values: Vec<u64> = points.iter().map(|point| point.1 as u64 - n).collect();
    let wanted: Vec<u64> = (1..=scrapes).collect();
    assert_eq!(values.get(..wanted.len()), Some(wanted.as_slice()), "{metric} {n}");
    eprintln!("{metric} {n}: {scrapes} scrapes, each in MySQL once");
}

/// Time in ms and value of each point of a series of `demo`, as MySQL shows them.
pub async fn stored(rig: &Rig, metric: &str, n: &str) -> Vec<(i64, f64)> {
    let rows = sqlx::query(
        "SELECT CAST(ROUND(ts * 1000) AS SIGNED) AS ts_ms, value FROM spillway.metrics \
         WHERE environment = 'demo' AND metric = ? AND labels->>'$.n' = ? ORDER BY ts",
    )
    .bind(metric)
    .bind(n)
    .fetch_all(&rig.mysql("demo"))
    .await
    .expect("MySQL answers");
    rows.iter().map(|row| (row.get("ts_ms"), row.get("value"))).collect()
}

/// The status of one POST on a connection of its own.
pub async fn post(
    address: &str,
    path: &str,
    headers: &str,
    body: &str,
) -> Result<u16, std::io::Error> {
    let request = format!(
        "POST {path} HTTP/1.1\r\nHost: {address}\r\n{headers}\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n{body}",
        body.len()
    );
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok());
    status.ok_or_else(|| std::io::Error::other("the answer has no status"))
}
