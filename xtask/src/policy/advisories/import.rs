//! Makes the list of advisories from a copy of RustSec's database, for `cargo xtask advisories`.
//!
//! The form of an advisory there: a TOML block at the begin of a Markdown file, `[advisory]` with
//! id and package, `[versions]` with requirements (EXAMPLE_ADVISORY.md of the database).

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::Deserialize;

use super::{Advisory, AdvisoryError, LIST, List, malformed, read};

/// The folder of the database that is about crates; the other is about Rust itself.
const CRATES: &str = "crates";

#[derive(Deserialize)]
struct Page {
    advisory: Head,
    #[serde(default)]
    versions: Versions,
}

#[derive(Deserialize)]
struct Head {
    id: String,
    package: String,
    withdrawn: Option<toml::Value>,
}

#[derive(Default, Deserialize)]
struct Versions {
    #[serde(default)]
    patched: Vec<semver::VersionReq>,
    #[serde(default)]
    unaffected: Vec<semver::VersionReq>,
}

/// Writes the workspace's list anew from the git checkout in `database`; returns how many it names.
pub fn run(root: &Path, database: &Path) -> Result<usize, AdvisoryError> {
    let (commit, date) = version(database)?;
    let mut list = List { commit, date, advisories: Vec::new() };
    let folder = database.join(CRATES);
    for of_crate in entries(&folder)? {
        for path in entries(&of_crate)? {
            if path.extension().is_some_and(|extension| extension == "md") {
                list.advisories.extend(page(&path, &read(&path)?)?);
            }
        }
    }
    list.advisories.sort_by(|a, b| a.id.cmp(&b.id));
    let path = root.join(LIST);
    let unwritable = |source| AdvisoryError::Unwritable { path: path.clone(), source };
    fs::write(&path, write(&list)).map_err(unwritable)?;
    Ok(list.advisories.len())
}

/// Commit and date (UTC) of the checkout.
fn version(database: &Path) -> Result<(String, String), AdvisoryError> {
    let no_checkout = |cause: String| AdvisoryError::NoCheckout { path: database.into(), cause };
    let output = Command::new("git")
        .env("TZ", "UTC0")
        .arg("-C")
        .arg(database)
        .args(["log", "-1", "--date=short-local", "--format=%h %cd"])
        .output()
        .map_err(|error| no_checkout(error.to_string()))?;
    let told = String::from_utf8_lossy(&output.stdout);
    match told.trim().split_once(' ') {
        Some((commit, date)) if output.status.success() => Ok((commit.into(), date.into())),
        _ => Err(no_checkout(String::from_utf8_lossy(&output.stderr).trim().to_owned())),
    }
}

/// What a page says; nothing if it was withdrawn.
fn page(path: &Path, text: &str) -> Result<Option<Advisory>, AdvisoryError> {
    let block = text.strip_prefix("```toml").and_then(|text| text.split_once("```"));
    let (block, _) = block.ok_or_else(|| malformed(path, &"no TOML block at its begin"))?;
    let page: Page = toml::from_str(block).map_err(|cause| malformed(path, &cause))?;
    let Page { advisory: Head { id, package, withdrawn }, versions } = page;
    let Versions { patched, unaffected } = versions;
    let safe = patched.into_iter().chain(unaffected).collect();
    Ok(withdrawn.is_none().then_some(Advisory { id, package, safe }))
}

/// One line an advisory, so that what a new copy brings is read in the diff.
fn write(list: &List) -> String {
    let List { commit, date, advisories } = list;
    let mut text = format!(
        "# Versions without a known vulnerability, by advisory, from RustSec's database\n\
         # (github.com/rustsec/advisory-db, CC0 and, where imported from GitHub's, CC-BY 4.0).\n\
         # Written by `cargo xtask advisories DIR`, read by `cargo xtask check`.\n\
         commit = \"{commit}\"\ndate = \"{date}\"\nadvisories = [\n"
    );
    for Advisory { id, package, safe } in advisories {
        let safe: Vec<_> = safe.iter().map(|safe| format!("\"{safe}\"")).collect();
        let safe = safe.join(", ");
        text.push_str(&format!(
            "  {{ id = \"{id}\", package = \"{package}\", safe = [{safe}] }},\n"
        ));
    }
    text.push_str("]\n");
    text
}

fn entries(folder: &Path) -> Result<Vec<PathBuf>, AdvisoryError> {
    let unreadable = |source| AdvisoryError::Unreadable { path: folder.to_owned(), source };
    let entries = fs::read_dir(folder).map_err(unreadable)?;
    entries.map(|entry| entry.map(|entry| entry.path()).map_err(unreadable)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_page(rest: &str) -> Option<Advisory> {
        let head = "```toml\n[advisory]\nid = \"RUSTSEC-2020-0071\"\npackage = \"time\"\n";
        page(Path::new("a.md"), &format!("{head}{rest}```\n\n# Title\n")).unwrap()
    }

    #[test]
    fn what_is_written_says_what_the_page_said() {
        let read = read_page("[versions]\npatched = [\">= 0.2.23\"]\nunaffected = [\"=0.1.44\"]\n");
        let (commit, date) = ("bf5c0d2".to_owned(), "2026-08-21".to_owned());
        let list = List { commit, date, advisories: vec![read.unwrap()] };
        assert_eq!(toml::from_str::<List>(&write(&list)).unwrap(), list);
        assert_eq!(list.advisories[0].safe.len(), 2);
    }

    #[test]
    fn a_withdrawn_advisory_is_none() {
        assert_eq!(read_page("withdrawn = \"2020-01-01\"\n"), None);
    }

    #[test]
    fn a_page_without_its_block_is_an_error_and_not_a_pass() {
        assert!(page(Path::new("a.md"), "# no block").is_err());
    }
}
