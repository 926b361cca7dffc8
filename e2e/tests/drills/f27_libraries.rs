//! Row 27, libraries: what programs in Python send with the libraries of InfluxDB, OpenTelemetry
//! and Datadog is in MySQL, value by value, also what they sent while Kafka was away and ingest-api
//! was killed.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::Deserialize;
use spillway_e2e::rig::{Rig, SETTLED_WITHIN};
use spillway_testkit::process::Process;
use spillway_testkit::stack::StackOptions;
use sqlx::Row as _;

use crate::foreign::{API_AWAY, home, start, tools};
use crate::sending::until;

const LIBRARIES: [&str; 5] =
    ["influxdb-client", "influxdb", "opentelemetry", "datadog-api-client", "datadog"];
/// Points of each series before, and as many while something is away.
const POINTS: u64 = 20;
/// How long Kafka is away before ingest-api is killed as well.
const KAFKA_AWAY: Duration = Duration::from_secs(15);
/// The application's patience; the slowest library waits up to a minute between two attempts.
const PATIENCE: Duration = Duration::from_secs(240);

#[derive(Debug, Deserialize)]
struct Point {
    metric: String,
    host: String,
    labels: BTreeMap<String, String>,
    ts_ms: i64,
    value: f64,
}

/// Metric, host, labels, time.
type Place = (String, String, BTreeMap<String, String>, i64);

/// Starts a program for each library; `first` names the points.
fn start_all(rig: &Rig, python: &Path, first: u64) -> Vec<Process> {
    let script = tools::clients().join("python/send.py").display().to_string();
    let file = rig.stack.file();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock");
    let by = (now + PATIENCE).as_secs().to_string();
    let (first_text, count) = (first.to_string(), POINTS.to_string());
    let begin = |library: &&str| {
        let (api, token) = (file.api[0].as_str(), file.tokens["demo"].as_str());
        let args = [script.as_str(), library, api, token, &first_text, &count, &by];
        start(rig, &format!("{library}-{first}"), python, &args)
    };
    LIBRARIES.iter().map(begin).collect()
}

/// Waits for the programs and adds what they say they sent.
async fn ended(rig: &Rig, programs: Vec<Process>, sent: &mut BTreeMap<Place, f64>) {
    for program in programs {
        let name = program.spec().name.clone();
        let status = program.wait(PATIENCE + SETTLED_WITHIN).await;
        assert!(status.is_some_and(|status| status.success()), "{}", program.spec().log_tail());
        let log = fs::read_to_string(home(rig, &name).join("log")).expect("its log");
        let said = log.lines().last().expect("it says what it sent");
        let points: Vec<Point> = serde_json::from_str(said).expect("JSON");
        let again = log.lines().filter(|line| line.starts_with("again")).count();
        eprintln!("{name}: {} points, tried again by the application: {again}", points.len());
        for point in points {
            let place = (point.metric, point.host, point.labels, point.ts_ms);
            assert_eq!(sent.insert(place, point.value), None, "it sent a point twice");
        }
    }
}

/// All that is in MySQL of `demo`.
async fn in_mysql(rig: &Rig) -> BTreeMap<Place, f64> {
    let rows = sqlx::query(
        "SELECT CONVERT(metric USING utf8mb4) AS metric, CONVERT(host USING utf8mb4) AS host, \
         CAST(labels AS CHAR) AS labels, \
         CAST(ROUND(ts * 1000) AS SIGNED) AS ts_ms, value FROM spillway.metrics \
         WHERE environment = 'demo'",
    )
    .fetch_all(&rig.mysql("demo"))
    .await
    .expect("MySQL answers");
    let point = |row: &sqlx::mysql::MySqlRow| {
        let labels: String = row.get("labels");
        let labels = serde_json::from_str(&labels).expect("labels are an object of texts");
        ((row.get("metric"), row.get("host"), labels, row.get("ts_ms")), row.get("value"))
    };
    let there: BTreeMap<Place, f64> = rows.iter().map(point).collect();
    assert_eq!(there.len(), rows.len(), "a point is there twice");
    there
}

#[tokio::test(flavor = "multi_thread")]
async fn what_python_libraries_sent_is_in_mysql_value_by_value() {
    let python = tools::python().await;
    let rig = Rig::start(StackOptions::default()).await;
    let mut sent = BTreeMap::new();
    ended(&rig, start_all(&rig, &python, 0), &mut sent).await;
    rig.stack.kill("kafka-0").await.expect("it runs");
    let programs = start_all(&rig, &python, POINTS);
    tokio::time::sleep(KAFKA_AWAY).await;
    rig.stack.kill("ingest-api-0").await.expect("it runs");
    tokio::time::sleep(API_AWAY).await;
    rig.stack.start_process("ingest-api-0").await.expect("it comes back");
    rig.stack.start_process("kafka-0").await.expect("it comes back");
    ended(&rig, programs, &mut sent).await;
    until("MySQL has all points", SETTLED_WITHIN, async || {
        in_mysql(&rig).await.len() >= sent.len()
    })
    .await;
    let there = in_mysql(&rig).await;
    for (place, value) in &sent {
        assert_eq!(there.get(place), Some(value), "{place:?}");
    }
    assert_eq!(there.len(), sent.len(), "more is there than was sent");
    eprintln!("{} points of {} libraries, each there once", sent.len(), LIBRARIES.len());
}
