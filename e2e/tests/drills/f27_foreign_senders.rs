//! Row 27: senders of other makers while Kafka is away and ingest-api is killed; what they send
//! again, regrouped, and from two of a pair, is there once.

use spillway_e2e::rig::{Rig, SETTLED_WITHIN};
use spillway_testkit::http;
use spillway_testkit::ports::Port;
use spillway_testkit::process::Process;
use spillway_testkit::stack::StackOptions;
use tokio::time::timeout;

use crate::foreign::target::{SERIES, Target};
use crate::foreign::{
    FLUSH_WITHIN, docs, each_scrape_is_there_once, faults, file, post, prometheus, settled, start,
    stop, stored, token_file, tools,
};
use crate::sending::{SENDERS_PATIENCE, until};

/// The block of docs/clients.md, below what to scrape.
fn config(rig: &Rig, scrape: &str) -> String {
    let theirs = "/etc/prometheus/spillway.token";
    let token = token_file(rig, "prometheus");
    scrape.to_owned() + &docs::with(&docs::block(rig, "Prometheus", 0), theirs, &token)
}

/// Prometheus' own words for what to scrape, which vmagent knows as well.
fn scrape(target: &Target) -> String {
    format!(
        "global: {{scrape_interval: 1s, scrape_timeout: 1s}}\n\
         scrape_configs:\n- job_name: drill\n  static_configs: [{{targets: ['{}']}}]\n",
        target.address
    )
}

/// Debian's Prometheus, which scrapes the target and sends to the stack.
fn start_prometheus(rig: &Rig, target: &Target, port: &Port, more: &[&str]) -> Process {
    start_named(rig, "prometheus", &config(rig, &scrape(target)), port, more)
}

fn start_named(rig: &Rig, name: &str, config: &str, port: &Port, more: &[&str]) -> Process {
    let program = prometheus();
    let config = format!("--config.file={}", file(rig, name, "prometheus.yml", config));
    let listen = format!("--web.listen-address={}", port.address());
    start(rig, name, &program, &[&[config.as_str(), listen.as_str()], more].concat())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_prometheus_has_in_its_own_store_is_in_mysql() {
    let rig = Rig::start(StackOptions::default()).await;
    let (target, port) = (Target::listen().await, Port::take().expect("a port"));
    let client = start_prometheus(&rig, &target, &port, &["--storage.tsdb.path=data"]);
    faults(&rig, &target).await;
    // What it stored itself, up to now, sample by sample.
    let mut own = Vec::new();
    for n in [0, SERIES / 2, SERIES - 1] {
        let path = format!("/api/v1/query?query=drill_series%7Bn%3D%22{n}%22%7D%5B30m%5D");
        let answer = http::get(port.socket(), &path).await.expect("Prometheus answers");
        let answer: serde_json::Value = serde_json::from_str(&answer.body).expect("JSON");
        let sample = |pair: &serde_json::Value| {
            let ts_ms = (pair[0].as_f64().expect("a time") * 1_000.0).round() as i64;
            let value: f64 = pair[1].as_str().expect("a text").parse().expect("a value");
            (ts_ms, value)
        };
        let samples = answer["data"]["result"][0]["values"].as_array().expect("samples");
        own.push((n, samples.iter().map(sample).collect::<Vec<_>>()));
    }
    stop(&client, FLUSH_WITHIN).await;
    for (n, samples) in own {
        let last = samples.last().expect("it scraped").1 as u64 - n;
        let in_mysql: Vec<_> =
            settled(&rig, "drill_series", n, last).await.into_iter().take(samples.len()).collect();
        eprintln!("series {n}: {} samples in Prometheus, the same in MySQL", samples.len());
        assert_eq!(in_mysql, samples, "series {n}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_prometheus_as_an_agent_scraped_is_in_mysql() {
    let rig = Rig::start(StackOptions::default()).await;
    let (target, port) = (Target::listen().await, Port::take().expect("a port"));
    let mode = "--enable-feature=agent";
    let store = "--storage.agent.path=data";
    let client = start_prometheus(&rig, &target, &port, &[mode, store]);
    faults(&rig, &target).await;
    let scraped = target.served() - 1;
    stop(&client, FLUSH_WITHIN).await;
    for n in [0, SERIES / 2, SERIES - 1] {
        each_scrape_is_there_once(&rig, "drill_series", n, scraped).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_vmagent_scraped_is_in_mysql() {
    let program = tools::vmagent().await;
    let rig = Rig::start(StackOptions::default()).await;
    let (target, port) = (Target::listen().await, Port::take().expect("a port"));
    // The block is a shell's command line without any quotes.
    let theirs = "/etc/vmagent/spillway.token";
    let block = docs::with(&docs::block(&rig, "vmagent", 0), theirs, &token_file(&rig, "vmagent"));
    let words = block.split_whitespace().filter(|word| *word != "\\").skip(1);
    let config = file(&rig, "vmagent", "scrape.yml", &scrape(&target));
    let config = format!("-promscrape.config={config}");
    let listen = format!("-httpListenAddr={}", port.address());
    let own = [config.as_str(), listen.as_str(), "-remoteWrite.tmpDataPath=queue"];
    let client = start(&rig, "vmagent", &program, &words.chain(own).collect::<Vec<_>>());
    faults(&rig, &target).await;
    // What it has not sent when it ends stays in its queue on disk.
    let scraped = target.served() - 1;
    for n in [0, SERIES / 2, SERIES - 1] {
        each_scrape_is_there_once(&rig, "drill_series", n, scraped).await;
    }
    stop(&client, FLUSH_WITHIN).await;
}

/// What a pair scrapes at, and on which its intervals lie in MySQL.
const PAIR_INTERVAL_MS: i64 = 2_000;
/// Intervals with both of a pair, and with one of them.
const PAIR_INTERVALS: usize = 10;

/// One of a pair: both differ in a label alone, and tell their interval.
fn start_replica(rig: &Rig, target: &Target, replica: &str) -> (Process, Port) {
    let port = Port::take().expect("a port");
    let scrape = scrape(target).replace("scrape_interval: 1s", "scrape_interval: 2s");
    let label = format!("global: {{external_labels: {{prometheus_replica: {replica}}}, ");
    let config = config(rig, &docs::with(&scrape, "global: {", &label));
    let config = docs::with(&config, "/api/v1/write", "/api/v1/write?scrape_interval=2s");
    let name = format!("prometheus-{replica}");
    let process = start_named(rig, &name, &config, &port, &["--storage.tsdb.path=data"]);
    (process, port)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pair_of_prometheus_fills_each_interval_once_and_one_of_them_goes_on() {
    let rig = Rig::start(StackOptions::default()).await;
    let target = Target::listen().await;
    let (first, _port) = start_replica(&rig, &target, "a");
    let (second, _other_port) = start_replica(&rig, &target, "b");
    let intervals = async |wanted: usize| {
        until("MySQL has more intervals", SETTLED_WITHIN, async || {
            stored(&rig, "drill_series", "0").await.len() >= wanted
        })
        .await;
    };
    intervals(PAIR_INTERVALS).await;
    first.kill().await.expect("it runs");
    let both = stored(&rig, "drill_series", "0").await.len();
    intervals(both + PAIR_INTERVALS).await;
    stop(&second, FLUSH_WITHIN).await;
    let points = stored(&rig, "drill_series", "0").await;
    for pair in points.windows(2) {
        assert_eq!(pair[1].0 - pair[0].0, PAIR_INTERVAL_MS, "{points:?}");
    }
    assert_eq!(points[0].0 % PAIR_INTERVAL_MS, 0, "an interval is dated to its start");
    let scrapes = target.served() as usize;
    assert!(scrapes >= points.len() + PAIR_INTERVALS / 2, "both sent: {scrapes} scrapes");
    eprintln!("{scrapes} scrapes of a pair, {} intervals, each once", points.len());
}

/// One line of line protocol for each point: hosts, series of each, times of each.
fn lines() -> Vec<String> {
    let now_s =
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("a clock");
    let first = now_s.as_secs() - 600;
    let of_host = |host: u64| {
        (0..10).flat_map(move |n| {
            (0..10).map(move |at| {
                let (value, time) = (host * 100 + n * 10 + at, first + at * 7);
                format!("regrouped,host=h{host},n={n} value={value} {time}")
            })
        })
    };
    (0..20).flat_map(of_host).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn samples_that_come_again_in_other_requests_are_there_once() {
    let rig = Rig::start(StackOptions::default()).await;
    let mut lines = lines();
    let mut refused = 0;
    for (round, at_once) in [33, 70, 151].into_iter().enumerate() {
        for (index, request) in lines.chunks(at_once).enumerate() {
            if (round, index) == (0, 20) {
                rig.stack.kill("kafka-0").await.expect("it runs");
            }
            // In the first round nobody tries again: the next one has it in other requests.
            let status = write_lines(&rig, &request.join("\n")).await;
            assert!([204, 503].contains(&status), "{status}");
            refused += u32::from(status == 503);
            if round > 0 {
                let taken = async || write_lines(&rig, &request.join("\n")).await == 204;
                until("the request is taken", SETTLED_WITHIN, taken).await;
            }
        }
        if round == 0 {
            rig.stack.start_process("kafka-0").await.expect("it comes back");
        }
        lines.reverse();
    }
    assert!(refused > 0, "Kafka was away");
    let mysql = rig.mysql("demo");
    let count = "SELECT COUNT(*), COUNT(DISTINCT host, labels, ts), CAST(SUM(value) AS SIGNED) \
                 FROM spillway.metrics WHERE metric = 'regrouped_value'";
    until("all points are in MySQL", SETTLED_WITHIN, async || {
        let counts: (i64, i64, Option<i64>) =
            sqlx::query_as(count).fetch_one(&mysql).await.expect("MySQL answers");
        assert!(counts.0 <= 2_000, "more than was sent: {counts:?}");
        counts == (2_000, 2_000, Some((0..2_000).sum()))
    })
    .await;
    eprintln!("2000 points in three groupings, {refused} requests refused: each is there once");
}

/// The status of `POST /write`.
async fn write_lines(rig: &Rig, body: &str) -> u16 {
    let file = rig.stack.file();
    let address = file.api[0].trim_start_matches("http://").to_owned();
    let token = format!("Authorization: Token {}", file.tokens["demo"]);
    let asked = post(&address, "/write?precision=s", &token, body);
    timeout(SENDERS_PATIENCE, asked).await.expect("an answer in time").expect("an answer")
}
