//! Row 27: senders of other makers while Kafka is away and ingest-api is killed; what they send
//! again, regrouped, and from two of a pair, is there once.

use std::fs;
use std::time::Duration;

use spillway_e2e::rig::{Rig, SETTLED_WITHIN};
use spillway_testkit::http;
use spillway_testkit::ports::Port;
use spillway_testkit::process::Process;
use spillway_testkit::stack::StackOptions;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::foreign::target::{SERIES, Target};
use crate::foreign::{prometheus, start, stop, stored};
use crate::sending::{SENDERS_PATIENCE, until};

/// How long Kafka is away; Prometheus keeps hours in its log.
const KAFKA_AWAY: Duration = Duration::from_secs(60);
/// Prometheus sends what is in its queues before it ends.
const FLUSH_WITHIN: Duration = Duration::from_secs(90);
/// Scrapes before, between and after the faults.
const SCRAPES: u64 = 8;

fn config(rig: &Rig, target: &Target) -> String {
    let file = rig.stack.file();
    let (api, token) = (&file.api[0], &file.tokens["demo"]);
    format!(
        "global: {{scrape_interval: 1s, scrape_timeout: 1s}}\n\
         scrape_configs:\n\
         - job_name: drill\n  static_configs: [{{targets: ['{}']}}]\n\
         remote_write:\n\
         - url: {api}/api/v1/write\n  authorization: {{credentials: '{token}'}}\n  \
         queue_config: {{batch_send_deadline: 1s, min_backoff: 100ms, max_backoff: 2s}}\n",
        target.address
    )
}

/// Until the client has scraped some more.
async fn scrapes(target: &Target) {
    let wanted = target.served() + SCRAPES;
    until("the client scrapes", SETTLED_WITHIN, async || target.served() >= wanted).await;
}

/// Kafka away for a minute, ingest-api killed, with work before, between and after.
async fn faults(rig: &Rig, target: &Target) {
    scrapes(target).await;
    rig.stack.kill("kafka-0").await.expect("it runs");
    tokio::time::sleep(KAFKA_AWAY).await;
    rig.stack.start_process("kafka-0").await.expect("it comes back");
    scrapes(target).await;
    rig.kill_and_start("ingest-api-0", Duration::from_secs(5)).await;
    scrapes(target).await;
}

/// The values that the target said, each once, in order: `n` is added to each.
async fn settled(rig: &Rig, n: u64, scrapes: u64) -> Vec<(i64, f64)> {
    let name = n.to_string();
    let reached = (scrapes + n) as f64;
    until("MySQL has the last scrape", SETTLED_WITHIN, async || {
        let points = stored(rig, "drill_series", &name).await;
        points.iter().any(|point| point.1 >= reached)
    })
    .await;
    stored(rig, "drill_series", &name).await
}

/// Debian's Prometheus, which scrapes the target and sends to the stack.
fn start_prometheus(rig: &Rig, target: &Target, port: &Port, more: &[&str]) -> Process {
    let program = prometheus().expect("apt-get download prometheus works here");
    let file = rig.stack.dir().join("prometheus.yml");
    fs::write(&file, config(rig, target)).expect("its configuration");
    let config = format!("--config.file={}", file.display());
    let listen = format!("--web.listen-address={}", port.address());
    start(rig, "prometheus", &program, &[&[config.as_str(), listen.as_str()], more].concat())
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
            settled(&rig, n, last).await.into_iter().take(samples.len()).collect();
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
        let points = settled(&rig, n, scraped).await;
        let values: Vec<u64> = points.iter().map(|point| point.1 as u64 - n).collect();
        let wanted: Vec<u64> = (1..=scraped).collect();
        assert_eq!(values.get(..wanted.len()), Some(wanted.as_slice()), "series {n}");
        eprintln!("series {n}: {scraped} scrapes, each in MySQL once");
    }
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
    let request = format!(
        "POST /write?precision=s HTTP/1.1\r\nHost: {address}\r\nAuthorization: Token {}\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
        file.tokens["demo"],
        body.len()
    );
    let asked = async {
        let mut stream = TcpStream::connect(&address).await?;
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok::<_, std::io::Error>(answer)
    };
    let answer = timeout(SENDERS_PATIENCE, asked).await.expect("an answer in time").expect("one");
    answer.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status")
}
