//! Configurations as people have them (made up), and that every line of theirs is accounted for.

use spillway_runtime::settings::{Settings as _, load_from};

use super::*;
use crate::settings::{ExecFormat, Settings};

const TELEGRAF: &str = include_str!("samples/telegraf.conf");
const PROMETHEUS: &str = include_str!("samples/prometheus.yml");

/// What we would run with, once environment and token are filled in.
fn settings(converted: &Converted) -> Settings {
    let mut table = converted.settings.clone();
    let agent = table.entry("agent").or_insert_with(|| toml::Table::new().into());
    let agent = agent.as_table_mut().unwrap();
    agent.insert("environment".to_owned(), "demo".into());
    agent.insert("token".to_owned(), "spw_a_b".into());
    let text = toml::to_string(&table).unwrap();
    let settings: Settings = load_from(&text, []).unwrap_or_else(|e| panic!("{e}\n{text}"));
    assert_eq!(settings.validate().len(), 0);
    settings
}

fn left_out(converted: &Converted) -> Vec<String> {
    converted.left_out.iter().map(|one| format!("{}: {}", one.line, one.what)).collect()
}

#[test]
fn a_telegraf_configuration_becomes_ours() {
    let converted = telegraf::convert(TELEGRAF).unwrap();
    let settings = settings(&converted);
    assert_eq!(settings.agent.host, "web-7");
    assert!(settings.collect.cpu_per_core);
    assert_eq!(settings.statsd.listen, "127.0.0.1:8125");
    assert_eq!(
        (settings.influx.enabled, settings.influx.listen.as_str()),
        (true, "127.0.0.1:8186")
    );
    let scrape = &settings.scrape[0];
    assert_eq!(scrape.targets.len(), 2);
    assert_eq!(scrape.interval.as_secs(), 30);
    assert!(scrape.bearer_token_file.is_some() && scrape.ca_file.is_some());
    assert_eq!(settings.mysql.len(), 2);
    assert_eq!(settings.mysql[0].address, "127.0.0.1:3306");
    assert_eq!(
        settings.mysql[1].socket.as_deref().unwrap().to_str(),
        Some("/run/mysqld/mysqld.sock")
    );
    assert_eq!(settings.exec.len(), 1);
    assert_eq!(settings.exec[0].command, ["/usr/local/bin/queue-depth", "--all"]);
    assert_eq!(settings.exec[0].format, ExecFormat::Influx);
    assert!(!converted.text("x").contains("geheim"), "no password is written down");
}

#[test]
fn what_telegraf_has_and_we_do_not_is_named_with_its_line() {
    let converted = telegraf::convert(TELEGRAF).unwrap();
    let got = left_out(&converted);
    for line in [
        "2: global_tags",
        "7: agent.round_interval",
        "8: agent.metric_batch_size",
        "11: outputs.influxdb",
        "14: inputs.cpu",
        "17: inputs.cpu.collect_cpu_time",
        "26: inputs.statsd.service_address",
        "27: inputs.statsd.percentiles",
        "34: inputs.prometheus.insecure_skip_verify",
        "37: the password in inputs.mysql.servers",
        "38: inputs.mysql.gather_slave_status",
        "45: inputs.exec (json)",
        "52: inputs.redis",
        "55: processors.rename",
    ] {
        assert!(got.iter().any(|one| one == line), "{line} is missing in {got:#?}");
    }
}

#[test]
fn a_prometheus_configuration_becomes_ours() {
    let converted = prometheus::convert(PROMETHEUS).unwrap();
    let settings = settings(&converted);
    let jobs: Vec<_> = settings.scrape.iter().map(|s| (s.job.as_str(), s.targets.len())).collect();
    assert_eq!(jobs, [("prometheus", 1), ("node", 2), ("node", 1), ("secure", 1)]);
    let node = &settings.scrape[1];
    assert_eq!((node.path.as_str(), node.samples_max), ("/node", 5_000));
    assert_eq!(node.body_bytes_max.get(), 5_000_000);
    assert_eq!(node.labels.get("team").map(String::as_str), Some("web"));
    assert_eq!((node.interval.as_secs(), settings.scrape[0].interval.as_secs()), (15, 5));
    let secure = &settings.scrape[3];
    assert_eq!(secure.targets, ["https://app.local:9443/metrics"]);
    assert!(secure.bearer_token_file.is_some() && secure.ca_file.is_some());
    assert_eq!(
        left_out(&converted),
        [
            "6: global.external_labels",
            "4: global.evaluation_interval",
            "29: scrape_configs node.relabel_configs",
            "39: scrape_configs secure.tls_config.insecure_skip_verify",
            "44: scrape_configs pods.kubernetes_sd_configs",
            "8: rule_files",
            "47: remote_write",
        ]
    );
}

#[test]
fn what_is_no_configuration_is_refused_in_words() {
    assert!(telegraf::convert("[[inputs.cpu").unwrap_err().to_string().contains("no TOML"));
    assert!(prometheus::convert("a: [").unwrap_err().to_string().contains("no YAML"));
    assert!(prometheus::convert("- a").unwrap_err().to_string().contains("no sections"));
    let deep = "[".repeat(200) + &"]".repeat(200);
    assert!(prometheus::convert(&format!("a: {deep}")).is_err());
    for odd in ["", "scrape_configs: 5", "scrape_configs: [5, {}]", "global: []"] {
        drop(prometheus::convert(odd));
    }
    for odd in ["", "inputs = 5", "inputs.mysql = 5", "[[inputs.mysql]]\nservers = [\"@(\"]"] {
        drop(telegraf::convert(odd));
    }
}
