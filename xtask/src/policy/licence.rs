//! SPDX licence expressions, judged against the list of licences we accept.
//!
//! Grammar (SPDX 2.3, annex D): `OR` binds weaker than `AND`, `WITH` adds an exception to one
//! licence; crates of old write `/` for `OR`.

/// Licences that let Spillway be used and shipped as it is.
const ALLOWED: [&str; 13] = [
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "CDLA-Permissive-2.0",
    "ISC",
    "MIT",
    "MPL-2.0",
    "Unicode-3.0",
    "Zlib",
];

/// Nesting of parentheses we follow; real expressions have one level.
const DEPTH_MAX: usize = 8;

/// Whether some way to read the expression needs allowed licences only.
pub fn is_allowed(expression: &str) -> bool {
    let spaced = expression.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut rest = words.as_slice();
    let allowed = any_of(&mut rest, DEPTH_MAX);
    allowed == Some(true) && rest.is_empty()
}

fn any_of(rest: &mut &[&str], depth: usize) -> Option<bool> {
    let mut allowed = all_of(rest, depth)?;
    while let [word, tail @ ..] = *rest
        && *word == "OR"
    {
        *rest = tail;
        allowed |= all_of(rest, depth)?;
    }
    Some(allowed)
}

fn all_of(rest: &mut &[&str], depth: usize) -> Option<bool> {
    let mut allowed = one(rest, depth)?;
    while let [word, tail @ ..] = *rest
        && *word == "AND"
    {
        *rest = tail;
        allowed &= one(rest, depth)?;
    }
    Some(allowed)
}

/// `None` when the words are no expression.
fn one(rest: &mut &[&str], depth: usize) -> Option<bool> {
    match *rest {
        ["(", tail @ ..] => {
            *rest = tail;
            let allowed = any_of(rest, depth.checked_sub(1)?)?;
            let [")", tail @ ..] = *rest else { return None };
            *rest = tail;
            Some(allowed)
        }
        [licence, "WITH", exception, tail @ ..] => {
            *rest = tail;
            Some(ALLOWED.contains(&format!("{licence} WITH {exception}").as_str()))
        }
        [")" | "OR" | "AND" | "WITH", ..] | [] => None,
        [licence, tail @ ..] => {
            *rest = tail;
            Some(ALLOWED.contains(licence))
        }
    }
}
