//! Settings as pages: the effective file (`config show`), the sample, the reference in the book.

use std::fmt::Write;

use serde_json::Value as Json;

use super::shape::{element, join, keys, schema_of, unwrap_option};
use super::{Settings, mask_url};

/// The effective settings as TOML; secrets and passwords inside URLs are masked.
pub fn show<T: Settings>(settings: &T) -> String {
    let mut table = as_table(settings);
    table.iter_mut().for_each(|(_, value)| mask(value));
    toml::to_string_pretty(&table).unwrap_or_default()
}

fn as_table<T: Settings>(settings: &T) -> toml::Table {
    toml::Table::try_from(settings).unwrap_or_default()
}

fn mask(value: &mut toml::Value) {
    match value {
        toml::Value::String(text) => *text = mask_url(text),
        toml::Value::Array(list) => list.iter_mut().for_each(mask),
        toml::Value::Table(table) => table.iter_mut().for_each(|(_, value)| mask(value)),
        _ => {}
    }
}

/// A file with every key at its default and its doc comment above it. It loads as it stands.
pub fn sample_toml<T: Settings>() -> String {
    let mut page = Page::default();
    page.comment(&format!("spillway-{}: {}", T::PROGRAM, T::ABOUT), false);
    page.comment(
        "Every key is shown with its default; delete what you do not change.\n\
         SPILLWAY__SECTION__KEY in the environment overrides any of them.",
        false,
    );
    let defaults = toml::Value::Table(as_table(&T::default()));
    page.section(&schema_of::<T>(), Some(&defaults), "", false);
    page.text
}

#[derive(Default)]
struct Page {
    text: String,
}

impl Page {
    fn line(&mut self, line: &str, inactive: bool) {
        let mark = if inactive { "# " } else { "" };
        self.text.push_str(format!("{mark}{line}").trim_end());
        self.text.push('\n');
    }

    fn comment(&mut self, text: &str, inactive: bool) {
        for line in text.lines() {
            self.line(&format!("# {line}"), inactive);
        }
    }

    /// `inactive` sections are shown as comments: an absent option, or a list's element.
    fn section(&mut self, schema: &Json, value: Option<&toml::Value>, path: &str, inactive: bool) {
        let Some(known) = keys(schema) else { return };
        let get = |key: &str| value.and_then(|v| v.get(key)).cloned();
        for (key, child) in known {
            if keys(child).is_none() && table_element(child).is_none() {
                self.scalar(key, child, get(key), inactive);
            }
        }
        for (key, child) in known {
            let path = join(path, key);
            let value = get(key);
            if keys(child).is_some() {
                let inactive = inactive || value.is_none();
                self.heading(child, &format!("[{path}]"), inactive);
                self.section(child, value.as_ref(), &path, inactive);
            } else if let Some(element) = table_element(child) {
                self.heading(child, &format!("[[{path}]]"), true);
                self.section(element, None, &path, true);
            }
        }
    }

    fn heading(&mut self, schema: &Json, heading: &str, inactive: bool) {
        self.text.push('\n');
        if let Some(about) = description(schema) {
            self.comment(about, inactive);
        }
        self.line(heading, inactive);
    }

    fn scalar(&mut self, key: &str, schema: &Json, value: Option<toml::Value>, inactive: bool) {
        if let Some(about) = description(schema) {
            self.comment(about, inactive);
        }
        let absent = value.is_none();
        let literal = value.or_else(|| declared_default(schema));
        let literal = literal.unwrap_or_else(|| example(schema));
        let unset_secret = format_of(schema) == Some("secret");
        self.line(&format!("{key} = {literal}"), inactive || absent || unset_secret);
    }
}

/// The element's schema, for lists of sections only.
fn table_element(schema: &Json) -> Option<&Json> {
    element(schema).filter(|element| keys(element).is_some())
}

fn description(schema: &Json) -> Option<&str> {
    schema.get("description").and_then(Json::as_str)
}

fn format_of(schema: &Json) -> Option<&str> {
    unwrap_option(schema).get("format").and_then(Json::as_str)
}

fn declared_default(schema: &Json) -> Option<toml::Value> {
    let default = schema.get("default").filter(|value| !value.is_null())?;
    toml::Value::try_from(default).ok()
}

/// Something of the right type for an option that is not set.
fn example(schema: &Json) -> toml::Value {
    let inner = unwrap_option(schema);
    let given = inner.get("examples").and_then(|list| list.get(0));
    if let Some(given) = given.and_then(|value| toml::Value::try_from(value).ok()) {
        return given;
    }
    match type_name(schema).as_str() {
        "integer" => toml::Value::Integer(0),
        "number" => toml::Value::Float(0.0),
        "boolean" => toml::Value::Boolean(false),
        "list" => toml::Value::Array(Vec::new()),
        _ => toml::Value::String(String::new()),
    }
}

fn type_name(schema: &Json) -> String {
    let inner = unwrap_option(schema);
    if let Some(format @ ("duration" | "size" | "secret")) = format_of(schema) {
        return format.to_owned();
    }
    if let Some(names) = variants(inner) {
        return names.join(", ");
    }
    let first = match inner.get("type") {
        Some(Json::Array(many)) => many.first(),
        one => one,
    };
    match first.and_then(Json::as_str) {
        Some("array") => "list".to_owned(),
        Some("object") => "table".to_owned(),
        Some("string") | None => "text".to_owned(),
        Some(other) => other.to_owned(),
    }
}

fn variants(schema: &Json) -> Option<Vec<String>> {
    let quoted = |value: &Json| value.as_str().map(|name| format!("`{name}`"));
    if let Some(names) = schema.get("enum").and_then(Json::as_array) {
        return names.iter().map(quoted).collect();
    }
    let list = schema.get("oneOf").and_then(Json::as_array)?;
    list.iter().map(|one| one.get("const").and_then(quoted)).collect()
}

/// The book's reference page: one table of keys per section.
pub fn reference_markdown<T: Settings>() -> String {
    let mut page = format!("# spillway-{}\n\n{}\n", T::PROGRAM, T::ABOUT);
    let defaults = toml::Value::Table(as_table(&T::default()));
    reference_section(&mut page, &schema_of::<T>(), Some(&defaults), "");
    page
}

fn reference_section(page: &mut String, schema: &Json, value: Option<&toml::Value>, path: &str) {
    let Some(known) = keys(schema) else { return };
    let scalars: Vec<_> = known
        .iter()
        .filter(|(_, child)| keys(child).is_none() && table_element(child).is_none())
        .collect();
    if !scalars.is_empty() {
        page.push_str("\n| key | type | default | meaning |\n|---|---|---|---|\n");
    }
    for (key, child) in scalars {
        let given = value.and_then(|v| v.get(key)).cloned();
        let default = given.or_else(|| declared_default(child));
        let default = default.map_or_else(|| "not set".to_owned(), |value| format!("`{value}`"));
        let about = description(child).unwrap_or_default().replace('\n', " ");
        let kind = type_name(child);
        writeln!(page, "| `{key}` | {kind} | {default} | {} |", about.replace('|', "\\|"))
            .unwrap_or_default();
    }
    for (key, child) in known {
        let path = join(path, key);
        let inner = value.and_then(|v| v.get(key));
        let (heading, schema) = match table_element(child) {
            Some(element) => (format!("[[{path}]]"), element),
            None if keys(child).is_some() => (format!("[{path}]"), child),
            None => continue,
        };
        let about = description(child).unwrap_or_default();
        page.push_str(&format!("\n## `{heading}`\n\n{about}\n"));
        reference_section(page, schema, inner.filter(|v| v.is_table()), &path);
    }
}
