//! What is wrong with the settings, all at once and without touching the network.

use spillway_proto::limits;
use spillway_runtime::settings::Problem;

use super::{Settings, SpoolKind, check_inputs};
use crate::collect::host::INPUTS;

/// The spool's hard cap: what a customer's disk must be able to lose.
const SPOOL_BYTES_LIMIT: u64 = 1 << 30;
/// A segment must take any batch, and be worth its preallocation.
const SEGMENT_BYTES_MIN: u64 = 2 * limits::FRAME_BYTES_MAX as u64;
/// A timer takes up to 3 KB: this many fit the agent's memory, if not its 25 MB.
const STATSD_SERIES_LIMIT: u32 = 10_000;
const WINDOW_MS: u128 = limits::WINDOW_MS as u128;

/// Every problem of `settings`.
pub(super) fn all(settings: &Settings) -> Vec<Problem> {
    let mut problems = Vec::new();
    agent(settings, &mut problems);
    collect(settings, &mut problems);
    check_inputs::all(settings, &mut problems);
    spool(settings, &mut problems);
    deliver(settings, &mut problems);
    spill(settings, &mut problems);
    problems
}

fn agent(settings: &Settings, problems: &mut Vec<Problem>) {
    let agent = &settings.agent;
    if agent.environment.is_empty() {
        problems.push(Problem::new(
            "agent.environment",
            "is missing: name the environment the token was made for",
        ));
    }
    if agent.environment.len() > limits::ENVIRONMENT_BYTES_MAX
        || !agent.environment.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
    {
        problems.push(Problem::new(
            "agent.environment",
            format!(
                "may have {} letters, digits, '-', '_' and '.' at most",
                limits::ENVIRONMENT_BYTES_MAX
            ),
        ));
    }
    if agent.host.len() > limits::HOST_BYTES_MAX {
        problems.push(too_long("agent.host", limits::HOST_BYTES_MAX));
    }
    match agent.token.resolve(agent.token_file.as_deref()) {
        Err(cause) => problems.push(Problem::new("agent.token_file", cause.to_string())),
        Ok(token) if !token.is_set() => problems.push(Problem::new(
            "agent.token_file",
            "is missing: without a token nothing can be sent (`spillway token create`)",
        )),
        Ok(_) => {}
    }
    if agent.labels.len() > limits::LABELS_MAX {
        problems.push(Problem::new(
            "agent.labels",
            format!("may have {} entries at most", limits::LABELS_MAX),
        ));
    }
    for (name, value) in &agent.labels {
        if name.is_empty()
            || name.len() > limits::LABEL_NAME_BYTES_MAX
            || value.len() > limits::LABEL_VALUE_BYTES_MAX
        {
            problems.push(Problem::new(format!("agent.labels.{name}"), "is empty or too long"));
        }
    }
}

fn collect(settings: &Settings, problems: &mut Vec<Problem>) {
    let interval = settings.collect.interval.get().as_millis();
    let fits = (1_000..=60 * 60_000).contains(&interval)
        && (WINDOW_MS.is_multiple_of(interval) || interval.is_multiple_of(WINDOW_MS));
    if !fits {
        problems.push(Problem::new(
            "collect.interval",
            "must be 1s, 2s, 5s, 10s or a multiple of 10s up to 1h, so that samples fit windows",
        ));
    }
    let deadline = settings.collect.deadline.get();
    if deadline.is_zero() || deadline.as_millis() > WINDOW_MS {
        problems.push(Problem::new("collect.deadline", "must be above 0s, and 10s at most"));
    }
    if settings.collect.spread.get().as_millis() > WINDOW_MS / 2 {
        problems.push(Problem::new("collect.spread", "may be 5s at most, half a window"));
    }
    for (index, name) in settings.collect.off.iter().enumerate() {
        if !INPUTS.contains(&name.as_str()) {
            let path = format!("collect.off[{index}]");
            let known = INPUTS.join(", ");
            problems.push(Problem::new(&path, format!("no input is called {name:?} ({known})")));
        }
    }
    let statsd = &settings.statsd;
    if statsd.enabled {
        if !statsd.listen.is_empty() && statsd.listen.parse::<std::net::SocketAddr>().is_err() {
            problems.push(Problem::new("statsd.listen", "must be ADDRESS:PORT, or empty"));
        }
        if !(1..=STATSD_SERIES_LIMIT).contains(&statsd.series_max) {
            let text = format!("must be between 1 and {STATSD_SERIES_LIMIT}");
            problems.push(Problem::new("statsd.series_max", text));
        }
    }
}

fn spool(settings: &Settings, problems: &mut Vec<Problem>) {
    let spool = &settings.spool;
    let (all, segment) = (spool.bytes_max.get(), spool.segment_bytes.get());
    if all > SPOOL_BYTES_LIMIT {
        problems.push(Problem::new("spool.bytes_max", "may be 1 GiB at most"));
    }
    if segment < SEGMENT_BYTES_MIN {
        problems.push(Problem::new(
            "spool.segment_bytes",
            format!("must be at least {SEGMENT_BYTES_MIN} bytes: two of the largest batches"),
        ));
    }
    if spool.kind == SpoolKind::Disk && all < segment.saturating_mul(4) {
        problems.push(Problem::new("spool.bytes_max", "must be at least four segments"));
    }
    if spool.live_reserve.get() > all / 2 {
        problems.push(Problem::new("spool.live_reserve", "may be half of spool.bytes_max at most"));
    }
    if spool.age_max.get().is_zero() {
        problems.push(Problem::new("spool.age_max", "must be above 0s"));
    }
}

fn deliver(settings: &Settings, problems: &mut Vec<Problem>) {
    let deliver = &settings.deliver;
    if deliver.endpoints.is_empty() {
        problems.push(Problem::new("deliver.endpoints", "is empty: name an ingest-api"));
    }
    for (index, endpoint) in deliver.endpoints.iter().enumerate() {
        url(&format!("deliver.endpoints[{index}]"), endpoint, problems);
    }
    if deliver.client_certificate_file.is_some() != deliver.client_key_file.is_some() {
        let text = "and deliver.client_key_file belong together";
        problems.push(Problem::new("deliver.client_certificate_file", text));
    }
    if let Some(proxy) = &deliver.proxy {
        url("deliver.proxy", proxy, problems);
    }
    let body = deliver.request_bytes_max.get();
    if !(limits::FRAME_BYTES_MAX as u64..=limits::BODY_BYTES_MAX as u64).contains(&body) {
        problems.push(Problem::new(
            "deliver.request_bytes_max",
            format!("must be between {} and {}", limits::FRAME_BYTES_MAX, limits::BODY_BYTES_MAX),
        ));
    }
    if !(1..=16).contains(&deliver.live_in_flight) {
        problems.push(Problem::new("deliver.live_in_flight", "must be between 1 and 16"));
    }
    if !(deliver.backlog_rate.is_finite() && deliver.backlog_rate > 0.0) {
        problems.push(Problem::new("deliver.backlog_rate", "must be above 0"));
    }
    if !(0.0..=1.0).contains(&deliver.park_fill) {
        problems.push(Problem::new("deliver.park_fill", "must be between 0 and 1"));
    }
    let ordered = [
        ("deliver.retry_min", deliver.retry_min, deliver.retry_max),
        ("deliver.probe_interval", deliver.probe_interval, deliver.probe_interval_max),
    ];
    for (path, least, most) in ordered {
        if least.get().is_zero() || least > most {
            problems.push(Problem::new(path, "must be above 0s and not above its maximum"));
        }
    }
    let timeouts = [
        ("deliver.connect_timeout", deliver.connect_timeout),
        ("deliver.request_timeout", deliver.request_timeout),
        ("spill.connect_timeout", settings.spill.connect_timeout),
        ("spill.request_timeout", settings.spill.request_timeout),
    ];
    for (path, timeout) in timeouts {
        if timeout.get().is_zero() {
            problems.push(Problem::new(path, "must be above 0s"));
        }
    }
}

fn spill(settings: &Settings, problems: &mut Vec<Problem>) {
    let spill = &settings.spill;
    if !spill.enabled {
        return;
    }
    url("spill.endpoint", &spill.endpoint, problems);
    if spill.bucket.is_empty() {
        problems.push(Problem::new("spill.bucket", "is missing"));
    }
    let secret = spill.secret_key.resolve(spill.secret_key_file.as_deref());
    match secret {
        Err(cause) => problems.push(Problem::new("spill.secret_key_file", cause.to_string())),
        Ok(secret) if !spill.unsigned && (!secret.is_set() || spill.access_key.is_empty()) => {
            problems.push(Problem::new(
                "spill.access_key",
                "and spill.secret_key_file are needed, unless spill.unsigned is true",
            ));
        }
        Ok(_) => {}
    }
    if spill.key_id.is_empty() {
        problems.push(Problem::new("spill.key_id", "is missing: the public key's name"));
    }
    let objects = spill.object_bytes_max.get();
    if !(limits::FRAME_BYTES_MAX as u64..=limits::SEALED_FRAMES_BYTES_MAX as u64).contains(&objects)
    {
        problems.push(Problem::new(
            "spill.object_bytes_max",
            format!(
                "must be between {} and {}",
                limits::FRAME_BYTES_MAX,
                limits::SEALED_FRAMES_BYTES_MAX
            ),
        ));
    }
    if hex::decode(&spill.public_key).map_or(true, |key| key.len() != 32) {
        problems.push(Problem::new(
            "spill.public_key",
            "must be the recovery worker's public key, 64 hex digits",
        ));
    }
}

fn url(path: &str, text: &str, problems: &mut Vec<Problem>) {
    let fits = text.parse::<http::Uri>().is_ok_and(|uri| {
        matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some()
    });
    if !fits {
        problems.push(Problem::new(path, format!("{text:?} is not an http:// or https:// URL")));
    }
}

fn too_long(path: &str, bytes: usize) -> Problem {
    Problem::new(path, format!("may have {bytes} bytes at most"))
}
