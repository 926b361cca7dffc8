//! The names: every file says what it promises, and none is called after what it is not.

use syn::visit::{self, Visit};

use super::Finding;
use super::source::Source;

/// Names that gather whatever has no home; a thing is named by what it does.
const FORBIDDEN_NAMES: [&str; 9] =
    ["util", "utils", "common", "helper", "helpers", "manager", "types", "misc", "shared"];

pub fn check(source: &Source) -> Vec<Finding> {
    let mut findings = Vec::new();
    if !source.lines.first().is_some_and(|line| line.starts_with("//!")) {
        let message = "starts without `//!`: a file's head states its promise and its place";
        findings.push(source.finding(1, message));
    }
    for part in source.path.split('/') {
        let name = part.strip_suffix(".rs").unwrap_or(part);
        if FORBIDDEN_NAMES.contains(&name) {
            findings.push(source.finding(1, format!("nothing is named `{name}`")));
        }
    }
    let mut modules = Modules { source, findings };
    modules.visit_file(&source.syntax);
    modules.findings
}

struct Modules<'a> {
    source: &'a Source,
    findings: Vec<Finding>,
}

impl<'ast> Visit<'ast> for Modules<'_> {
    fn visit_item_mod(&mut self, module: &'ast syn::ItemMod) {
        let name = module.ident.to_string();
        if FORBIDDEN_NAMES.contains(&name.as_str()) {
            let line = module.ident.span().start().line;
            self.findings.push(self.source.finding(line, format!("nothing is named `{name}`")));
        }
        visit::visit_item_mod(self, module);
    }
}
