//! `SPILLWAY__SECTION__KEY` in the environment, laid over what the file says.

use std::ffi::OsString;

use serde_json::Value as Json;

use super::Problem;
use super::shape::{self, admits, element, keys};

/// What our variables start with; two underscores, since key names have single ones.
const PREFIX: &str = "SPILLWAY__";

/// Whether a variable is meant for us. A value that is no UTF-8 is passed on damaged, so that its
/// key's check refuses it by name.
pub(super) fn ours((name, value): (OsString, OsString)) -> Option<(String, String)> {
    let name = name.into_string().ok()?;
    let value = value.to_string_lossy().into_owned();
    name.starts_with(PREFIX).then_some((name, value))
}

/// Lays the variables over `table` and returns those that fit nowhere.
pub(super) fn apply(
    table: &mut toml::Table,
    schema: &Json,
    env: impl IntoIterator<Item = (String, String)>,
) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (name, value) in env {
        let Some(path) = name.strip_prefix(PREFIX) else { continue };
        let steps: Vec<String> = path.split("__").map(str::to_ascii_lowercase).collect();
        if let Err(message) = set(table, schema, schema, (&steps, &value)) {
            problems.push(Problem::new(format!("{name} (environment)"), message));
        }
    }
    problems
}

fn set(
    table: &mut toml::Table,
    root: &Json,
    section: &Json,
    (steps, raw): (&[String], &str),
) -> Result<(), String> {
    let Some((key, rest)) = steps.split_first() else {
        return Err("names a section, not a key".to_owned());
    };
    let Some(child) = keys(section).and_then(|known| known.get(key)) else {
        return Err(shape::unknown_key_message(root, section, key));
    };
    if rest.is_empty() {
        if keys(child).is_some() {
            return Err("names a section, not a key".to_owned());
        }
        table.insert(key.clone(), typed(raw, child));
        return Ok(());
    }
    let inner = table.entry(key.clone()).or_insert_with(|| toml::Value::Table(toml::Table::new()));
    match inner {
        toml::Value::Table(inner) => set(inner, root, child, (rest, raw)),
        _ => Err("lies below something that is no section".to_owned()),
    }
}

/// The text as the key's own type; what does not parse stays a text, and is refused by its key.
fn typed(raw: &str, schema: &Json) -> toml::Value {
    let text = || toml::Value::String(raw.to_owned());
    if admits(schema, "array") {
        return list(raw, schema).unwrap_or_else(text);
    }
    if admits(schema, "object") {
        return inline(raw).unwrap_or_else(text);
    }
    let boolean = || raw.parse().ok().map(toml::Value::Boolean);
    let integer = || raw.parse().ok().map(toml::Value::Integer);
    let float = || raw.parse().ok().map(toml::Value::Float);
    let value = None
        .or_else(|| admits(schema, "boolean").then(boolean).flatten())
        .or_else(|| admits(schema, "integer").then(integer).flatten())
        .or_else(|| admits(schema, "number").then(float).flatten());
    value.unwrap_or_else(text)
}

/// `["a", "b"]` as TOML, or simply `a,b`.
fn list(raw: &str, schema: &Json) -> Option<toml::Value> {
    if raw.trim_start().starts_with('[') {
        return inline(raw);
    }
    let element = element(schema)?;
    let parts = raw.split(',').map(str::trim).filter(|part| !part.is_empty());
    Some(parts.map(|part| typed(part, element)).collect::<Vec<_>>().into())
}

fn inline(raw: &str) -> Option<toml::Value> {
    let mut table: toml::Table = format!("value = {raw}").parse().ok()?;
    table.remove("value")
}
