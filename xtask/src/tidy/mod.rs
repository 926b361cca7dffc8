//! House law that rustfmt and clippy don't know: the numbers, the names and the invariants of
//! absence, checked over every Rust file of the repository, without exemptions.
//!
//! A batch never meets this code; whoever changes the code it meets does, through
//! `cargo xtask check`. Each rule lives in the file its name says, and each is shown to fire on
//! a bad sample in `tests.rs`.

mod source;
mod facts;
mod numbers;
mod names;
mod absence;
mod proofs;
#[cfg(test)]
mod tests;

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

pub use source::Source;

/// Folders that hold no code of ours.
const SKIPPED_FOLDERS: [&str; 3] = ["target", ".git", "node_modules"];

/// One breach of house law, at one place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Path from the repository's root, with forward slashes.
    pub path: String,
    /// Counted from 1.
    pub line: usize,
    /// What is wrong, and what would be right.
    pub message: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.path, self.line, self.message)
    }
}

/// The tree itself could not be read.
#[derive(Debug, thiserror::Error)]
pub enum TidyError {
    #[error("cannot read {path}")]
    Unreadable { path: PathBuf, source: io::Error },
}

/// What a walk over the whole repository found.
#[derive(Debug, Default)]
pub struct Report {
    pub files: usize,
    pub findings: Vec<Finding>,
}

/// Checks every `.rs` file below `root`, and the proofs that the book names.
pub fn check_tree(root: &Path) -> Result<Report, TidyError> {
    let mut report = Report::default();
    for path in rust_files(root)? {
        let unreadable = |source| TidyError::Unreadable { path: path.clone(), source };
        let text = fs::read_to_string(&path).map_err(unreadable)?;
        report.files += 1;
        report.findings.extend(check_text(&relative(root, &path), &text));
    }
    report.findings.extend(proofs::check(root)?);
    Ok(report)
}

/// Checks one file's text as if it lay at `path`.
pub fn check_text(path: &str, text: &str) -> Vec<Finding> {
    let source = match Source::parse(path, text) {
        Ok(source) => source,
        Err(finding) => return vec![finding],
    };
    let mut findings = numbers::check(&source);
    findings.extend(names::check(&source));
    findings.extend(absence::check(&source));
    findings.sort_by_key(|finding| finding.line);
    findings
}

fn relative(root: &Path, path: &Path) -> String {
    let shown = path.strip_prefix(root).unwrap_or(path);
    shown.to_string_lossy().replace('\\', "/")
}

fn rust_files(root: &Path) -> Result<Vec<PathBuf>, TidyError> {
    let mut found = Vec::new();
    let mut folders = vec![root.to_path_buf()];
    while let Some(folder) = folders.pop() {
        let unreadable = |source| TidyError::Unreadable { path: folder.clone(), source };
        for entry in fs::read_dir(&folder).map_err(unreadable)? {
            let path = entry.map_err(unreadable)?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if path.is_dir() && !SKIPPED_FOLDERS.contains(&name.as_str()) {
                folders.push(path);
            } else if name.ends_with(".rs") {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}
