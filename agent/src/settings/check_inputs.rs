//! What is wrong with the inputs that have a pace of their own.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use spillway_proto::limits;
use spillway_runtime::settings::{Dur, Problem, mask_url};

use super::Settings;

/// Targets of all `[[scrape]]` together: each is a task, and 500 series of each fill the agent.
pub const TARGETS_MAX: usize = 1_000;
/// Servers, and commands: each is asked by a task.
pub const SERVERS_MAX: usize = 32;
pub const COMMANDS_MAX: usize = 64;
/// A target may say as much as one batch holds.
const SAMPLES_LIMIT: u32 = limits::BATCH_POINTS_MAX as u32;
const BODY_LIMIT: u64 = 64 << 20;
const TRAY_LIMIT: std::ops::RangeInclusive<u64> = (1 << 20)..=(1 << 30);
const STATEMENTS_LIMIT: u32 = 200;
const STATEMENT_CHARS_LIMIT: u32 = 1_000;
const OUTPUT_LIMIT: u64 = 16 << 20;
const CONNECTIONS_LIMIT: u32 = 256;

/// Every problem of them.
pub(super) fn all(settings: &Settings, problems: &mut Vec<Problem>) {
    if !TRAY_LIMIT.contains(&settings.collect.tray_bytes_max.get()) {
        problems.push(Problem::new("collect.tray_bytes_max", "must be between 1 MiB and 1 GiB"));
    }
    scrape(settings, problems);
    mysql(settings, problems);
    exec(settings, problems);
    influx(settings, problems);
}

fn scrape(settings: &Settings, problems: &mut Vec<Problem>) {
    let targets: usize = settings.scrape.iter().map(|scrape| scrape.targets.len()).sum();
    if targets > TARGETS_MAX {
        let text = format!("has {targets} targets in all; one agent asks {TARGETS_MAX} at most");
        problems.push(Problem::new("scrape", text));
    }
    for (index, scrape) in settings.scrape.iter().enumerate() {
        let path = |key: &str| format!("scrape[{index}].{key}");
        if scrape.job.is_empty() {
            problems
                .push(Problem::new(path("job"), "is missing: the label `job` of what they say"));
        }
        if scrape.targets.is_empty() {
            problems.push(Problem::new(path("targets"), "is empty: name what to ask"));
        }
        for (at, target) in scrape.targets.iter().enumerate().take(TARGETS_MAX) {
            if scrape.uri(target).is_err() {
                let text = format!(
                    "{:?} is neither HOST:PORT nor a URL without a password",
                    mask_url(target)
                );
                problems.push(Problem::new(path(&format!("targets[{at}]")), text));
            }
        }
        pace(&path(""), scrape.interval, scrape.timeout, problems);
        labels(&path("labels"), &scrape.labels, problems);
        if !(1..=SAMPLES_LIMIT).contains(&scrape.samples_max) {
            let text = format!("must be between 1 and {SAMPLES_LIMIT}");
            problems.push(Problem::new(path("samples_max"), text));
        }
        if !(1..=BODY_LIMIT).contains(&scrape.body_bytes_max.get()) {
            problems.push(Problem::new(path("body_bytes_max"), "must be between 1 and 64 MiB"));
        }
        if scrape.labels_max as usize > limits::LABELS_MAX {
            let text = format!("may be {} at most", limits::LABELS_MAX);
            problems.push(Problem::new(path("labels_max"), text));
        }
        if scrape.label_value_bytes_max as usize > limits::LABEL_VALUE_BYTES_MAX {
            let text = format!("may be {} at most", limits::LABEL_VALUE_BYTES_MAX);
            problems.push(Problem::new(path("label_value_bytes_max"), text));
        }
    }
}

fn mysql(settings: &Settings, problems: &mut Vec<Problem>) {
    if settings.mysql.len() > SERVERS_MAX {
        problems.push(Problem::new("mysql", format!("may be given {SERVERS_MAX} times at most")));
    }
    for (index, mysql) in settings.mysql.iter().enumerate() {
        let path = |key: &str| format!("mysql[{index}].{key}");
        if mysql.socket.is_none() && mysql.host_and_port().is_none() {
            problems.push(Problem::new(path("address"), "must be HOST:PORT"));
        }
        if mysql.user.is_empty() {
            problems.push(Problem::new(path("user"), "is missing"));
        }
        pace(&path(""), mysql.interval, mysql.timeout, problems);
        if mysql.statements > STATEMENTS_LIMIT {
            let text = format!("may be {STATEMENTS_LIMIT} at most");
            problems.push(Problem::new(path("statements"), text));
        }
        if mysql.statement_chars_max > STATEMENT_CHARS_LIMIT {
            let text = format!("may be {STATEMENT_CHARS_LIMIT} at most");
            problems.push(Problem::new(path("statement_chars_max"), text));
        }
    }
}

fn exec(settings: &Settings, problems: &mut Vec<Problem>) {
    if settings.exec.len() > COMMANDS_MAX {
        problems.push(Problem::new("exec", format!("may be given {COMMANDS_MAX} times at most")));
    }
    for (index, exec) in settings.exec.iter().enumerate() {
        let path = |key: &str| format!("exec[{index}].{key}");
        if exec.command.first().is_none_or(String::is_empty) {
            let text = "is empty: name a program and its arguments, as a list";
            problems.push(Problem::new(path("command"), text));
        }
        pace(&path(""), exec.interval, exec.timeout, problems);
        labels(&path("labels"), &exec.labels, problems);
        if !(1..=OUTPUT_LIMIT).contains(&exec.output_bytes_max.get()) {
            problems.push(Problem::new(path("output_bytes_max"), "must be between 1 and 16 MiB"));
        }
    }
}

fn influx(settings: &Settings, problems: &mut Vec<Problem>) {
    let influx = &settings.influx;
    if !influx.enabled {
        return;
    }
    for (key, address) in [("influx.listen", &influx.listen), ("influx.udp", &influx.udp)] {
        if !address.is_empty() && address.parse::<SocketAddr>().is_err() {
            problems.push(Problem::new(key, "must be ADDRESS:PORT, or empty"));
        }
    }
    if !(1..=OUTPUT_LIMIT).contains(&influx.body_bytes_max.get()) {
        problems.push(Problem::new("influx.body_bytes_max", "must be between 1 and 16 MiB"));
    }
    if !(1..=CONNECTIONS_LIMIT).contains(&influx.connections_max) {
        let text = format!("must be between 1 and {CONNECTIONS_LIMIT}");
        problems.push(Problem::new("influx.connections_max", text));
    }
}

fn pace(path: &str, interval: Dur, timeout: Dur, problems: &mut Vec<Problem>) {
    let (second, day) = (Duration::from_secs(1), Duration::from_hours(24));
    if !(second..=day).contains(&interval.get()) {
        problems.push(Problem::new(format!("{path}interval"), "must be between 1s and 24h"));
    }
    if timeout.is_zero() || timeout > interval {
        let text = "must be above 0s, and not above the interval";
        problems.push(Problem::new(format!("{path}timeout"), text));
    }
}

fn labels(path: &str, labels: &BTreeMap<String, String>, problems: &mut Vec<Problem>) {
    let fits = |(name, value): (&String, &String)| {
        !name.is_empty()
            && name.len() <= limits::LABEL_NAME_BYTES_MAX
            && value.len() <= limits::LABEL_VALUE_BYTES_MAX
    };
    if labels.len() > limits::LABELS_MAX / 2 || !labels.iter().all(fits) {
        problems.push(Problem::new(path, "are too many, or one is empty or too long"));
    }
}
