//! The policy fires on each kind of breach.

use std::collections::BTreeSet;

use super::{Metadata, licence};
use serde_json::json;

/// Two packages, ours and another, ours depending on the other as `kind`.
fn workspace(ours: &str, other: &str, version: &str, kind: Option<&str>) -> Metadata {
    serde_json::from_value(json!({
        "packages": [
            {"id": "ours", "name": ours, "version": "0.1.0", "license": "Apache-2.0"},
            {"id": "other", "name": other, "version": version, "license": "MIT"},
        ],
        "workspace_members": ["ours"],
        "resolve": {"nodes": [
            {"id": "ours", "deps": [{"pkg": "other", "dep_kinds": [{"kind": kind}]}]},
            {"id": "other", "deps": []},
        ]},
    }))
    .unwrap()
}

fn judge(metadata: &Metadata) -> Vec<String> {
    let built: BTreeSet<&str> = metadata.packages.iter().map(|p| p.name.as_str()).collect();
    super::judge(metadata, &built)
}

#[test]
fn a_banned_crate_is_refused_with_its_reason() {
    let found = judge(&workspace("spillway-keeper", "ring", "0.17.0", None));
    assert_eq!(found, ["ring is banned: one TLS provider: aws-lc-rs"]);
}

#[test]
fn a_crate_that_only_our_own_packages_must_not_name_may_come_through_others() {
    let found = judge(&workspace("spillway-keeper", "anyhow", "1.0.0", None));
    assert_eq!(found, ["anyhow is banned: one error enum per operation"]);
    let mut metadata = workspace("other-crate", "anyhow", "1.0.0", None);
    metadata.workspace_members.clear();
    assert_eq!(judge(&metadata), Vec::<String>::new());
}

#[test]
fn a_licence_that_is_not_on_the_list_is_refused() {
    let mut metadata = workspace("spillway-keeper", "copyleft", "1.0.0", None);
    metadata.packages[1].license = Some("AGPL-3.0-only".to_owned());
    let found = judge(&metadata);
    assert_eq!(found, ["copyleft: licence `AGPL-3.0-only` is not allowed"]);
    metadata.packages[1].license = None;
    assert_eq!(judge(&metadata), ["copyleft names no licence"]);
}

#[test]
fn a_held_crate_may_not_move() {
    assert_eq!(judge(&workspace("spillway-keeper", "sqlx", "0.8.6", None)), Vec::<String>::new());
    let found = judge(&workspace("spillway-keeper", "sqlx", "0.9.0", None));
    assert!(found.iter().any(|finding| finding.contains("TCP_NODELAY")), "{found:?}");
}

#[test]
fn a_package_may_not_depend_on_what_it_must_not_know_but_its_tests_may() {
    let found = judge(&workspace("spillway-agent", "rdkafka", "0.39.0", None));
    assert_eq!(found, ["spillway-agent must not know rdkafka"]);
    let found = judge(&workspace("spillway-agent", "rdkafka", "0.39.0", Some("dev")));
    assert_eq!(found, Vec::<String>::new());
}

#[test]
fn the_test_kit_stays_out_of_production() {
    let found = judge(&workspace("spillway-keeper", "spillway-testkit", "0.1.0", None));
    assert_eq!(found, ["spillway-keeper may use spillway-testkit in its tests only"]);
    let found = judge(&workspace("xtask", "spillway-testkit", "0.1.0", None));
    assert_eq!(found, Vec::<String>::new());
}

#[test]
fn licence_expressions_are_read_as_spdx_reads_them() {
    for allowed in [
        "MIT",
        "MIT OR Apache-2.0",
        "MIT/Apache-2.0",
        "GPL-3.0-only OR MIT",
        "ISC AND (Apache-2.0 OR ISC)",
        "(MIT OR Apache-2.0) AND Unicode-3.0",
        "Apache-2.0 WITH LLVM-exception OR GPL-2.0-only",
    ] {
        assert!(licence::is_allowed(allowed), "{allowed}");
    }
    for refused in [
        "",
        "GPL-3.0-only",
        "MIT AND GPL-3.0-only",
        "MIT AND (GPL-3.0-only OR AGPL-3.0-only)",
        "GPL-2.0-only WITH Classpath-exception-2.0",
        "(MIT",
        "MIT OR",
        "MIT Apache-2.0",
    ] {
        assert!(!licence::is_allowed(refused), "{refused}");
    }
}
