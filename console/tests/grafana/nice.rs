//! A host as hosts are, for the pictures: an afternoon's curves, and minutes that are missing.

use sqlx::{Executor, MySqlConnection};

use super::ENVIRONMENT;
use crate::browser::Browser;

pub const HOST: &str = "web-1";

/// Metric, label, kind, unit, and the curve: base, swing and length of a wave in seconds.
type Curve = (&'static str, &'static str, u8, &'static str, (f64, f64, f64));
const CURVES: [Curve; 10] = [
    ("cpu.usage", "{}", 1, "%", (38.0, 17.0, 1_900.0)),
    ("load.1m", "{}", 1, "", (2.4, 1.1, 1_700.0)),
    ("mem.used_bytes", "{}", 1, "bytes", (11.4e9, 0.4e9, 2_600.0)),
    ("mem.available_bytes", "{}", 1, "bytes", (4.6e9, -0.4e9, 2_600.0)),
    ("disk.usage", r#"{"mount":"/"}"#, 1, "%", (61.0, 0.3, 3_000.0)),
    ("disk.usage", r#"{"mount":"/var"}"#, 1, "%", (78.0, 0.8, 2_000.0)),
    ("net.recv_bytes", r#"{"interface":"eth0"}"#, 3, "bytes", (2.1e6, 0.9e6, 1_500.0)),
    ("net.sent_bytes", r#"{"interface":"eth0"}"#, 3, "bytes", (6.8e6, 2.2e6, 1_500.0)),
    ("diskio.read_bytes", r#"{"device":"nvme0n1"}"#, 3, "bytes", (0.3e6, 0.2e6, 700.0)),
    ("diskio.write_bytes", r#"{"device":"nvme0n1"}"#, 3, "bytes", (1.4e6, 0.8e6, 900.0)),
];
/// Windows of an hour.
const WINDOWS: i64 = 360;
/// These are missing.
const MISSING: std::ops::Range<i64> = 230..248;
const AGENT: &str = "UNHEX(MD5('agent'))";
const FIRST_SERIES: usize = 1_000;

pub async fn fill(root: &mut MySqlConnection, now: i64) {
    root.execute("BEGIN").await.unwrap();
    let host = format!(
        "INSERT INTO spillway_store.hosts (host_id, environment, host, version, first_seen_ts,
         last_seen_ts, newest_ts, backlog_batches)
         VALUES (2, '{ENVIRONMENT}', '{HOST}', '0.1.0', 1, {now}, {now}, 18)"
    );
    root.execute(host.as_str()).await.unwrap();
    for (at, (metric, labels, kind, unit, curve)) in CURVES.iter().enumerate() {
        let id = FIRST_SERIES + at;
        let series = format!(
            "INSERT INTO spillway_store.series (series_id, environment, host, metric, labels, kind,
             unit, identity, first_seen_ts, last_seen_ts) VALUES ({id}, '{ENVIRONMENT}', '{HOST}',
             '{metric}', '{labels}', {kind}, '{unit}', UNHEX(MD5({id})), 1, {now})"
        );
        root.execute(series.as_str()).await.unwrap();
        let rows = points(id, *kind, *curve, now);
        let sql = format!("INSERT INTO spillway_store.points VALUES {}", rows.join(","));
        root.execute(sql.as_str()).await.unwrap();
    }
    let (from, to) = (at(now, MISSING.start), at(now, MISSING.end));
    let known = [
        format!(
            "INSERT INTO spillway_store.ledger_epochs (agent_id, epoch, environment, host,
             partition_id, highest_seq, first_applied_at, last_applied_at) VALUES ({AGENT}, {AGENT},
             '{ENVIRONMENT}', '{HOST}', 0, 360, {now}000, {now}000)"
        ),
        format!(
            "INSERT INTO spillway_store.ledger_gaps (agent_id, epoch, first_seq, last_seq, cause,
             from_ts, to_ts, noted_at)
             VALUES ({AGENT}, {AGENT}, 231, 248, 'missing', {from}, {to}, {now}000)"
        ),
    ];
    for sql in known {
        root.execute(sql.as_str()).await.unwrap();
    }
    root.execute("COMMIT").await.unwrap();
}

/// The begin of a window.
fn at(now: i64, window: i64) -> i64 {
    now / 10 * 10 - 10 * (WINDOWS - window)
}

fn points(id: usize, kind: u8, (base, swing, wave): (f64, f64, f64), now: i64) -> Vec<String> {
    let mut counted = 0.0;
    let row = |i: i64| {
        let ts = at(now, i);
        let phase = (i * 10) as f64 / wave * std::f64::consts::TAU + id as f64;
        // Two waves of no common length look like weather.
        let noise = (i as f64 * 1.7).sin() * (i as f64 * 0.43).cos() * 0.25;
        let level = base + swing * (phase.sin() + noise);
        counted += level * 10.0;
        let value = if kind == 3 { counted.round() } else { level };
        let missing = MISSING.contains(&i);
        (!missing).then(|| format!("({id},{ts},1,{value},{value},{value},{value},{value},'[1]')"))
    };
    (0..WINDOWS).filter_map(row).collect()
}

/// On wide screens and narrow ones, with what is missing shaded.
pub async fn look(browser: &Browser, address: &str) {
    for (width, dark, shade) in [(1280, false, "light"), (390, true, "dark")] {
        browser.screen(width, 800, dark).await;
        browser.open(&format!("{address}/hosts/{ENVIRONMENT}/{HOST}")).await;
        browser.until("document.body.dataset.ready === 'true'").await;
        browser.assert_sound("the host of the pictures").await;
        let told = browser.text(".hostline").await;
        assert!(told.contains("gaps: 18 late"), "its batches, not its one gap: {told}");
        let marks = browser.text(".marks").await;
        assert!(marks.contains("missing here (late)"), "what is missing is told: {marks}");
        browser.picture(&format!("host-{width}-{shade}")).await;
    }
}
