//! A prometheus.yml: its scrape configurations become `[[scrape]]`.

use super::tree::{Node, Table, from_yaml};
use super::{ConvertError, Converted};

const SERVERS_OWN: &str = "is the Prometheus server's, not an agent's";
const DISCOVERY: &str = "is service discovery: name the targets in [[scrape]] targets";
const REWRITING: &str = "rewrites samples or targets, which the agent does not";

pub fn convert(text: &str) -> Result<Converted, ConvertError> {
    let mut file = from_yaml(text)?;
    let mut out = Converted::default();
    let mut global = file.table("global").unwrap_or_default();
    let interval = global.text("scrape_interval").unwrap_or_else(|| "1m".to_owned());
    let timeout = global.text("scrape_timeout").unwrap_or_else(|| "10s".to_owned());
    if let Some(labels) = global.take("external_labels") {
        let line = labels.line;
        out.set("agent", "labels", texts(labels.table().unwrap_or_default()));
        let why = "became agent.labels: labels of the host, not of each series";
        out.leave_out(line, "global.external_labels", why);
    }
    out.leave_out_rest(global, "global");
    for (at, scrape) in file.list("scrape_configs").into_iter().enumerate() {
        let line = scrape.line;
        match scrape.table() {
            Some(table) => self::scrape(table, at, (&interval, &timeout), &mut out),
            None => out.leave_out(line, format!("scrape_configs[{at}]"), "is no section"),
        }
    }
    for (key, line) in file.rest() {
        out.leave_out(line, key, SERVERS_OWN);
    }
    Ok(out)
}

fn scrape(mut from: Table, at: usize, pace: (&str, &str), out: &mut Converted) {
    let job = from.text("job_name").unwrap_or_default();
    let of = match job.is_empty() {
        true => format!("scrape_configs[{at}]"),
        false => format!("scrape_configs {job}"),
    };
    let mut to = toml::Table::new();
    let mut put = |key: &str, value: String| to.insert(key.to_owned(), value.into());
    put("job", job);
    put("interval", from.text("scrape_interval").unwrap_or_else(|| pace.0.to_owned()));
    put("timeout", from.text("scrape_timeout").unwrap_or_else(|| pace.1.to_owned()));
    access(&mut from, &mut to, &of, out);
    limits(&mut from, &mut to);
    let secure = from.text("scheme").is_some_and(|scheme| scheme == "https");
    let groups = from.list("static_configs");
    for group in groups {
        let line = group.line;
        let Some(mut group) = group.table() else { continue };
        let mut one = to.clone();
        let path = one.get("path").and_then(toml::Value::as_str).unwrap_or("/metrics").to_owned();
        let target = |name: String| match secure {
            true => format!("https://{name}{path}"),
            false => name,
        };
        let targets = group.take("targets").map(Node::texts).unwrap_or_default();
        if targets.is_empty() {
            out.leave_out(line, format!("{of}.static_configs"), "has no targets");
            continue;
        }
        let targets: Vec<toml::Value> = targets.into_iter().map(|t| target(t).into()).collect();
        one.insert("targets".to_owned(), targets.into());
        if let Some(labels) = group.table("labels") {
            one.insert("labels".to_owned(), texts(labels).into());
        }
        out.leave_out_rest(group, &format!("{of}.static_configs"));
        out.add("scrape", one);
    }
    for (key, line) in from.rest() {
        let why = match key.as_str() {
            key if key.ends_with("_sd_configs") => DISCOVERY,
            key if key.ends_with("relabel_configs") || key.starts_with("honor_") => REWRITING,
            _ => "has no counterpart here",
        };
        out.leave_out(line, format!("{of}.{key}"), why);
    }
}

/// Where the page is, and how the target knows us.
fn access(from: &mut Table, to: &mut toml::Table, of: &str, out: &mut Converted) {
    let mut put = |key: &str, value: String| to.insert(key.to_owned(), value.into());
    if let Some(path) = from.text("metrics_path") {
        put("path", path);
    }
    if let Some(file) = from.text("bearer_token_file") {
        put("bearer_token_file", file);
    }
    if let Some(mut authorization) = from.table("authorization") {
        drop(authorization.take("type"));
        if let Some(file) = authorization.text("credentials_file") {
            put("bearer_token_file", file);
        }
        out.leave_out_rest(authorization, &format!("{of}.authorization"));
    }
    if let Some(mut basic) = from.table("basic_auth") {
        if let Some(user) = basic.text("username") {
            put("user", user);
        }
        if let Some(file) = basic.text("password_file") {
            put("password_file", file);
        }
        out.leave_out_rest(basic, &format!("{of}.basic_auth"));
    }
    if let Some(mut tls) = from.table("tls_config") {
        if let Some(file) = tls.text("ca_file") {
            put("ca_file", file);
        }
        out.leave_out_rest(tls, &format!("{of}.tls_config"));
    }
}

fn limits(from: &mut Table, to: &mut toml::Table) {
    let known = [
        ("sample_limit", "samples_max"),
        ("label_limit", "labels_max"),
        ("label_value_length_limit", "label_value_bytes_max"),
    ];
    for (theirs, ours) in known {
        // 0 means no limit there; here ours stays.
        let limit = from.text(theirs).and_then(|text| text.parse::<i64>().ok());
        if let Some(limit) = limit.filter(|limit| *limit > 0) {
            to.insert(ours.to_owned(), limit.into());
        }
    }
    if let Some(bytes) = from.text("body_size_limit").filter(|bytes| bytes != "0") {
        to.insert("body_bytes_max".to_owned(), bytes.into());
    }
}

fn texts(table: Table) -> toml::Table {
    let entries = table.entries().into_iter();
    entries.filter_map(|(key, _, node)| Some((key, node.text()?.into()))).collect()
}
