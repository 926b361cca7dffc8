//! Known vulnerabilities of what Cargo.lock names, by the list in `xtask/advisories.toml`.
//!
//! The list is in the repository, so that whoever checks has it; it knows what was known on its
//! day, which is said with every check.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use semver::{Prerelease, Version, VersionReq};
use serde::Deserialize;

pub mod import;

/// Where the list is, from the repository's root.
const LIST: &str = "xtask/advisories.toml";

/// What is known and does not concern us, with the reason.
const ACCEPTED: [(&str, &str); 1] = [(
    "RUSTSEC-2023-0071",
    "rsa: timing of operations with a private key; sqlx has none, it only encrypts a password to \
     the server's public key",
)];

/// The list, the database or Cargo.lock could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum AdvisoryError {
    #[error("cannot read {path}")]
    Unreadable { path: PathBuf, source: io::Error },
    #[error("cannot write {path}")]
    Unwritable { path: PathBuf, source: io::Error },
    #[error("{path} is not in its form: {cause}")]
    Malformed { path: PathBuf, cause: String },
    #[error("{path} names no advisory")]
    Empty { path: PathBuf },
    #[error("{path} is no git checkout of RustSec's database: {cause}")]
    NoCheckout { path: PathBuf, cause: String },
}

/// What was known on a day.
#[derive(Debug, PartialEq, Deserialize)]
struct List {
    /// The database's commit, abbreviated, and its day (UTC).
    commit: String,
    date: String,
    advisories: Vec<Advisory>,
}

/// One vulnerability, or a crate that nobody maintains.
#[derive(Debug, PartialEq, Deserialize)]
struct Advisory {
    id: String,
    package: String,
    /// Versions that it does not concern: patched ones and those that never had it.
    safe: Vec<VersionReq>,
}

/// What Cargo.lock was held against, and every advisory that concerns it and is not accepted, as
/// one sentence each.
pub struct Advised {
    pub known: usize,
    pub date: String,
    pub findings: Vec<String>,
}

#[derive(Deserialize)]
struct Lock {
    package: Vec<Locked>,
}

#[derive(Deserialize)]
struct Locked {
    name: String,
    version: Version,
}

/// Holds the workspace at `root` against the list.
pub fn check(root: &Path) -> Result<Advised, AdvisoryError> {
    let path = root.join("Cargo.lock");
    let locked = locked(&path, &read(&path)?)?;
    let path = root.join(LIST);
    let list: List = toml::from_str(&read(&path)?).map_err(|cause| malformed(&path, &cause))?;
    if list.advisories.is_empty() {
        return Err(AdvisoryError::Empty { path });
    }
    let findings = judge(&locked, &list.advisories);
    Ok(Advised { known: list.advisories.len(), date: list.date, findings })
}

fn judge(locked: &BTreeMap<String, Vec<Version>>, advisories: &[Advisory]) -> Vec<String> {
    let mut findings = Vec::new();
    let mut met = Vec::new();
    for Advisory { id, package, safe } in advisories {
        let locked = locked.get(package).into_iter().flatten();
        let is_safe = |version: &Version| safe.iter().any(|safe| safe.matches(version));
        let concerned: Vec<_> = locked.filter(|version| !is_safe(version)).collect();
        if concerned.is_empty() {
            continue;
        }
        met.push(id.as_str());
        if ACCEPTED.iter().any(|(accepted, _)| accepted == id) {
            continue;
        }
        for version in concerned {
            findings.push(format!("{package} {version}: https://rustsec.org/advisories/{id}"));
        }
    }
    let stale = ACCEPTED.iter().filter(|(id, _)| !met.contains(id));
    findings.extend(stale.map(|(id, _)| format!("{id} is accepted and concerns nothing here")));
    findings.sort();
    findings
}

fn locked(path: &Path, text: &str) -> Result<BTreeMap<String, Vec<Version>>, AdvisoryError> {
    let malformed = |cause: toml::de::Error| malformed(path, &cause);
    let lock: Lock = toml::from_str(text).map_err(malformed)?;
    let mut locked: BTreeMap<String, Vec<Version>> = BTreeMap::new();
    for package in lock.package {
        // A requirement matches a version before its release only where it names one itself.
        let Locked { name, mut version } = package;
        version.pre = Prerelease::EMPTY;
        locked.entry(name).or_default().push(version);
    }
    Ok(locked)
}

fn malformed(path: &Path, cause: &dyn std::fmt::Display) -> AdvisoryError {
    AdvisoryError::Malformed { path: path.to_owned(), cause: cause.to_string() }
}

fn read(path: &Path) -> Result<String, AdvisoryError> {
    let unreadable = |source| AdvisoryError::Unreadable { path: path.to_owned(), source };
    fs::read_to_string(path).map_err(unreadable)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOCK: &str = "[[package]]\nname = \"rsa\"\nversion = \"0.9.10\"\n\
                        [[package]]\nname = \"time\"\nversion = \"0.1.44\"\n";

    fn advisory(id: &str, package: &str, safe: &[&str]) -> Advisory {
        let safe = safe.iter().map(|safe| safe.parse().unwrap()).collect();
        Advisory { id: id.to_owned(), package: package.to_owned(), safe }
    }

    fn found(mut advisories: Vec<Advisory>) -> Vec<String> {
        advisories.push(advisory("RUSTSEC-2023-0071", "rsa", &[]));
        judge(&locked(Path::new("Cargo.lock"), LOCK).unwrap(), &advisories)
    }

    #[test]
    fn an_advisory_of_a_version_that_is_locked_is_found_and_an_accepted_one_is_not() {
        assert_eq!(found(Vec::new()), Vec::<String>::new());
        let time = advisory("RUSTSEC-2020-0071", "time", &[]);
        let told = ["time 0.1.44: https://rustsec.org/advisories/RUSTSEC-2020-0071"];
        assert_eq!(found(vec![time, advisory("RUSTSEC-2020-0001", "absent", &[])]), told);
    }

    #[test]
    fn a_safe_version_concerns_nothing() {
        for safe in [&[">=0.1.44, <0.2.0"][..], &[">=0.2.23", "=0.1.44"]] {
            let advisories = vec![advisory("RUSTSEC-2020-0071", "time", safe)];
            assert_eq!(found(advisories), Vec::<String>::new(), "{safe:?}");
        }
    }

    #[test]
    fn what_is_accepted_and_concerns_nothing_any_more_is_told() {
        let told = judge(&BTreeMap::new(), &[]);
        assert_eq!(told, ["RUSTSEC-2023-0071 is accepted and concerns nothing here"]);
    }
}
