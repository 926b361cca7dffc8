//! One Rust file, parsed once for all rules, with what counts as test code marked.

use proc_macro2::LineColumn;
use syn::spanned::Spanned;

use super::Finding;

/// A parsed file and where its in-file tests lie.
pub struct Source {
    /// Path from the repository's root, with forward slashes.
    pub path: String,
    pub lines: Vec<String>,
    pub syntax: syn::File,
    /// First and last line (counted from 1) of every item under `#[cfg(test)]`.
    pub test_items: Vec<(usize, usize)>,
}

impl Source {
    /// A file that does not parse is a finding of its own.
    pub fn parse(path: &str, text: &str) -> Result<Self, Finding> {
        let syntax = syn::parse_file(text).map_err(|error| Finding {
            path: path.to_owned(),
            line: error.span().start().line,
            message: format!("does not parse: {error}"),
        })?;
        let test_items =
            syntax.items.iter().filter(|item| is_for_tests(item)).map(line_range).collect();
        let lines = text.lines().map(str::to_owned).collect();
        Ok(Self { path: path.to_owned(), lines, syntax, test_items })
    }

    pub fn finding(&self, line: usize, message: impl Into<String>) -> Finding {
        Finding { path: self.path.clone(), line, message: message.into() }
    }

    /// Whether the whole file is test code: a `tests` folder, `tests.rs`, `…_tests.rs`, or one of
    /// the packages that exist for proof.
    pub fn is_test_file(&self) -> bool {
        let stem = self.stem();
        self.path.contains("tests/")
            || self.path.starts_with("e2e/")
            || self.path.starts_with("proto/fuzz/")
            || stem == "tests"
            || stem.ends_with("_tests")
    }

    pub fn is_test_line(&self, line: usize) -> bool {
        self.test_items.iter().any(|(first, last)| (*first..=*last).contains(&line))
    }

    /// Lines in `#[cfg(test)]` items.
    pub fn test_lines(&self) -> usize {
        self.test_items.iter().map(|(first, last)| last - first + 1).sum()
    }

    /// The file's name without `.rs`.
    pub fn stem(&self) -> &str {
        let name = self.path.rsplit('/').next().unwrap_or(&self.path);
        name.strip_suffix(".rs").unwrap_or(name)
    }
}

/// First and last line of a piece of syntax, its attributes included.
pub fn line_range(spanned: &impl Spanned) -> (usize, usize) {
    let span = spanned.span();
    let (LineColumn { line: first, .. }, LineColumn { line: last, .. }) =
        (span.start(), span.end());
    (first, last)
}

fn is_for_tests(item: &syn::Item) -> bool {
    attributes(item).iter().any(is_cfg_test)
}

/// `#[cfg(test)]`, `#[cfg(all(test, …))]` and the like; `cfg(not(test))` is production.
pub fn is_cfg_test(attribute: &syn::Attribute) -> bool {
    if !attribute.path().is_ident("cfg") {
        return false;
    }
    let syn::Meta::List(list) = &attribute.meta else {
        return false;
    };
    let words = list.tokens.to_string();
    let mut words = words.split(|c: char| !c.is_alphanumeric() && c != '_');
    words.clone().any(|word| word == "test") && !words.any(|word| word == "not")
}

fn attributes(item: &syn::Item) -> &[syn::Attribute] {
    match item {
        syn::Item::Const(item) => &item.attrs,
        syn::Item::Enum(item) => &item.attrs,
        syn::Item::Fn(item) => &item.attrs,
        syn::Item::Impl(item) => &item.attrs,
        syn::Item::Macro(item) => &item.attrs,
        syn::Item::Mod(item) => &item.attrs,
        syn::Item::Static(item) => &item.attrs,
        syn::Item::Struct(item) => &item.attrs,
        syn::Item::Trait(item) => &item.attrs,
        syn::Item::Type(item) => &item.attrs,
        syn::Item::Use(item) => &item.attrs,
        _ => &[],
    }
}
