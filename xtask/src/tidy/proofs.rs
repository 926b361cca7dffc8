//! Tests that the book names as proofs exist: `path/of/file.rs::name_of_the_test` in a page under
//! docs/ must be a function in that file, or the page promises more than anybody checks.

use std::fs;
use std::path::Path;

use super::{Finding, TidyError};

const BOOK: &str = "docs";
const SEPARATOR: &str = ".rs::";
/// The page on which each line of a table is a claim, its section, and what a claim says instead
/// of a proof where there is none.
const CLAIMS: (&str, &str) = ("docs/security.md", "## Who can do what");
const UNPROVEN: &str = "no test";

/// Checks every page of the book.
pub fn check(root: &Path) -> Result<Vec<Finding>, TidyError> {
    let book = root.join(BOOK);
    let unreadable = |source| TidyError::Unreadable { path: book.clone(), source };
    let mut pages = Vec::new();
    for entry in fs::read_dir(&book).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        if path.extension().is_some_and(|extension| extension == "md") {
            pages.push(path);
        }
    }
    pages.sort();
    let mut findings = Vec::new();
    for page in pages {
        let text = fs::read_to_string(&page)
            .map_err(|source| TidyError::Unreadable { path: page.clone(), source })?;
        let read = |path: &str| fs::read_to_string(root.join(path)).ok();
        let name = super::relative(root, &page);
        findings.extend(check_page(&name, &text, read));
        if name == CLAIMS.0 {
            findings.extend(check_claims(&name, &text));
        }
    }
    Ok(findings)
}

/// Checks one page; `read` gives the text of a file of the repository, if there is one.
pub fn check_page(page: &str, text: &str, read: impl Fn(&str) -> Option<String>) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (line, words) in (1..).zip(text.lines()) {
        for (path, test) in words.split('`').filter_map(proof) {
            let function = format!("fn {test}(");
            if !read(path).is_some_and(|source| source.contains(&function)) {
                let message =
                    format!("there is no test `{test}` in {path}: name one that proves it");
                findings.push(Finding { path: page.to_owned(), line, message });
            }
        }
    }
    findings
}

/// Each line of the threat model's table names a test, or says that there is none.
pub fn check_claims(page: &str, text: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    let (mut inside, mut rows) = (false, 0);
    for (line, words) in (1..).zip(text.lines()) {
        if words.starts_with("## ") {
            inside = words == CLAIMS.1;
        }
        if !inside || !words.starts_with('|') || words.starts_with("|---") {
            continue;
        }
        rows += 1;
        let proven = words.split('`').any(|code| proof(code).is_some());
        // The first is the table's head.
        if rows > 1 && !proven && !words.contains(UNPROVEN) {
            let message = format!("a claim without a test: name one, or say \"{UNPROVEN}\"");
            findings.push(Finding { path: page.to_owned(), line, message });
        }
    }
    if rows == 0 {
        let message = format!("the table under \"{}\" is gone", CLAIMS.1);
        findings.push(Finding { path: page.to_owned(), line: 1, message });
    }
    findings
}

/// The file and the function that a piece of code text names as a proof.
fn proof(code: &str) -> Option<(&str, &str)> {
    let at = code.find(SEPARATOR)?;
    let (path, rest) = code.split_at(at + ".rs".len());
    let test = rest.strip_prefix("::")?;
    let is_name =
        |text: &str| text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    (!path.contains(' ') && is_name(test)).then_some((path, test))
}
