//! Known vulnerabilities of what Cargo.lock names, from a copy of RustSec's database
//! (github.com/rustsec/advisory-db), if there is one: `SPILLWAY_ADVISORY_DB` names its folder.
//!
//! The form of an advisory: a TOML block at the begin of a Markdown file, `[advisory]` with id and
//! package, `[versions]` with requirements (EXAMPLE_ADVISORY.md of the database).

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use semver::{Prerelease, Version, VersionReq};
use serde::Deserialize;

/// Where the database is, for whoever has one.
pub const DATABASE: &str = "SPILLWAY_ADVISORY_DB";
/// The folder of it that is about crates; the other is about Rust itself.
const CRATES: &str = "crates";

/// What is known and does not concern us, with the reason.
const ACCEPTED: [(&str, &str); 1] = [(
    "RUSTSEC-2023-0071",
    "rsa: timing of operations with a private key; sqlx has none, it only encrypts a password to \
     the server's public key",
)];

/// The database or Cargo.lock could not be read.
#[derive(Debug, thiserror::Error)]
pub enum AdvisoryError {
    #[error("cannot read {path}")]
    Unreadable { path: PathBuf, source: io::Error },
    #[error("{path} is not in its form: {cause}")]
    Malformed { path: PathBuf, cause: String },
    #[error("{path} holds no advisory")]
    Empty { path: PathBuf },
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

#[derive(Deserialize)]
struct Page {
    advisory: Advisory,
    #[serde(default)]
    versions: Versions,
}

#[derive(Deserialize)]
struct Advisory {
    id: String,
    package: String,
    #[serde(default)]
    withdrawn: Option<toml::Value>,
}

#[derive(Default, Deserialize)]
struct Versions {
    #[serde(default)]
    patched: Vec<VersionReq>,
    #[serde(default)]
    unaffected: Vec<VersionReq>,
}

/// Every advisory that concerns the workspace at `root` and is not accepted, as one sentence each;
/// beside it the number of advisories read.
pub fn check(root: &Path, database: &Path) -> Result<(usize, Vec<String>), AdvisoryError> {
    let path = root.join("Cargo.lock");
    let locked = locked(&path, &read(&path)?)?;
    let mut pages = Vec::new();
    let folder = database.join(CRATES);
    for of_crate in entries(&folder)? {
        for path in entries(&of_crate)? {
            if path.extension().is_some_and(|extension| extension == "md") {
                pages.push(page(&path, &read(&path)?)?);
            }
        }
    }
    if pages.is_empty() {
        return Err(AdvisoryError::Empty { path: folder });
    }
    Ok((pages.len(), judge(&locked, &pages)))
}

fn judge(locked: &BTreeMap<String, Vec<Version>>, pages: &[Page]) -> Vec<String> {
    let mut findings = Vec::new();
    let mut met = Vec::new();
    for Page { advisory, versions } in pages {
        let concerned = locked.get(&advisory.package).into_iter().flatten();
        let safe = |version: &Version| {
            versions.patched.iter().chain(&versions.unaffected).any(|safe| safe.matches(version))
        };
        let concerned: Vec<_> = concerned.filter(|version| !safe(version)).collect();
        if advisory.withdrawn.is_some() || concerned.is_empty() {
            continue;
        }
        met.push(advisory.id.as_str());
        if ACCEPTED.iter().any(|(id, _)| *id == advisory.id) {
            continue;
        }
        for version in concerned {
            let Advisory { id, package, .. } = advisory;
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

fn page(path: &Path, text: &str) -> Result<Page, AdvisoryError> {
    let block = text.strip_prefix("```toml").and_then(|text| text.split_once("```"));
    let (block, _) = block.ok_or_else(|| malformed(path, &"no TOML block at its begin"))?;
    toml::from_str(block).map_err(|cause| malformed(path, &cause))
}

fn malformed(path: &Path, cause: &dyn std::fmt::Display) -> AdvisoryError {
    AdvisoryError::Malformed { path: path.to_owned(), cause: cause.to_string() }
}

fn read(path: &Path) -> Result<String, AdvisoryError> {
    let unreadable = |source| AdvisoryError::Unreadable { path: path.to_owned(), source };
    fs::read_to_string(path).map_err(unreadable)
}

fn entries(folder: &Path) -> Result<Vec<PathBuf>, AdvisoryError> {
    let unreadable = |source| AdvisoryError::Unreadable { path: folder.to_owned(), source };
    let entries = fs::read_dir(folder).map_err(unreadable)?;
    entries.map(|entry| entry.map(|entry| entry.path()).map_err(unreadable)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOCK: &str = "[[package]]\nname = \"rsa\"\nversion = \"0.9.10\"\n\
                        [[package]]\nname = \"time\"\nversion = \"0.1.44\"\n";

    fn advisory(id: &str, package: &str, rest: &str) -> Page {
        let text = format!(
            "```toml\n[advisory]\nid = \"{id}\"\npackage = \"{package}\"\n{rest}```\n\n# Title\n"
        );
        page(Path::new("a.md"), &text).unwrap()
    }

    fn found(mut pages: Vec<Page>) -> Vec<String> {
        pages.push(advisory("RUSTSEC-2023-0071", "rsa", "[versions]\npatched = []\n"));
        judge(&locked(Path::new("Cargo.lock"), LOCK).unwrap(), &pages)
    }

    #[test]
    fn an_advisory_of_a_version_that_is_locked_is_found_and_an_accepted_one_is_not() {
        assert_eq!(found(Vec::new()), Vec::<String>::new());
        let time = advisory("RUSTSEC-2020-0071", "time", "");
        let told = ["time 0.1.44: https://rustsec.org/advisories/RUSTSEC-2020-0071"];
        assert_eq!(found(vec![time, advisory("RUSTSEC-2020-0001", "absent", "")]), told);
    }

    #[test]
    fn patched_unaffected_and_withdrawn_ones_concern_nothing() {
        for rest in [
            "[versions]\npatched = [\">= 0.1.44, < 0.2.0\"]\n",
            "[versions]\npatched = [\">= 0.2.23\"]\nunaffected = [\"=0.1.44\"]\n",
            "withdrawn = \"2020-01-01\"\n",
        ] {
            let pages = vec![advisory("RUSTSEC-2020-0071", "time", rest)];
            assert_eq!(found(pages), Vec::<String>::new(), "{rest}");
        }
    }

    #[test]
    fn what_is_accepted_and_concerns_nothing_any_more_is_told() {
        let told = judge(&BTreeMap::new(), &[]);
        assert_eq!(told, ["RUSTSEC-2023-0071 is accepted and concerns nothing here"]);
    }

    #[test]
    fn a_page_without_its_block_is_an_error_and_not_a_pass() {
        assert!(page(Path::new("a.md"), "# no block").is_err());
    }
}
