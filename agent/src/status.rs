//! What a running agent says of itself, and how people read it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::clock::{Clock, SystemClock};
use crate::collect::sample::Troubles;
use crate::collect::statsd::Listener;
use crate::deliver::DeliveryStatus;
use crate::identity::{Identity, Losses};
use crate::metrics::Metrics;
use crate::settings::Settings;
use crate::spool::Spool;

pub mod headline;
pub mod socket;

/// Everything the page is made of.
pub struct Sources {
    pub settings: Arc<Settings>,
    pub identity: Arc<Identity>,
    pub inputs: Vec<String>,
    pub troubles: Troubles,
    pub listener: Listener,
    pub spool: Spool,
    pub delivery: Arc<DeliveryStatus>,
    pub metrics: Metrics,
    pub started_ms: i64,
}

/// The agent's own part of the page. `spool` and `delivery` are shown as they are.
#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct Status {
    pub version: String,
    pub agent_id: String,
    pub environment: String,
    pub host: String,
    pub epoch: String,
    pub last_seq: u64,
    pub started_ms: i64,
    pub now_ms: i64,
    pub inputs: Vec<String>,
    /// What is wrong, by input.
    pub troubles: BTreeMap<String, String>,
    /// Where StatsD is listened for.
    pub statsd: Vec<String>,
    pub statsd_lines: u64,
    pub statsd_malformed: u64,
    /// What the last window with drops could not keep.
    pub statsd_dropped: Value,
    pub endpoints: Vec<String>,
    pub spill: Option<String>,
    pub delivery: Value,
    pub spool: Value,
    pub batches_emitted: u64,
    pub batches_acked: u64,
    pub batches_parked: u64,
    pub batches_quarantined: u64,
    /// All that was ever given up, by reason.
    pub losses_ever: BTreeMap<String, Losses>,
}

impl Sources {
    /// The page, as JSON.
    #[must_use]
    pub fn page(&self) -> String {
        serde_json::to_string_pretty(&self.status()).unwrap_or_default()
    }

    fn status(&self) -> Status {
        let (epoch, last_seq) = self.identity.position();
        let binding = self.identity.binding();
        let (settings, metrics) = (&self.settings, &self.metrics);
        let json = |value: Result<Value, serde_json::Error>| value.unwrap_or(Value::Null);
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            agent_id: self.identity.agent_id().to_string(),
            environment: binding.environment.clone(),
            host: binding.host.clone(),
            epoch: epoch.to_string(),
            last_seq,
            started_ms: self.started_ms,
            now_ms: SystemClock.wall_ms(),
            inputs: self.inputs.clone(),
            troubles: self.troubles.now(),
            statsd: statsd_addresses(settings),
            statsd_lines: metrics.statsd_lines.get(),
            statsd_malformed: metrics.statsd_malformed.get(),
            statsd_dropped: json(serde_json::to_value(self.listener.last_dropped())),
            endpoints: settings.deliver.endpoints.clone(),
            spill: spill_target(settings),
            delivery: json(serde_json::to_value(self.delivery.snapshot())),
            spool: json(serde_json::to_value(self.spool.totals())),
            batches_emitted: metrics.batches_emitted.get(),
            batches_acked: metrics.batches_acked.get(),
            batches_parked: metrics.batches_parked.get(),
            batches_quarantined: metrics.batches_quarantined.get(),
            losses_ever: self.identity.losses_ever(),
        }
    }
}

fn statsd_addresses(settings: &Settings) -> Vec<String> {
    let statsd = &settings.statsd;
    if !statsd.enabled {
        return Vec::new();
    }
    let udp = Some(&statsd.listen).filter(|listen| !listen.is_empty());
    let udp = udp.map(|listen| format!("udp {listen}"));
    let unix = statsd.socket.as_ref().map(|path| format!("unix {}", path.display()));
    udp.into_iter().chain(unix).collect()
}

fn spill_target(settings: &Settings) -> Option<String> {
    let spill = &settings.spill;
    spill.enabled.then(|| format!("{}/{}", spill.endpoint, spill.bucket))
}

impl Status {
    /// The page for people.
    #[must_use]
    pub fn text(&self) -> String {
        let mut page = Page { text: String::new(), now_ms: self.now_ms };
        page.text.push_str(&format!("{}\n\n", headline::of(self).1));
        page.line("agent", &format!("{} version {}", self.agent_id, self.version));
        page.line("measures", &format!("{} in {}", self.host, self.environment));
        let up = page.age(Some(self.started_ms)).trim_end_matches(" ago").to_owned();
        page.line("running for", &format!("{up}, epoch {}", self.epoch));
        page.line("inputs", &self.inputs.join(", "));
        for (input, trouble) in &self.troubles {
            page.line("  trouble", &format!("{input}: {trouble}"));
        }
        if !self.statsd.is_empty() {
            let (lines, bad) = (self.statsd_lines, self.statsd_malformed);
            page.line(
                "statsd",
                &format!("{}: {lines} lines, {bad} malformed", self.statsd.join(", ")),
            );
        }
        if let Some(names) = self.statsd_dropped.get("names") {
            let series = number(&self.statsd_dropped, "series").unwrap_or(0);
            page.line("  dropped", &format!("{series} series over the limit, such as {names}"));
        }
        self.delivery_text(&mut page);
        self.spool_text(&mut page);
        let (emitted, acked) = (self.batches_emitted, self.batches_acked);
        let (parked, quarantined) = (self.batches_parked, self.batches_quarantined);
        page.line(
            "since start",
            &format!(
                "{emitted} batches made, {acked} acked, {parked} parked, {quarantined} refused"
            ),
        );
        let losses = self.losses_ever.iter().map(|(reason, lost)| {
            format!("{} batches with {} points ({reason})", lost.batches, lost.points)
        });
        let losses = losses.collect::<Vec<_>>().join(", ");
        page.line("losses ever", if losses.is_empty() { "none" } else { &losses });
        page.text
    }

    fn delivery_text(&self, page: &mut Page) {
        let delivery = &self.delivery;
        let in_use = text(delivery, "endpoint").unwrap_or("none used yet");
        page.line("sends to", &format!("{} ({in_use})", self.endpoints.join(", ")));
        page.line("falls back to", self.spill.as_deref().unwrap_or("nothing: spill is off"));
        let route = text(delivery, "route").unwrap_or("unknown");
        let since = page.age(number(delivery, "route_since_ms"));
        page.line("route", &format!("{route}, for {}", since.trim_end_matches(" ago")));
        page.line("last ack", &page.age(number(delivery, "last_ack_ms")));
        page.line("last parked", &page.age(number(delivery, "last_park_ms")));
        if let Some(error) = text(delivery, "last_error") {
            let when = page.age(number(delivery, "last_error_ms"));
            page.line("last error", &format!("{error} ({when})"));
        }
        if let Some(skew) = number(delivery, "clock_skew_ms") {
            page.line("clock", &format!("{skew} ms ahead of the server's"));
        }
    }

    fn spool_text(&self, page: &mut Page) {
        let spool = |key| number(&self.spool, key).unwrap_or(0);
        let (batches, backlog) = (spool("batches"), spool("backlog_batches"));
        let (bytes, most) = (size(spool("bytes")), size(spool("bytes_max")));
        let (volatile, percent) = (spool("volatile_batches"), headline::fill_percent(self));
        let bar = headline::bar(percent);
        page.line("spool", &format!("{bar} {percent} %, {bytes} of {most}"));
        page.line(
            "",
            &format!("{batches} batches ({backlog} of the past, {volatile} in memory only)"),
        );
        if batches > 0 {
            let oldest = page.age(Some(self.now_ms - spool("oldest_age_ms")));
            page.line("", &format!("the oldest was measured {oldest}"));
        }
    }
}

/// `12 KiB`, `3.4 MiB`, `1.0 GiB`.
fn size(bytes: i64) -> String {
    match bytes {
        ..1_048_576 => format!("{} KiB", bytes / 1_024),
        1_048_576..1_073_741_824 => format!("{:.1} MiB", bytes as f64 / 1_048_576.0),
        _ => format!("{:.1} GiB", bytes as f64 / 1_073_741_824.0),
    }
}

struct Page {
    text: String,
    now_ms: i64,
}

impl Page {
    fn line(&mut self, name: &str, value: &str) {
        let written = writeln!(self.text, "{name:<14} {value}");
        debug_assert!(written.is_ok(), "writing to a String does not fail");
    }

    fn age(&self, at_ms: Option<i64>) -> String {
        let Some(at_ms) = at_ms else { return "never".to_owned() };
        let seconds = (self.now_ms - at_ms).max(0) / 1_000;
        match seconds {
            0..120 => format!("{seconds} s ago"),
            120..7_200 => format!("{} min ago", seconds / 60),
            _ => format!("{} h ago", seconds / 3_600),
        }
    }
}

fn number(json: &Value, key: &str) -> Option<i64> {
    json.get(key).and_then(Value::as_i64)
}

fn text<'a>(json: &'a Value, key: &str) -> Option<&'a str> {
    json.get(key).and_then(Value::as_str)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_readable_whatever_is_missing_in_it() {
        let empty: Status = serde_json::from_str("{}").unwrap();
        assert!(empty.text().contains("losses ever    none"));
        let page = r#"{"now_ms": 700000, "started_ms": 1000, "host": "web-1", "environment": "demo",
            "delivery": {"route": "park", "route_since_ms": 690000, "last_ack_ms": 100000,
                         "last_error": "connection refused", "last_error_ms": 699000},
            "spool": {"batches": 7, "backlog_batches": 5, "bytes": 2048, "bytes_max": 4096},
            "losses_ever": {"spool-full": {"batches": 2, "points": 80}}}"#;
        let status: Status = serde_json::from_str(page).unwrap();
        let text = status.text();
        for line in [
            "measures       web-1 in demo",
            "route          park, for 10 s",
            "last ack       10 min ago",
            "last parked    never",
            "last error     connection refused (1 s ago)",
            "the API can't be reached; batches go to S3",
            "spool          [#####·····] 50 %, 2 KiB of 4 KiB",
            "               7 batches (5 of the past, 0 in memory only)",
            "losses ever    2 batches with 80 points (spool-full)",
        ] {
            assert!(text.contains(line), "{line} is missing in\n{text}");
        }
    }
}
