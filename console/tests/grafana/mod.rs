//! The dashboards that are shipped: sound JSON, and SQL that runs on real MySQL, prunes partitions
//! and uses a key. Then one host's charts in a real browser, with names that are markup.

use std::collections::BTreeSet;
use std::path::PathBuf;

use serde_json::Value as Json;
use sqlx::{Executor, MySqlConnection, Row};

use crate::browser::Browser;
use crate::site::Site;

const ENVIRONMENT: &str = "acme";
const HOST: &str = "web'1\"<script>window.pwned=1</script>";
const METRICS: [&str; 12] = [
    "cpu.usage",
    "load.1m",
    "load.5m",
    "mem.available_bytes",
    "disk.usage",
    "diskio.read_bytes",
    "diskio.write_bytes",
    "net.recv_bytes",
    "net.sent_bytes",
    "pressure.avg10",
    "processes.count",
    "<script>window.pwned=1</script>",
];

fn dashboards() -> Vec<(String, Json)> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../deploy/grafana/dashboards");
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let read = |path: PathBuf| {
        let text = std::fs::read_to_string(&path).unwrap();
        (path.display().to_string(), serde_json::from_str(&text).expect("it is JSON"))
    };
    entries.map(read).collect()
}

/// Every statement of a dashboard: panels, variables, annotations.
fn statements(dashboard: &Json) -> Vec<String> {
    let list = |pointer: &str| dashboard.pointer(pointer).unwrap().as_array().unwrap().clone();
    let panels = list("/panels");
    let of_panels = panels.iter().flat_map(|panel| panel["targets"].as_array().unwrap());
    let of_panels = of_panels.map(|target| target["rawSql"].as_str().unwrap().to_owned());
    let variables = list("/templating/list");
    let variables = variables.iter().map(|one| one["query"].as_str().unwrap().to_owned());
    let annotations = list("/annotations/list");
    let annotations = annotations.iter().map(|one| one["rawQuery"].as_str().unwrap().to_owned());
    of_panels.chain(variables).chain(annotations).collect()
}

/// As Grafana's MySQL data source does (its documentation, "Macros").
fn filled(sql: &str, from: i64, to: i64) -> String {
    let quoted = |text: &str| format!("'{}'", text.replace('\'', "''"));
    let mut sql = sql
        .replace("$__unixEpochFrom()", &from.to_string())
        .replace("$__unixEpochTo()", &to.to_string())
        .replace("$__interval", "10s")
        .replace("${environment:sqlstring}", &quoted(ENVIRONMENT))
        .replace("${host:sqlstring}", &quoted(HOST));
    while let Some(at) = sql.find("$__unixEpochGroup(") {
        let (head, rest) = sql.split_at(at);
        let rest = rest.strip_prefix("$__unixEpochGroup(").unwrap();
        let (column, rest) = rest.split_once(",10s)").unwrap();
        sql = format!("{head}({column} DIV 10 * 10){rest}");
    }
    assert!(!sql.contains("$__") && !sql.contains("${"), "a variable dangles: {sql}");
    sql
}

#[test]
fn dashboards_are_sound_and_each_begins_with_freshness_and_gaps() {
    let all = dashboards();
    assert!(all.len() >= 4);
    let mut uids = BTreeSet::new();
    for (name, dashboard) in &all {
        assert!(uids.insert(dashboard["uid"].to_string()), "{name}: another has this uid");
        let mut ids = BTreeSet::new();
        let panels = dashboard["panels"].as_array().unwrap();
        for panel in panels {
            assert!(ids.insert(panel["id"].as_i64().unwrap()), "{name}: an id is there twice");
            assert_eq!(panel["datasource"]["uid"], "spillway", "{name}");
            assert_eq!(panel["targets"][0]["datasource"]["uid"], "spillway", "{name}");
        }
        let first: String =
            panels.iter().take(4).map(|panel| panel["targets"].to_string()).collect();
        assert!(first.contains("spillway.freshness") && first.contains("spillway.gaps"), "{name}");
        let declared = dashboard["templating"]["list"].as_array().unwrap();
        let declared: Vec<_> = declared.iter().map(|one| one["name"].as_str().unwrap()).collect();
        for sql in statements(dashboard) {
            for variable in
                sql.split("${").skip(1).map(|rest| rest.split([':', '}']).next().unwrap())
            {
                assert!(declared.contains(&variable), "{name} has no variable {variable}");
            }
            filled(&sql, 0, 1);
        }
    }
}

async fn fill(root: &mut MySqlConnection, now: i64) {
    let sql = "INSERT INTO spillway_store.hosts (host_id, environment, host, first_seen_ts,
               last_seen_ts, newest_ts) VALUES (1, ?, ?, 1, ?, ?)";
    let hosts = sqlx::query(sql).bind(ENVIRONMENT).bind(HOST).bind(now).bind(now);
    hosts.execute(&mut *root).await.unwrap();
    for (id, metric) in METRICS.iter().enumerate() {
        let kind = if metric.starts_with("diskio") || metric.starts_with("net") { 3 } else { 1 };
        let sql = "INSERT INTO spillway_store.series (series_id, environment, host, metric, labels,
                   kind, identity, first_seen_ts, last_seen_ts)
                   VALUES (?, ?, ?, ?, ?, ?, UNHEX(MD5(?)), 1, ?)";
        let labels = r#"{"device":"<script>window.pwned=1</script>"}"#;
        let series = sqlx::query(sql).bind(id as i64).bind(ENVIRONMENT).bind(HOST).bind(metric);
        let series = series.bind(labels).bind(kind).bind(id as i64).bind(now);
        series.execute(&mut *root).await.unwrap();
        let rows = (0..180).map(|i| {
            let (ts, value) = (now / 10 * 10 - 10 * (180 - i), i * 7 % 97 + i);
            format!("({id},{ts},1,{value},{value},{value},{value},{value},'[{value}]')")
        });
        let rows: Vec<String> = rows.collect();
        let sql = format!("INSERT INTO spillway_store.points VALUES {}", rows.join(","));
        root.execute(sql.as_str()).await.unwrap();
    }
    let event = "INSERT INTO spillway_store.events (time_at, environment, kind, text)
                 VALUES (?, ?, 'drill', 'Kafka was killed')";
    sqlx::query(event)
        .bind(now * 1000 - 60_000)
        .bind(ENVIRONMENT)
        .execute(&mut *root)
        .await
        .unwrap();
}

/// Runs every statement, and looks at the plan of those that read points.
pub async fn every_statement_runs_and_prunes(root: &mut MySqlConnection) {
    let now = jiff::Timestamp::now().as_second();
    let reader = "INSERT IGNORE INTO spillway_store.readers (name, created_at)
                  VALUES (SUBSTRING_INDEX(USER(), '@', 1), 1)";
    root.execute(reader).await.unwrap();
    fill(root, now).await;
    let (mut run, mut with_rows, mut planned) = (0, 0, 0);
    for (name, dashboard) in dashboards() {
        for sql in statements(&dashboard) {
            let sql = filled(&sql, now - 3_600, now);
            let rows = root.fetch_all(sql.as_str()).await;
            let rows = rows.unwrap_or_else(|error| panic!("{name}: {error}\n{sql}"));
            run += 1;
            with_rows += usize::from(!rows.is_empty());
            if sql.contains("metrics_10s") {
                assert_prunes(root, &sql).await;
                planned += 1;
            }
        }
    }
    assert!(run > 40 && with_rows > 30 && planned > 10, "{run}, {with_rows}, {planned}");
}

/// An hour lies in two or three hourly partitions, and each table is read by a key.
async fn assert_prunes(root: &mut MySqlConnection, sql: &str) {
    let plan = root.fetch_all(format!("EXPLAIN {sql}").as_str()).await.unwrap();
    let mut reads_points = false;
    for row in &plan {
        let column = |name| row.try_get_unchecked::<Option<String>, _>(name).ok().flatten();
        let partitions = column("partitions").unwrap_or_default();
        if partitions.is_empty() {
            continue;
        }
        reads_points = true;
        assert!(partitions.split(',').count() <= 3, "{partitions}\n{sql}");
        assert!(column("key").is_some(), "points are read without a key:\n{sql}");
    }
    assert!(reads_points, "no partitioned table in the plan of\n{sql}");
}

/// The pages of an environment and of a host, as served.
pub async fn hosts_have_charts_and_names_are_only_text(site: &Site) {
    let server = StatusServer::start(site).await;
    let browser = Browser::start().await;
    browser.screen(360, 800, false).await;
    browser.open(&format!("{}/environments/{ENVIRONMENT}", server.address)).await;
    browser.assert_sound("the environment").await;
    let link = browser.value("document.querySelector('tbody a').href").await;
    assert_eq!(browser.text("tbody th").await, HOST);
    for (width, dark) in [(1280, false), (360, true)] {
        browser.screen(width, 800, dark).await;
        browser.open(link.as_str().unwrap()).await;
        browser.until("document.body.dataset.ready === 'true'").await;
        browser.assert_sound("the host").await;
        let drawn = browser.value("document.querySelectorAll('.chart[data-drawn]').length").await;
        let charts = browser.value("document.querySelectorAll('.chart').length").await;
        assert!(drawn == charts && charts.as_i64().unwrap() >= 8, "{drawn} of {charts}");
        let inked = "[...document.querySelectorAll('.chart canvas')].every((c) => \
            c.getContext('2d').getImageData(0, 0, c.width, c.height).data.some((b) => b > 0))";
        assert_eq!(browser.value(inked).await, true, "a chart is empty");
        browser.picture(&format!("host-{width}-{}", if dark { "dark" } else { "light" })).await;
    }
    assert_eq!(browser.text("h1.page").await, HOST);
    assert!(browser.text(".legend").await.contains("<script>"), "labels are text");
    browser.open(&format!("{}/hosts/{ENVIRONMENT}/nobody", server.address)).await;
    assert!(browser.text(".why").await.contains("no such host"));
}

/// A running `spillway status serve`.
struct StatusServer {
    address: String,
    process: std::process::Child,
}

impl StatusServer {
    /// On a free port; waits until it is there.
    async fn start(site: &Site) -> Self {
        let free = || std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let (page, admin) = (free(), free());
        let process = std::process::Command::new(env!("CARGO_BIN_EXE_spillway"))
            .arg("--config")
            .arg(site.path("spillway.toml"))
            .args(["status", "serve"])
            .env("SPILLWAY__STATUS__LISTEN", page.to_string())
            .env("SPILLWAY__ADMIN__LISTEN", admin.to_string())
            .stdin(std::process::Stdio::null())
            .spawn()
            .unwrap();
        let up = async {
            while tokio::net::TcpStream::connect(page).await.is_err() {
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(std::time::Duration::from_secs(60), up).await.unwrap();
        Self { address: format!("http://{page}"), process }
    }
}

impl Drop for StatusServer {
    /// Also after a failed assertion.
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}
