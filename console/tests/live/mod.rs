//! The whole pipeline with the status page open in a browser: all is well, Kafka is killed, Kafka
//! comes back. Then the dashboards, on what the agent of this run really sent.

use std::time::Duration;

use spillway_testkit::grafana::{Dashboard, Statement, View, dashboards};
use spillway_testkit::{AgentOptions, Stack, StackOptions};
use sqlx::{Connection, MySqlConnection, Row};
use tokio::time::Instant;

use crate::browser::Browser;

/// All that takes real time on a busy machine.
const WITHIN: Duration = Duration::from_secs(110);
/// Panels that a primary without replicas and without trouble leaves empty.
const MAY_BE_EMPTY: [&str; 2] = ["Replication lag", "Replication threads"];

/// What takes minutes in production takes seconds here.
const HASTY: &str = "[collect]\ninterval = \"1s\"\nspread = \"0s\"\n[deliver]\n\
    request_timeout = \"5s\"\npark_after = \"3s\"\nprobe_interval = \"1s\"\n\
    probe_interval_max = \"2s\"\n";

/// With an agent that watches MySQL.
async fn stack() -> Stack {
    let options = StackOptions { status_page: true, ..StackOptions::default() };
    let stack = Stack::start(options).await.unwrap();
    let file = stack.file();
    let address = file.mysql[0].primary.rsplit(['@', '/']).find(|part| part.contains(':'));
    let password = stack.dir().join("watched.password");
    std::fs::write(&password, "stack").unwrap();
    let mut agent = AgentOptions::new("watching-agent", "demo", "watching-agent");
    agent.toml = format!(
        "{HASTY}[[mysql]]\nname = \"own\"\naddress = {:?}\nuser = \"stack\"\n\
         password_file = {:?}\ninterval = \"2s\"\ntimeout = \"2s\"\n",
        address.unwrap(),
        password.display().to_string()
    );
    stack.spawn_agent(agent).await.unwrap();
    stack
}

/// The page is opened once and never reloaded.
pub async fn an_outage_with_the_page_open() {
    let mut stack = stack().await;
    let browser = Browser::start().await;
    browser.screen(1280, 1_120, false).await;
    browser.open(&stack.status_page_url().unwrap()).await;
    let headline = "document.getElementById('headline').innerText";
    let says = |words: &str| format!("{headline}.startsWith({words:?})");
    browser.until(&says("Everything arrives")).await;
    browser.value("(window.opened = 'once')").await;
    browser.glimpse("live-1-normal").await;
    what_delays_no_data_is_no_outage(&stack, &browser).await;

    stack.kill("kafka-0").await.unwrap();
    browser.until(&says("Kafka is down; data is kept and delayed")).await;
    browser.glimpse("live-2-outage").await;
    assert_eq!(browser.text("#tile-lost .value").await, "nothing");
    let told = browser.text(".verdict").await + &browser.text("#tile-delayed").await;
    assert!(!told.contains("Nothing waits"), "{told}");
    // The agent took the other way: what it parked waits in S3, and is counted there.
    let parked = "[...document.querySelectorAll('.drawing.lying .node')].some((node) => \
        node.querySelector('.name').textContent === 'S3' \
        && Number(node.querySelector('.value').textContent) >= 2)";
    browser.until(parked).await;
    browser.glimpse("live-3-parking").await;

    stack.start_process("kafka-0").await.unwrap();
    browser.until(&format!("!{}", says("Kafka is down"))).await;
    browser.glimpse("live-4-recovery").await;
    browser.until(&says("Everything arrives")).await;
    assert_eq!(browser.text("#tile-lost .value").await, "nothing");
    assert_eq!(browser.value("window.opened").await, "once", "the page was not reloaded");
    browser.glimpse("live-5-normal-again").await;

    let file = stack.file();
    let mut reader = MySqlConnection::connect(&file.mysql[0].readers["demo"]).await.unwrap();
    every_chart_shows_something(&mut reader).await;
    stack.stop();
}

/// Data arrives meanwhile, and the page says so.
async fn what_delays_no_data_is_no_outage(stack: &Stack, browser: &Browser) {
    for (process, sentence) in [
        ("keeper", "Keeper is down; data arrives, rollups and the measurement of lag stand still"),
        ("s3", "S3 detour is down; data arrives, agents keep it should the API fail"),
        ("recovery-worker-0", "Recovery worker is down; data arrives, what is parked in S3 waits"),
    ] {
        let says = |words: &str| {
            format!("document.getElementById('headline').innerText.startsWith({words:?})")
        };
        stack.freeze(process).unwrap();
        browser.until(&says(sentence)).await;
        let warns = "document.querySelector('.verdict').classList.contains('warning')";
        assert_eq!(browser.value(warns).await, true, "{sentence}");
        stack.thaw(process).unwrap();
        browser.until(&says("Everything arrives")).await;
    }
}

/// Asked as Grafana asks, with a reader's login.
async fn every_chart_shows_something(reader: &mut MySqlConnection) {
    let by = Instant::now() + WITHIN;
    for Dashboard { name, json } in dashboards() {
        let statements = Dashboard { name: name.clone(), json }.statements();
        for Statement { of, kind, sql } in statements {
            let is_chart =
                sql.contains("${resolution:raw}") && !MAY_BE_EMPTY.contains(&of.as_str());
            while !shows_something(reader, &sql, &kind).await && is_chart {
                assert!(Instant::now() < by, "{name}, {of}: nothing to see\n{sql}");
                tokio::time::sleep(Duration::from_millis(300)).await;
            }
        }
    }
}

async fn shows_something(reader: &mut MySqlConnection, sql: &str, kind: &str) -> bool {
    let to = jiff::Timestamp::now().as_second() + 10;
    let variables = [
        ("environment", "demo"),
        ("host", "watching-agent"),
        ("server", "own"),
        ("resolution", "metrics_10s"),
    ];
    let variables = variables.map(|(name, value)| (name, value.to_owned())).into();
    let sql = View { variables, from: to - 900, to, interval_s: 10 }.fill(sql).unwrap();
    let rows = sqlx::query(&sql).fetch_all(reader).await;
    let rows = rows.unwrap_or_else(|error| panic!("{error}\n{sql}"));
    let has_value = |row: &sqlx::mysql::MySqlRow| {
        let value = row.try_get_unchecked::<Option<Vec<u8>>, _>("value");
        value.is_ok_and(|value| value.is_some())
    };
    match kind {
        "timeseries" | "stat" => rows.iter().any(has_value),
        _ => !rows.is_empty(),
    }
}
