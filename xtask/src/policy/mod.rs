//! Which crates the workspace may build, under which licences, and what no package of ours may
//! depend on: judged from what cargo really resolved, not from what the manifests intend.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;
use std::process::Command;

use serde::Deserialize;

pub mod advisories;
mod licence;
#[cfg(test)]
mod tests;

/// A crate that must not be built, or not be named by our own packages.
struct Banned {
    name: &'static str,
    reach: Reach,
    why: &'static str,
}

const BANNED: [Banned; 6] = [
    Banned { name: "ring", reach: Reach::Anywhere, why: "one TLS provider: aws-lc-rs" },
    Banned { name: "openssl", reach: Reach::Anywhere, why: "TLS is rustls" },
    Banned { name: "openssl-sys", reach: Reach::Anywhere, why: "TLS is rustls" },
    Banned { name: "native-tls", reach: Reach::Anywhere, why: "TLS is rustls" },
    Banned { name: "axum", reach: Reach::Direct, why: "it hides hyper's header time-out" },
    Banned { name: "anyhow", reach: Reach::Direct, why: "one error enum per operation" },
];

/// A crate that is held at a version, with the reason to hold it.
struct Held {
    name: &'static str,
    version: &'static str,
    why: &'static str,
}

const HELD: [Held; 3] = [
    Held {
        name: "sqlx",
        version: "0.8.",
        why: "0.9.0 lost TCP_NODELAY: large statements stall 44 ms (transact-rs/sqlx #4335)",
    },
    Held { name: "s3s", version: "0.14.", why: "the last for rustc 1.95" },
    Held { name: "s3s-fs", version: "0.14.", why: "the last for rustc 1.95" },
];

/// How far a ban on a dependency reaches.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reach {
    /// Only what the package itself names.
    Direct,
    /// Everything that ends up in its binary.
    Anywhere,
}

/// Invariants of absence between packages; dev-dependencies are free.
struct Ignorance {
    package: &'static str,
    reach: Reach,
    of: &'static [&'static str],
}

const IGNORANCES: [Ignorance; 6] = [
    Ignorance {
        package: "spillway-proto",
        reach: Reach::Anywhere,
        of: &["tokio", "hyper", "rdkafka", "sqlx", "aws-sdk-s3", "redis", "spillway-runtime"],
    },
    Ignorance {
        package: "spillway-agent",
        reach: Reach::Anywhere,
        of: &["rdkafka", "spillway-publisher", "redis"],
    },
    Ignorance {
        package: "spillway-ingest-api",
        reach: Reach::Direct,
        of: &["aws-sdk-s3", "sqlx", "redis"],
    },
    Ignorance {
        package: "spillway-consumer",
        reach: Reach::Direct,
        of: &["hyper", "hyper-util", "aws-sdk-s3"],
    },
    Ignorance {
        package: "spillway-recovery-worker",
        reach: Reach::Direct,
        of: &["sqlx", "redis", "hyper"],
    },
    Ignorance {
        package: "spillway-runtime",
        reach: Reach::Direct,
        of: &["rdkafka", "aws-sdk-s3", "redis"],
    },
];

/// Only tests and developers' commands may depend on these.
const FOR_TESTS_ONLY: [&str; 4] = ["spillway-testkit", "s3s", "s3s-fs", "proptest"];
const MAY_USE_TEST_CRATES: [&str; 4] = ["spillway-testkit", "e2e", "bench", "xtask"];

/// What cargo resolved could not be had or read.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    #[error("cannot start cargo")]
    CannotStart(#[source] io::Error),
    #[error("cargo failed: {stderr}")]
    Refused { stderr: String },
    #[error("`cargo metadata` printed what is not its documented form")]
    Unreadable(#[from] serde_json::Error),
    #[error(transparent)]
    Advisories(#[from] advisories::AdvisoryError),
}

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
    workspace_members: Vec<String>,
    resolve: Resolve,
}

#[derive(Deserialize)]
struct Package {
    id: String,
    name: String,
    version: String,
    license: Option<String>,
}

#[derive(Deserialize)]
struct Resolve {
    nodes: Vec<Node>,
}

#[derive(Deserialize)]
struct Node {
    id: String,
    deps: Vec<Dependency>,
}

#[derive(Deserialize)]
struct Dependency {
    pkg: String,
    dep_kinds: Vec<DependencyKind>,
}

#[derive(Deserialize)]
struct DependencyKind {
    /// `None` is an ordinary dependency; otherwise `build` or `dev`.
    kind: Option<String>,
}

impl Metadata {
    /// The workspace's own packages.
    fn ours(&self) -> impl Iterator<Item = &Package> {
        self.packages.iter().filter(|package| self.workspace_members.contains(&package.id))
    }
}

impl Dependency {
    fn is_for_tests_only(&self) -> bool {
        self.dep_kinds.iter().all(|kind| kind.kind.as_deref() == Some("dev"))
    }
}

/// Every breach of the policy in the workspace at `root`, each as one sentence.
pub fn check(root: &Path) -> Result<Vec<String>, PolicyError> {
    let metadata = cargo(root, &["metadata", "--format-version", "1", "--locked"])?;
    let metadata: Metadata = serde_json::from_slice(&metadata)?;
    // `cargo metadata` also lists crates that no enabled feature reaches; `cargo tree` does not.
    let edges = ["--workspace", "--edges", "normal,build,dev", "--prefix", "none"];
    let tree = cargo(root, &[&["tree", "--locked"], edges.as_slice()].concat())?;
    let tree = String::from_utf8_lossy(&tree);
    let built = tree.lines().filter_map(|line| line.split(' ').next()).collect();
    let mut findings = judge(&metadata, &built);
    let advised = advisories::check(root)?;
    println!("   {} advisories, as of {}", advised.known, advised.date);
    findings.extend(advised.findings);
    Ok(findings)
}

fn cargo(root: &Path, arguments: &[&str]) -> Result<Vec<u8>, PolicyError> {
    let output = Command::new("cargo")
        .args(arguments)
        .current_dir(root)
        .output()
        .map_err(PolicyError::CannotStart)?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return Err(PolicyError::Refused { stderr });
    }
    Ok(output.stdout)
}

/// `built` names every crate that takes part in a build.
fn judge(metadata: &Metadata, built: &BTreeSet<&str>) -> Vec<String> {
    let graph = Graph::new(metadata);
    let mut findings = banned(metadata, &graph, built);
    findings.extend(held(metadata));
    findings.extend(licences(metadata, built));
    findings.extend(ignorances(&graph));
    findings.extend(test_crates(metadata, &graph));
    findings.sort();
    findings
}

fn banned(metadata: &Metadata, graph: &Graph<'_>, built: &BTreeSet<&str>) -> Vec<String> {
    let ours: BTreeSet<&str> =
        metadata.ours().flat_map(|package| graph.direct(&package.name)).collect();
    let breaks = |banned: &&Banned| match banned.reach {
        Reach::Direct => ours.contains(banned.name),
        Reach::Anywhere => built.contains(banned.name),
    };
    let banned = BANNED.iter().filter(breaks);
    banned.map(|banned| format!("{} is banned: {}", banned.name, banned.why)).collect()
}

fn held(metadata: &Metadata) -> Vec<String> {
    let mut findings = Vec::new();
    for package in &metadata.packages {
        let Some(held) = HELD.iter().find(|held| held.name == package.name) else {
            continue;
        };
        if !package.version.starts_with(held.version) {
            findings.push(format!(
                "{} {} is held at {}x: {}",
                package.name, package.version, held.version, held.why
            ));
        }
    }
    findings
}

fn licences(metadata: &Metadata, built: &BTreeSet<&str>) -> Vec<String> {
    let mut findings = Vec::new();
    for package in metadata.packages.iter().filter(|p| built.contains(p.name.as_str())) {
        match &package.license {
            Some(expression) if licence::is_allowed(expression) => {}
            Some(expression) => {
                findings.push(format!("{}: licence `{expression}` is not allowed", package.name));
            }
            None => findings.push(format!("{} names no licence", package.name)),
        }
    }
    findings
}

fn ignorances(graph: &Graph<'_>) -> Vec<String> {
    let mut findings = Vec::new();
    for rule in &IGNORANCES {
        let known = match rule.reach {
            Reach::Direct => graph.direct(rule.package),
            Reach::Anywhere => graph.anywhere(rule.package),
        };
        for name in rule.of.iter().filter(|name| known.contains(**name)) {
            findings.push(format!("{} must not know {name}", rule.package));
        }
    }
    findings
}

fn test_crates(metadata: &Metadata, graph: &Graph<'_>) -> Vec<String> {
    let mut findings = Vec::new();
    for package in metadata.ours() {
        if MAY_USE_TEST_CRATES.iter().any(|tool| package.name.ends_with(tool)) {
            continue;
        }
        let direct = graph.direct(&package.name);
        for name in FOR_TESTS_ONLY.iter().filter(|name| direct.contains(**name)) {
            findings.push(format!("{} may use {name} in its tests only", package.name));
        }
    }
    findings
}

/// Who depends on whom, by name, without what only tests use.
struct Graph<'a> {
    names: BTreeMap<&'a str, &'a str>,
    edges: BTreeMap<&'a str, Vec<&'a str>>,
}

impl<'a> Graph<'a> {
    fn new(metadata: &'a Metadata) -> Self {
        let names = metadata.packages.iter().map(|p| (p.id.as_str(), p.name.as_str())).collect();
        let edges = metadata.resolve.nodes.iter().map(|node| {
            let real = node.deps.iter().filter(|dependency| !dependency.is_for_tests_only());
            (node.id.as_str(), real.map(|dependency| dependency.pkg.as_str()).collect())
        });
        Self { names, edges: edges.collect() }
    }

    fn ids(&self, name: &str) -> Vec<&'a str> {
        self.names.iter().filter(|(_, n)| **n == name).map(|(id, _)| *id).collect()
    }

    fn direct(&self, name: &str) -> BTreeSet<&'a str> {
        let edges = self.ids(name).into_iter().filter_map(|id| self.edges.get(id)).flatten();
        edges.filter_map(|id| self.names.get(id).copied()).collect()
    }

    fn anywhere(&self, name: &str) -> BTreeSet<&'a str> {
        let mut seen: BTreeSet<&str> = BTreeSet::new();
        let mut open = self.ids(name);
        while let Some(id) = open.pop() {
            for next in self.edges.get(id).into_iter().flatten() {
                if seen.insert(next) {
                    open.push(next);
                }
            }
        }
        seen.into_iter().filter_map(|id| self.names.get(id).copied()).collect()
    }
}
