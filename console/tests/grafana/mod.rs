//! The dashboards that are shipped: sound JSON, and SQL that runs on real MySQL, prunes partitions
//! and uses a key. Then one host's charts in a real browser, with names that are markup.

use std::collections::BTreeSet;

use spillway_testkit::grafana::{Dashboard, Statement, View, dashboards};
use spillway_testkit::ports::Port;
use sqlx::{Executor, MySqlConnection, Row};

use crate::browser::Browser;
use crate::site::Site;

mod nice;

const ENVIRONMENT: &str = "acme";
const HOST: &str = "web'1\"<script>window.pwned=1</script>";
/// A watched MySQL server.
const SERVER: &str = "orders'1";
const METRICS: [&str; 13] = [
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
    "uptime",
    "<script>window.pwned=1</script>",
];

/// The time shown, what Grafana makes of it, and the most partitions it may read.
const SPANS: [(i64, &str, i64, usize); 3] = [
    (3_600, "metrics_10s", 10, 3),
    (2 * 86_400, "metrics_1m", 120, 4),
    (60 * 86_400, "metrics_1h", 3_600, 4),
];

fn view(span: (i64, &'static str, i64, usize), now: i64) -> View<'static> {
    let (seconds, resolution, interval_s, _) = span;
    let variables = [
        ("environment", ENVIRONMENT),
        ("host", HOST),
        ("server", SERVER),
        ("resolution", resolution),
    ];
    let variables = variables.map(|(name, value)| (name, value.to_owned())).into();
    View { variables, from: now - seconds, to: now, interval_s }
}

#[test]
fn dashboards_are_sound_and_each_begins_with_freshness_and_gaps() {
    let all = dashboards();
    let mut names: Vec<_> = all.iter().map(|one| one.name.as_str()).collect();
    names.sort_unstable();
    assert_eq!(names, ["fleet", "host", "loss", "mysql", "pipeline"]);
    let mut uids = BTreeSet::new();
    for Dashboard { name, json } in &all {
        assert!(uids.insert(json["uid"].to_string()), "{name}: another has this uid");
        let mut ids = BTreeSet::new();
        let panels = json["panels"].as_array().unwrap();
        for panel in panels {
            assert!(ids.insert(panel["id"].as_i64().unwrap()), "{name}: an id is there twice");
            assert_eq!(panel["datasource"]["uid"], "spillway", "{name}");
            assert_eq!(panel["targets"][0]["datasource"]["uid"], "spillway", "{name}");
        }
        let first: String =
            panels.iter().take(4).map(|panel| panel["targets"].to_string()).collect();
        assert!(first.contains("spillway.freshness") && first.contains("spillway.gaps"), "{name}");
    }
}

#[test]
fn variables_are_declared_macros_are_grafanas_and_charts_follow_the_time_shown() {
    for dashboard in dashboards() {
        let name = &dashboard.name;
        let declared = dashboard.json["templating"]["list"].as_array().unwrap();
        let declared: Vec<_> = declared.iter().map(|one| one["name"].as_str().unwrap()).collect();
        for Statement { of, kind, sql } in dashboard.statements() {
            for used in sql.split("${").skip(1).map(|rest| rest.split([':', '}']).next().unwrap()) {
                assert!(declared.contains(&used), "{name}, {of}: no variable {used}");
            }
            let filled = view(SPANS[0], 3_600).fill(&sql);
            filled.unwrap_or_else(|error| panic!("{name}, {of}: {error}"));
            let fixed = ["metrics_10s", "metrics_1m", "metrics_1h"];
            let fixed = kind != "variable" && fixed.iter().any(|view| sql.contains(view));
            assert!(!fixed, "{name}, {of}: names a view; use ${{resolution:raw}}");
        }
    }
}

async fn fill(root: &mut MySqlConnection, now: i64) {
    let sql = "INSERT INTO spillway_store.hosts (host_id, environment, host, first_seen_ts,
               last_seen_ts, newest_ts) VALUES (1, ?, ?, 1, ?, ?)";
    let hosts = sqlx::query(sql).bind(ENVIRONMENT).bind(HOST).bind(now).bind(now);
    // One commit: each is a sync of the disk.
    root.execute("BEGIN").await.unwrap();
    hosts.execute(&mut *root).await.unwrap();
    for (id, metric) in metrics().iter().enumerate() {
        let kind = kind(metric);
        let sql = "INSERT INTO spillway_store.series (series_id, environment, host, metric, labels,
                   kind, identity, first_seen_ts, last_seen_ts)
                   VALUES (?, ?, ?, ?, ?, ?, UNHEX(MD5(?)), 1, ?)";
        let labels = match metric.starts_with("mysql.") {
            true => r#"{"server":"orders'1","statement":"SELECT ?","schema":"shop","digest":"ab"}"#,
            false => r#"{"device":"<script>window.pwned=1</script>"}"#,
        };
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
        for (table, step, more) in [("rollup_1m", 60, "1,1"), ("rollup_1h", 3_600, "1")] {
            let rows = (1..6).map(|i| {
                let (ts, value) = ((now / step - i) * step, 100 - i);
                format!("({id},{ts},1,{value},{value},{value},{value},{value},{more})")
            });
            let rows = rows.collect::<Vec<_>>().join(",");
            let sql = format!("INSERT INTO spillway_store.{table} VALUES {rows}");
            root.execute(sql.as_str()).await.unwrap();
        }
    }
    let event = "INSERT INTO spillway_store.events (time_at, environment, kind, text)
                 VALUES (?, ?, 'drill', 'Kafka was killed')";
    sqlx::query(event)
        .bind(now * 1000 - 60_000)
        .bind(ENVIRONMENT)
        .execute(&mut *root)
        .await
        .unwrap();
    root.execute("COMMIT").await.unwrap();
}

/// What the host measures: also everything that the dashboard of MySQL names.
fn metrics() -> Vec<String> {
    let named = dashboards().into_iter().flat_map(|dashboard| dashboard.statements());
    let named: Vec<String> = named.map(|statement| statement.sql).collect();
    let quoted = named.iter().flat_map(|sql| sql.split('\''));
    let mysql = quoted.filter(|text| text.starts_with("mysql.")).map(str::to_owned);
    METRICS.map(str::to_owned).into_iter().chain(mysql.collect::<BTreeSet<_>>()).collect()
}

/// As the views' `kind`: 1 gauge, 2 delta, 3 cumulative.
fn kind(metric: &str) -> u8 {
    match metric {
        delta if delta.starts_with("mysql.statement") => 2,
        counter if ["diskio", "net", "mysql.status"].iter().any(|p| counter.starts_with(p)) => 3,
        _ => 1,
    }
}

/// Runs every statement for each span, and looks at the plan of those that read points.
pub async fn every_statement_runs_and_prunes(root: &mut MySqlConnection) {
    let now = jiff::Timestamp::now().as_second();
    let reader = "INSERT IGNORE INTO spillway_store.readers (name, created_at)
                  VALUES (SUBSTRING_INDEX(USER(), '@', 1), 1)";
    root.execute(reader).await.unwrap();
    fill(root, now).await;
    nice::fill(root, now).await;
    for span in SPANS {
        let (mut run, mut empty, mut planned) = (0, Vec::new(), 0);
        let view = view(span, now);
        for dashboard in dashboards() {
            for Statement { of, sql, .. } in dashboard.statements() {
                let of = format!("{}, {of}, {} s", dashboard.name, span.0);
                let sql = view.fill(&sql).unwrap();
                let rows = root.fetch_all(sql.as_str()).await;
                let rows = rows.unwrap_or_else(|error| panic!("{of}: {error}\n{sql}"));
                run += 1;
                if of.contains("resolution") {
                    let chosen: String = rows[0].try_get_unchecked(0).unwrap();
                    assert_eq!(chosen, span.1, "{of}");
                } else if sql.contains(span.1) {
                    assert_prunes(root, &sql, span.3).await;
                    planned += 1;
                    if rows.is_empty() {
                        empty.push(of);
                    }
                }
            }
        }
        assert!(run > 80 && planned > 30, "{run}, {planned}");
        assert!(empty.is_empty(), "nothing to see: {empty:?}");
    }
}

/// Only the partitions of that time are read, and each table by a key.
async fn assert_prunes(root: &mut MySqlConnection, sql: &str, most: usize) {
    let plan = root.fetch_all(format!("EXPLAIN {sql}").as_str()).await.unwrap();
    let mut reads_points = false;
    for row in &plan {
        let column = |name| row.try_get_unchecked::<Option<String>, _>(name).ok().flatten();
        let partitions = column("partitions").unwrap_or_default();
        if partitions.is_empty() {
            continue;
        }
        reads_points = true;
        assert!(partitions.split(',').count() <= most, "{partitions}\n{sql}");
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
    let hosts = browser.text("tbody").await;
    assert!(hosts.contains(HOST) && hosts.contains(nice::HOST), "{hosts}");
    let link = "[...document.querySelectorAll('tbody a')] \
        .find((a) => a.innerText.includes('script')).href";
    let link = browser.value(link).await;
    nice::look(&browser, &server.address).await;
    let link = link.as_str().unwrap();
    // From windows, from minutes, from hours.
    for (width, dark, range) in [(1280, false, 3_600), (360, true, 86_400), (1280, true, 2_592_000)]
    {
        browser.screen(width, 800, dark).await;
        browser.open(&format!("{link}?range={range}")).await;
        browser.until("document.body.dataset.ready === 'true'").await;
        browser.assert_sound("the host").await;
        let drawn = browser.value("document.querySelectorAll('.chart[data-drawn]').length").await;
        let charts = browser.value("document.querySelectorAll('.chart').length").await;
        assert!(drawn == charts && charts.as_i64().unwrap() >= 8, "{drawn} of {charts}");
        let inked = "[...document.querySelectorAll('.chart canvas')].every((c) => \
            c.getContext('2d').getImageData(0, 0, c.width, c.height).data.some((b) => b > 0))";
        assert_eq!(browser.value(inked).await, true, "a chart is empty");
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
    _ports: [Port; 2],
}

impl StatusServer {
    /// On a free port; waits until it is there.
    async fn start(site: &Site) -> Self {
        let ports = [Port::take().unwrap(), Port::take().unwrap()];
        let [page, admin] = ports.each_ref().map(Port::socket);
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
        Self { address: format!("http://{page}"), process, _ports: ports }
    }
}

impl Drop for StatusServer {
    /// Also after a failed assertion.
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}
