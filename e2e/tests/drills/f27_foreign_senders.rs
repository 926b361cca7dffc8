//! Row 27: senders of other makers while Kafka is away and ingest-api is killed; what they send
//! again, regrouped, and from two of a pair, is there once.

use std::fs;
use std::time::Duration;

use spillway_e2e::rig::{Rig, SETTLED_WITHIN};
use spillway_testkit::http;
use spillway_testkit::ports::Port;
use spillway_testkit::stack::StackOptions;

use crate::foreign::target::{SERIES, Target};
use crate::foreign::{prometheus, start, stop, stored};
use crate::sending::until;

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

#[tokio::test(flavor = "multi_thread")]
async fn what_prometheus_has_in_its_own_store_is_in_mysql() {
    let program = prometheus().expect("apt-get download prometheus works here");
    let rig = Rig::start(StackOptions::default()).await;
    let (target, port) = (Target::listen().await, Port::take().expect("a port"));
    let file = rig.stack.dir().join("prometheus.yml");
    fs::write(&file, config(&rig, &target)).expect("its configuration");
    let config = format!("--config.file={}", file.display());
    let listen = format!("--web.listen-address={}", port.address());
    let client =
        start(&rig, "prometheus", &program, &[&config, &listen, "--storage.tsdb.path=data"]);
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
    let program = prometheus().expect("apt-get download prometheus works here");
    let rig = Rig::start(StackOptions::default()).await;
    let (target, port) = (Target::listen().await, Port::take().expect("a port"));
    let file = rig.stack.dir().join("prometheus.yml");
    fs::write(&file, config(&rig, &target)).expect("its configuration");
    let config = format!("--config.file={}", file.display());
    let listen = format!("--web.listen-address={}", port.address());
    let mode = "--enable-feature=agent";
    let store = "--storage.agent.path=data";
    let client = start(&rig, "prometheus", &program, &[&config, &listen, mode, store]);
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
