//! What a file's production code names: paths, method calls and literals, each with its line.
//!
//! The rules of absence read these facts and never the text, so a comment can't break the law
//! and an import in braces can't hide from it.

use proc_macro2::{TokenStream, TokenTree};
use syn::visit::{self, Visit};

use super::source::{Source, is_cfg_test};

/// One thing that production code names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fact {
    pub line: usize,
    pub named: Named,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Named {
    /// `std::env::var` is `["std", "env", "var"]`; braces of a `use` are spelled out.
    Path(Vec<String>),
    Method(String),
    /// Contents of a string or byte string, as text.
    Literal(String),
}

/// All that the file names outside its tests.
pub fn gather(source: &Source) -> Vec<Fact> {
    let mut gatherer = Gatherer { facts: Vec::new() };
    gatherer.visit_file(&source.syntax);
    gatherer.facts.retain(|fact| !source.is_test_line(fact.line));
    gatherer.facts
}

struct Gatherer {
    facts: Vec<Fact>,
}

impl Gatherer {
    fn note(&mut self, line: usize, named: Named) {
        self.facts.push(Fact { line, named });
    }

    fn use_tree(&mut self, prefix: &[String], tree: &syn::UseTree) {
        let with = |ident: &syn::Ident| {
            let mut path = prefix.to_vec();
            path.push(ident.to_string());
            path
        };
        match tree {
            syn::UseTree::Path(path) => self.use_tree(&with(&path.ident), &path.tree),
            syn::UseTree::Name(name) => {
                self.note(name.ident.span().start().line, Named::Path(with(&name.ident)));
            }
            syn::UseTree::Rename(name) => {
                self.note(name.ident.span().start().line, Named::Path(with(&name.ident)));
            }
            syn::UseTree::Glob(glob) => {
                let line = glob.star_token.spans.first().map_or(0, |span| span.start().line);
                self.note(line, Named::Path(prefix.to_vec()));
            }
            syn::UseTree::Group(group) => {
                for tree in &group.items {
                    self.use_tree(prefix, tree);
                }
            }
        }
    }

    /// A macro's arguments are no syntax yet: its words are read in order, and words joined by
    /// `::` are a path, a word after `.` and before `(` a method.
    fn macro_tokens(&mut self, tokens: TokenStream) {
        let mut path: Vec<String> = Vec::new();
        let (mut line, mut colons, mut after_dot) = (0, 0, false);
        for token in tokens {
            match token {
                TokenTree::Ident(ident) => {
                    if colons < 2 && !path.is_empty() {
                        self.note(line, Named::Path(std::mem::take(&mut path)));
                    }
                    line = ident.span().start().line;
                    if after_dot {
                        self.note(line, Named::Method(ident.to_string()));
                    }
                    path.push(ident.to_string());
                    (colons, after_dot) = (0, false);
                }
                TokenTree::Punct(punct) => {
                    colons = if punct.as_char() == ':' { colons + 1 } else { 0 };
                    after_dot = punct.as_char() == '.';
                    if colons == 0 && !path.is_empty() {
                        self.note(line, Named::Path(std::mem::take(&mut path)));
                    }
                }
                TokenTree::Group(group) => {
                    after_dot = false;
                    self.macro_tokens(group.stream());
                }
                TokenTree::Literal(literal) => {
                    after_dot = false;
                    let line = literal.span().start().line;
                    self.note(line, Named::Literal(literal.to_string()));
                }
            }
        }
        if !path.is_empty() {
            self.note(line, Named::Path(path));
        }
    }
}

impl<'ast> Visit<'ast> for Gatherer {
    fn visit_item_mod(&mut self, module: &'ast syn::ItemMod) {
        if !module.attrs.iter().any(is_cfg_test) {
            visit::visit_item_mod(self, module);
        }
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        self.use_tree(&[], &item.tree);
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let names: Vec<String> = path.segments.iter().map(|s| s.ident.to_string()).collect();
        let line = path.segments.first().map_or(0, |s| s.ident.span().start().line);
        self.note(line, Named::Path(names));
        visit::visit_path(self, path);
    }

    fn visit_expr_method_call(&mut self, call: &'ast syn::ExprMethodCall) {
        self.note(call.method.span().start().line, Named::Method(call.method.to_string()));
        visit::visit_expr_method_call(self, call);
    }

    fn visit_lit_str(&mut self, literal: &'ast syn::LitStr) {
        self.note(literal.span().start().line, Named::Literal(literal.value()));
    }

    fn visit_lit_byte_str(&mut self, literal: &'ast syn::LitByteStr) {
        let text = String::from_utf8_lossy(&literal.value()).into_owned();
        self.note(literal.span().start().line, Named::Literal(text));
    }

    fn visit_macro(&mut self, call: &'ast syn::Macro) {
        self.macro_tokens(call.tokens.clone());
    }

    /// Doc comments are attributes; what they say is not what the code does.
    fn visit_attribute(&mut self, _: &'ast syn::Attribute) {}
}
