//! The numbers: how long a function, a file, a line and a list of parameters may be.

use syn::visit::{self, Visit};

use super::Finding;
use super::source::{Source, line_range};

const FUNCTION_LINES_MAX: usize = 70;
const FILE_LINES_MAX: usize = 400;
const MAIN_LINES_MAX: usize = 60;
/// In-file tests beyond this move to a sibling file.
const IN_FILE_TEST_LINES_MAX: usize = 150;
const LINE_COLUMNS_MAX: usize = 100;
/// `self` is not counted.
const PARAMETERS_MAX: usize = 5;

pub fn check(source: &Source) -> Vec<Finding> {
    let mut findings = columns(source);
    findings.extend(file_length(source));
    let mut functions = Functions { source, findings: Vec::new() };
    functions.visit_file(&source.syntax);
    findings.extend(functions.findings);
    findings
}

fn columns(source: &Source) -> Vec<Finding> {
    let too_wide = |(index, line): (usize, &String)| {
        let columns = line.chars().count();
        (columns > LINE_COLUMNS_MAX).then(|| {
            let message = format!("{columns} columns; a line has at most {LINE_COLUMNS_MAX}");
            source.finding(index + 1, message)
        })
    };
    source.lines.iter().enumerate().filter_map(too_wide).collect()
}

fn file_length(source: &Source) -> Vec<Finding> {
    let mut findings = Vec::new();
    if source.is_test_file() {
        return findings;
    }
    let tests = source.test_lines();
    let production = source.lines.len() - tests.min(source.lines.len());
    let maximum = if source.stem() == "main" { MAIN_LINES_MAX } else { FILE_LINES_MAX };
    if production > maximum {
        let message = format!("{production} lines of production code; at most {maximum}");
        findings.push(source.finding(1, message));
    }
    if tests > IN_FILE_TEST_LINES_MAX {
        let line = source.test_items.first().map_or(1, |(first, _)| *first);
        let message = format!(
            "{tests} lines of tests in the file; beyond {IN_FILE_TEST_LINES_MAX} they move to a \
             sibling file"
        );
        findings.push(source.finding(line, message));
    }
    findings
}

struct Functions<'a> {
    source: &'a Source,
    findings: Vec<Finding>,
}

impl Functions<'_> {
    fn function(&mut self, signature: &syn::Signature, block: Option<&syn::Block>) {
        let (first, mut last) = line_range(signature);
        if let Some(block) = block {
            last = line_range(block).1;
        }
        let lines = last - first + 1;
        if lines > FUNCTION_LINES_MAX {
            let message =
                format!("fn {} has {lines} lines; at most {FUNCTION_LINES_MAX}", signature.ident);
            self.findings.push(self.source.finding(first, message));
        }
        let is_typed = |input: &&syn::FnArg| matches!(input, syn::FnArg::Typed(_));
        let parameters = signature.inputs.iter().filter(is_typed).count();
        if parameters > PARAMETERS_MAX {
            let message = format!(
                "fn {} takes {parameters} parameters; at most {PARAMETERS_MAX}",
                signature.ident
            );
            self.findings.push(self.source.finding(first, message));
        }
    }
}

impl<'ast> Visit<'ast> for Functions<'_> {
    fn visit_item_fn(&mut self, function: &'ast syn::ItemFn) {
        self.function(&function.sig, Some(&function.block));
        visit::visit_item_fn(self, function);
    }

    fn visit_impl_item_fn(&mut self, function: &'ast syn::ImplItemFn) {
        self.function(&function.sig, Some(&function.block));
        visit::visit_impl_item_fn(self, function);
    }

    fn visit_trait_item_fn(&mut self, function: &'ast syn::TraitItemFn) {
        self.function(&function.sig, function.default.as_ref());
        visit::visit_trait_item_fn(self, function);
    }
}
