//! What is shipped for Prometheus: rules that promtool takes and whose unit tests pass, a runbook
//! for each alert, and no metric that our programs don't have.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use spillway_testkit::debian::unpacked;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn files(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> =
        entries.filter(|path| path.extension().is_some_and(|e| e == extension)).collect();
    files.sort();
    assert!(!files.is_empty(), "{} has no .{extension}", folder.display());
    files
}

/// Of Debian's prometheus: unpacked, for the package itself would start a server.
fn promtool() -> PathBuf {
    unpacked("prometheus", &["prometheus"]).expect("Debian's prometheus").join("usr/bin/promtool")
}

fn run(arguments: &[&str], files: &[PathBuf]) {
    let output = Command::new(promtool()).args(arguments).args(files).output();
    let output = output.expect("promtool runs");
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "promtool {arguments:?}:\n{said}");
}

#[test]
fn alert_rules_are_sound_and_fire_when_they_must() {
    run(&["check", "rules"], &files(&root().join("deploy/prometheus/rules"), "yaml"));
    run(&["test", "rules"], &files(&root().join("deploy/prometheus/tests"), "yaml"));
}

/// The values of `key: value` lines.
fn values<'a>(text: &'a str, key: &str) -> Vec<&'a str> {
    let value = |line: &'a str| line.trim().trim_start_matches("- ").strip_prefix(key);
    text.lines().filter_map(value).map(str::trim).collect()
}

#[test]
fn every_alert_has_a_severity_a_summary_and_a_runbook_that_says_what_to_do() {
    let mut alerts = 0;
    for file in files(&root().join("deploy/prometheus/rules"), "yaml") {
        let text = std::fs::read_to_string(&file).unwrap();
        let names = values(&text, "alert:");
        let runbooks = values(&text, "runbook_url:");
        assert_eq!(names.len(), values(&text, "summary:").len(), "{}", file.display());
        let severities = values(&text, "severity:");
        assert!(severities.iter().all(|s| ["warning", "critical"].contains(s)));
        assert_eq!((names.len(), names.len()), (severities.len(), runbooks.len()));
        for (name, runbook) in names.iter().zip(runbooks) {
            assert_eq!(runbook, format!("docs/runbooks/{name}.md"));
            let page = std::fs::read_to_string(root().join(runbook)).expect(runbook);
            for part in ["means", "is at stake", "to look at", "to do"] {
                assert!(
                    page.contains(&format!("## What {part}\n"))
                        || part == "means" && page.contains("## What it means\n"),
                    "{runbook}: {part}"
                );
            }
            alerts += 1;
        }
    }
    let pages = files(&root().join("docs/runbooks"), "md");
    assert_eq!(alerts + 1, pages.len(), "a runbook without an alert, README apart");
}

/// Names as a program shows them, from what its source registers.
fn registered() -> BTreeSet<String> {
    const PROGRAMS: [(&str, &[&str]); 6] = [
        ("agent", &["agent/src/metrics.rs"]),
        ("ingest", &["ingest-api/src/metrics.rs", "lib/publisher/src/metrics.rs"]),
        ("consumer", &["consumer/src/metrics.rs", "lib/publisher/src/metrics.rs"]),
        ("recovery", &["recovery-worker/src/metrics.rs", "lib/publisher/src/metrics.rs"]),
        ("keeper", &["keeper/src/metrics.rs"]),
        ("console", &["console/src/status/watch.rs", "console/src/status/probe.rs"]),
    ];
    let mut names = BTreeSet::new();
    for (program, files) in PROGRAMS {
        names.insert(format!("spillway_{program}_start_time_seconds"));
        for file in files {
            let text = std::fs::read_to_string(root().join(file)).unwrap();
            for call in text.split(".register(").skip(1) {
                let name =
                    call.trim_start().strip_prefix('"').and_then(|rest| rest.split('"').next());
                names.extend(name.map(|name| format!("spillway_{program}_{name}")));
            }
        }
    }
    names
}

#[test]
fn every_metric_of_a_rule_is_one_that_a_program_has() {
    let registered = registered();
    assert!(registered.contains("spillway_keeper_lag_seconds"), "{registered:?}");
    let mut seen = 0;
    for folder in ["rules", "tests"] {
        for file in files(&root().join("deploy/prometheus").join(folder), "yaml") {
            let text = std::fs::read_to_string(&file).unwrap();
            let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == '.'));
            for word in words.filter(|w| w.starts_with("spillway_") && !w.contains('.')) {
                let plain = ["_total", "_bucket", "_count", "_sum"]
                    .iter()
                    .find_map(|suffix| word.strip_suffix(suffix))
                    .unwrap_or(word);
                assert!(registered.contains(plain), "{}: no program has {word}", file.display());
                seen += 1;
            }
        }
    }
    assert!(seen > 40);
}
