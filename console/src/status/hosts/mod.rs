//! One host with its charts, and the hosts of one environment, read from the views with the rights
//! of a reader: what dashboards see, nothing more.

mod ask;
mod curve;

use askama::Template;
use spillway_runtime::shards::ShardMap;

use super::address;
use super::snapshot::QUIET_AFTER_S;
use super::words;
use crate::failure::{Failure, UsageError};
use crate::reach::mysql::Server;
use crate::settings::ConsoleSettings;
use ask::{HostFacts, KnownMetric};

pub use ask::HOSTS_MAX;

/// What the range links offer: seconds and words.
const RANGES: [(u32, &str); 5] =
    [(3_600, "1 h"), (21_600, "6 h"), (86_400, "24 h"), (604_800, "7 d"), (2_592_000, "30 d")];
/// Longer stretches are drawn from minutes, and from hours: the windows of a week are 60,480 rows
/// of each series, its minutes a sixth of that.
const WINDOWS_UP_TO_S: u32 = 21_600;
const MINUTES_UP_TO_S: u32 = 604_800;
/// Points of a curve; more than a chart has pixels helps nobody.
const POINTS_MAX: u32 = 360;
/// Charts on one page.
const CHARTS_MAX: usize = 12;
/// What a host's page shows first, in this order.
const FIRST: [&str; 10] = [
    "cpu.usage",
    "load.1m",
    "mem.used_bytes",
    "mem.available_bytes",
    "disk.usage",
    "diskio.read_bytes",
    "diskio.write_bytes",
    "net.recv_bytes",
    "net.sent_bytes",
    "pressure.avg10",
];

/// A stretch of time up to now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    pub seconds: u32,
    /// Seconds of one point.
    pub step: u32,
}

impl Range {
    /// From a query; anything else than an offered range is the shortest.
    pub fn from_query(query: &str) -> Self {
        let asked = address::query_value(query, "range").and_then(|text| text.parse().ok());
        let known = RANGES.iter().find(|(seconds, _)| Some(*seconds) == asked);
        let seconds = known.map_or(3_600, |(seconds, _)| *seconds);
        let row = Self { seconds, step: 0 }.row_s();
        let step = (seconds / POINTS_MAX).div_ceil(row).max(1) * row;
        Self { seconds, step }
    }

    /// Seconds of one row of the view that is read: windows, minutes or hours.
    fn row_s(self) -> u32 {
        match self.seconds {
            short if short <= WINDOWS_UP_TO_S => 10,
            middling if middling <= MINUTES_UP_TO_S => 60,
            _ => 3_600,
        }
    }
}

#[derive(Template)]
#[template(path = "environment.html")]
struct EnvironmentTemplate<'a> {
    title: &'a str,
    environment: &'a str,
    hosts: Vec<HostRow>,
    is_cut: bool,
}

struct HostRow {
    name: String,
    href: String,
    tone: &'static str,
    state: &'static str,
    newest: String,
    on_the_way: String,
}

#[derive(Template)]
#[template(path = "host.html")]
struct HostTemplate<'a> {
    title: &'a str,
    environment: &'a str,
    host: &'a str,
    environment_url: String,
    series_url: String,
    range_s: u32,
    step_s: u32,
    ranges: Vec<RangeLink>,
    tone: &'static str,
    state: &'static str,
    newest: String,
    on_the_way: String,
    gaps: String,
    /// `[[from, to, "late"], …]` in Unix seconds, for the charts.
    gap_marks: String,
    version: String,
    charts: Vec<Chart>,
    others: Vec<Other>,
}

struct RangeLink {
    seconds: u32,
    words: &'static str,
    is_chosen: bool,
}

struct Chart {
    metric: String,
    unit: String,
    words: String,
    is_rate: bool,
}

struct Other {
    name: String,
    query: String,
}

/// The hosts of an environment.
pub async fn environment_page(
    settings: &ConsoleSettings,
    environment: &str,
) -> Result<String, Failure> {
    let mut server = server_of(settings, environment).await?;
    let hosts = ask::hosts(&mut server, environment).await?;
    let is_cut = hosts.len() >= HOSTS_MAX as usize;
    let row = |host: HostFacts| {
        let (tone, state) = state_of(&host);
        HostRow {
            href: format!(
                "../hosts/{}/{}",
                address::encode(environment),
                address::encode(&host.host)
            ),
            tone,
            state,
            newest: newest(&host),
            on_the_way: words::known(host.backlog.map(|n| n as f64), words::count),
            name: host.host,
        }
    };
    let hosts = hosts.into_iter().map(row).collect();
    let title = &settings.status.title;
    Ok(EnvironmentTemplate { title, environment, hosts, is_cut }.render()?)
}

fn state_of(host: &HostFacts) -> (&'static str, &'static str) {
    match (host.age_s, host.backlog.unwrap_or(0) > 0) {
        (Some(age), _) if age > QUIET_AFTER_S => ("degraded", "silent"),
        (_, true) => ("degraded", "catching up"),
        (None, false) => ("unknown", "no data yet"),
        (Some(_), false) => ("up", "current"),
    }
}

fn newest(host: &HostFacts) -> String {
    host.age_s.map_or_else(|| words::NO_POINT.to_owned(), |age| words::age(age as f64))
}

/// One host.
pub async fn host_page(
    settings: &ConsoleSettings,
    environment: &str,
    host: &str,
    query: &str,
) -> Result<String, Failure> {
    let range = Range::from_query(query);
    let mut server = server_of(settings, environment).await?;
    let Some(facts) = ask::host(&mut server, environment, host).await? else {
        return Err(UsageError("There is no such host here.".to_owned()).into());
    };
    let gaps = ask::gaps(&mut server, environment, host).await?;
    let since = jiff::Timestamp::now().as_second() - i64::from(range.seconds);
    let marks = ask::gap_marks(&mut server, environment, host, since).await?;
    let metrics = ask::metrics(&mut server, environment, host).await?;
    let asked = address::query_value(query, "metric");
    let (charts, others) = chosen(metrics, asked.as_deref());
    let (tone, state) = state_of(&facts);
    let page = HostTemplate {
        title: &settings.status.title,
        environment,
        host,
        environment_url: format!("../../environments/{}", address::encode(environment)),
        series_url: format!("{}/series.json", address::encode(host)),
        range_s: range.seconds,
        step_s: range.step,
        ranges: RANGES
            .iter()
            .map(|&(seconds, words)| RangeLink {
                seconds,
                words,
                is_chosen: seconds == range.seconds,
            })
            .collect(),
        tone,
        state,
        newest: match facts.age_s {
            Some(_) => format!("newest {} old", newest(&facts)),
            None => newest(&facts),
        },
        on_the_way: words::known(facts.backlog.map(|n| n as f64), words::count),
        gaps,
        gap_marks: serde_json::json!(marks).to_string(),
        version: facts.version,
        charts: charts.into_iter().map(chart).collect(),
        others: others
            .into_iter()
            .map(|m| Other { query: address::encode(&m.metric), name: m.metric })
            .collect(),
    };
    Ok(page.render()?)
}

fn chart(metric: KnownMetric) -> Chart {
    let is_rate = metric.kind != "gauge";
    let words = match (is_rate, metric.unit.as_str()) {
        (true, "" | "1") => "per second".to_owned(),
        (true, unit) => format!("{unit} per second"),
        (false, "" | "1") => String::new(),
        (false, unit) => unit.to_owned(),
    };
    Chart { metric: metric.metric, unit: metric.unit, words, is_rate }
}

/// What is drawn, and what is only named.
fn chosen(
    mut metrics: Vec<KnownMetric>,
    asked: Option<&str>,
) -> (Vec<KnownMetric>, Vec<KnownMetric>) {
    let rank = |metric: &KnownMetric| match asked {
        Some(asked) => usize::from(metric.metric != asked),
        None => FIRST.iter().position(|name| *name == metric.metric).unwrap_or(FIRST.len()),
    };
    metrics.sort_by_key(rank);
    let first = metrics.iter().filter(|m| rank(m) < if asked.is_some() { 1 } else { FIRST.len() });
    let shown = match first.count() {
        0 => CHARTS_MAX,
        known => known.min(CHARTS_MAX),
    };
    let others = metrics.split_off(shown.min(metrics.len()));
    (metrics, others)
}

/// One metric's curves, as the chart takes them.
pub async fn series(
    settings: &ConsoleSettings,
    environment: &str,
    host: &str,
    query: &str,
) -> Result<serde_json::Value, Failure> {
    let range = Range::from_query(query);
    let metric = address::query_value(query, "metric").unwrap_or_default();
    let mut server = server_of(settings, environment).await?;
    let of = ask::Of { environment, host, metric: &metric };
    let to = jiff::Timestamp::now().as_second();
    let samples = ask::samples(&mut server, of, range, to).await?;
    Ok(curve::curves(samples, range, to))
}

async fn server_of(settings: &ConsoleSettings, environment: &str) -> Result<Server, Failure> {
    let map = ShardMap::load(&settings.shards_file)?;
    let Some(shard) = map.shard_of_environment(environment) else {
        return Err(UsageError("There is no such environment here.".to_owned()).into());
    };
    Ok(Server::connect(settings, shard).await?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(metric: &str) -> KnownMetric {
        let (kind, unit) = ("gauge".to_owned(), String::new());
        KnownMetric { metric: metric.to_owned(), kind, unit }
    }

    #[test]
    fn a_hosts_page_shows_what_matters_first_or_the_one_that_was_asked_for() {
        let all = || ["a.b", "disk.usage", "cpu.usage"].map(known).to_vec();
        let names = |list: Vec<KnownMetric>| list.into_iter().map(|m| m.metric).collect::<Vec<_>>();
        let (shown, others) = chosen(all(), None);
        assert_eq!(
            (names(shown), names(others)),
            (vec!["cpu.usage".into(), "disk.usage".into()], vec!["a.b".into()])
        );
        assert_eq!(names(chosen(all(), Some("a.b")).0), ["a.b"]);
        assert_eq!(names(chosen(vec![known("x")], None).0), ["x"], "a host of another kind");
    }

    #[test]
    fn a_host_without_a_stored_point_has_no_age_and_is_not_silent_since_1970() {
        let host = |age_s| HostFacts {
            host: "web-1".to_owned(),
            age_s,
            backlog: None,
            version: String::new(),
        };
        assert_eq!(newest(&host(None)), "no point stored yet");
        assert_eq!(state_of(&host(None)), ("unknown", "no data yet"));
        assert_eq!((newest(&host(Some(7))), state_of(&host(Some(7))).1), ("7 s".into(), "current"));
        assert_eq!(state_of(&host(Some(61))).1, "silent");
    }

    #[test]
    fn a_range_has_at_most_as_many_points_as_a_chart_has_pixels() {
        for (seconds, _) in RANGES {
            let range = Range::from_query(&format!("range={seconds}"));
            assert!(range.seconds == seconds && seconds / range.step <= POINTS_MAX);
            assert_eq!(range.step % range.row_s(), 0, "whole rows");
        }
        assert_eq!(Range::from_query("range=99999999").seconds, 3_600);
        let rows = RANGES.map(|(seconds, _)| Range { seconds, step: 0 }.row_s());
        assert_eq!(rows, [10, 10, 60, 60, 3_600]);
    }
}
