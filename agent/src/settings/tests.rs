//! What settings are refused, and that all are told at once.

use std::collections::BTreeSet;

use spillway_runtime::settings::{Settings as _, load_from, reference_markdown, sample_toml};

use super::*;

const GOOD: &str = r#"
[agent]
environment = "demo"
token = "spw_a_b"
"#;

fn problems(toml: &str) -> BTreeSet<String> {
    match load_from::<Settings>(toml, []) {
        Ok(_) => BTreeSet::new(),
        Err(errors) => errors.problems().iter().map(|problem| problem.path.clone()).collect(),
    }
}

#[test]
fn an_environment_and_a_token_are_all_that_must_be_said() {
    let settings: Settings = load_from(GOOD, []).unwrap();
    let settings = settings.resolved().unwrap();
    assert!(!settings.agent.host.is_empty(), "the host is this one");
    assert_eq!(settings.spool_dir(), PathBuf::from("/var/lib/spillway-agent/spool"));
    assert_eq!(problems(""), ["agent.environment", "agent.token_file"].map(str::to_owned).into());
}

#[test]
fn every_bad_value_is_named_at_once() {
    let bad = format!(
        "{GOOD}\n{}",
        r#"
        [collect]
        interval = "3s"
        off = ["cpu", "gpu"]
        [statsd]
        listen = "8125"
        [spool]
        bytes_max = "2 GiB"
        segment_bytes = "1 KiB"
        [deliver]
        endpoints = ["ingest.example.com"]
        park_fill = 2.0
        backlog_rate = 0.0
        [spill]
        enabled = true
        endpoint = "https://s3.example.com"
        public_key = "abcd"
        "#
    );
    let expected = [
        "collect.interval",
        "collect.off[1]",
        "deliver.backlog_rate",
        "deliver.endpoints[0]",
        "deliver.park_fill",
        "spill.access_key",
        "spill.key_id",
        "spill.public_key",
        "spool.bytes_max",
        "spool.segment_bytes",
        "statsd.listen",
    ];
    assert_eq!(problems(&bad), expected.map(str::to_owned).into());
}

#[test]
fn defaults_say_nothing_wrong_but_what_nobody_can_guess() {
    let paths: Vec<_> = Settings::default().validate().into_iter().map(|p| p.path).collect();
    assert_eq!(paths, ["agent.environment", "agent.token_file"]);
}

#[test]
fn every_bad_input_is_named_at_once() {
    let target = |n| format!("\"10.0.{}.{}:9100\"", n / 250, n % 250);
    let targets: Vec<_> = (0..10_000).map(target).collect();
    let bad = format!(
        "{GOOD}\n[[scrape]]\njob = \"many\"\ntargets = [{}]\n{}",
        targets.join(","),
        r#"
        [[scrape]]
        targets = ["web-1:9100", "ftp://web-1", "http://user:geheim@web-1/metrics"]
        interval = "5s"
        samples_max = 0
        labels_max = 65
        [[mysql]]
        address = "db-1"
        user = ""
        timeout = "20s"
        [[exec]]
        output_bytes_max = "1 GiB"
        [influx]
        enabled = true
        listen = "8186"
        [collect]
        tray_bytes_max = "1 KiB"
        "#
    );
    let expected = [
        "collect.tray_bytes_max",
        "exec[0].command",
        "exec[0].output_bytes_max",
        "influx.listen",
        "mysql[0].address",
        "mysql[0].timeout",
        "mysql[0].user",
        "scrape",
        "scrape[1].job",
        "scrape[1].labels_max",
        "scrape[1].samples_max",
        "scrape[1].targets[1]",
        "scrape[1].targets[2]",
        "scrape[1].timeout",
    ];
    assert_eq!(problems(&bad), expected.map(str::to_owned).into());
}

#[test]
fn the_sample_loads_again_once_environment_and_token_are_filled_in() {
    let sample = sample_toml::<Settings>();
    let filled = sample.replacen("environment = \"\"", "environment = \"demo\"", 1).replacen(
        "# token = \"\"",
        "token = \"spw_a_b\"",
        1,
    );
    load_from::<Settings>(&filled, []).unwrap();
    for section in ["agent", "collect", "statsd", "spool", "deliver", "spill", "admin"] {
        assert!(sample.contains(&format!("[{section}]")), "{section} is missing");
        assert!(reference_markdown::<Settings>().contains(section));
    }
}

#[test]
fn secrets_come_from_their_files_and_never_show() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("token");
    std::fs::write(&file, "spw_id_geheim\n").unwrap();
    let toml = format!("[agent]\nenvironment = \"demo\"\ntoken_file = {file:?}\n");
    let settings = load_from::<Settings>(&toml, []).unwrap().resolved().unwrap();
    assert_eq!(settings.agent.token.reveal(), "spw_id_geheim");
    assert!(!format!("{settings:?}").contains("geheim"));
    assert!(!settings::show(&settings).contains("geheim"));
}

#[test]
fn a_star_ignores_all_names_that_start_so_and_a_name_only_itself() {
    let collect = CollectSettings::default();
    assert!(collect.ignores_device("lo") && collect.ignores_device("loop7"));
    assert!(!collect.ignores_device("lowpan0") && !collect.ignores_device("eth0"));
}

#[test]
fn an_input_never_delays_the_next_sample() {
    let interval = Dur::from_secs(1);
    let collect = CollectSettings { interval, ..CollectSettings::default() };
    assert_eq!(collect.input_deadline(), Duration::from_millis(800));
    assert_eq!(CollectSettings::default().input_deadline(), Duration::from_secs(2));
}
