//! What a settings struct looks like from outside: which keys exist, and which values fit them.

use schemars::generate::SchemaSettings;
use serde_json::Value as Json;

use super::{Problem, Settings};

/// The struct's schema, with nested structs in place.
pub(super) fn schema_of<T: Settings>() -> Json {
    let settings = SchemaSettings::default().with(|s| s.inline_subschemas = true);
    settings.into_generator().into_root_schema_for::<T>().to_value()
}

/// The schema without the "or null" that an `Option` adds.
pub(super) fn unwrap_option(schema: &Json) -> &Json {
    let alternatives = schema.get("anyOf").and_then(Json::as_array);
    let is_null = |s: &&Json| s.get("type").and_then(Json::as_str) == Some("null");
    match alternatives {
        Some(list) if list.iter().any(|s| is_null(&s)) => {
            list.iter().find(|s| !is_null(s)).unwrap_or(schema)
        }
        _ => schema,
    }
}

/// The named keys of a section, if `schema` describes one.
pub(super) fn keys(schema: &Json) -> Option<&serde_json::Map<String, Json>> {
    unwrap_option(schema).get("properties")?.as_object()
}

/// The elements' schema, if `schema` describes a list.
pub(super) fn element(schema: &Json) -> Option<&Json> {
    unwrap_option(schema).get("items")
}

/// Whether `schema` admits the JSON type `name`.
pub(super) fn admits(schema: &Json, name: &str) -> bool {
    match unwrap_option(schema).get("type") {
        Some(Json::String(one)) => one == name,
        Some(Json::Array(many)) => many.iter().any(|t| t.as_str() == Some(name)),
        _ => false,
    }
}

pub(super) fn join(path: &str, key: &str) -> String {
    match path {
        "" => key.to_owned(),
        path => format!("{path}.{key}"),
    }
}

/// Every key of `table` that the schema does not know.
pub(super) fn unknown_keys(table: &toml::Table, schema: &Json) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut visit = |path: &str, section: &Json, key: &str| {
        let message = unknown_key_message(schema, section, key);
        problems.push(Problem::new(join(path, key), message));
    };
    each_unknown(table, schema, "", &mut visit);
    problems
}

fn each_unknown(
    table: &toml::Table,
    section: &Json,
    path: &str,
    visit: &mut impl FnMut(&str, &Json, &str),
) {
    let Some(known) = keys(section) else { return };
    for (key, value) in table {
        let Some(child) = known.get(key) else {
            visit(path, section, key);
            continue;
        };
        match value {
            toml::Value::Table(inner) => each_unknown(inner, child, &join(path, key), visit),
            toml::Value::Array(list) => {
                let Some(element) = element(child) else { continue };
                for (i, inner) in list.iter().enumerate() {
                    if let toml::Value::Table(inner) = inner {
                        let path = format!("{}[{i}]", join(path, key));
                        each_unknown(inner, element, &path, visit);
                    }
                }
            }
            _ => {}
        }
    }
}

/// "unknown key; the nearest known key is …": close in its own section, else the same name in
/// another section, else whatever its own section has that is least far.
pub(super) fn unknown_key_message(root: &Json, section: &Json, key: &str) -> String {
    let near = keys(section).and_then(|known| nearest(known.keys().map(String::as_str), key));
    if let Some((name, distance)) = near
        && distance <= 1.max(key.len() / 3)
    {
        return format!("unknown key; did you mean `{name}`?");
    }
    let mut elsewhere = Vec::new();
    all_paths(root, "", &mut elsewhere);
    let same_name = elsewhere.iter().find(|path| path.rsplit('.').next() == Some(key));
    match (same_name, near) {
        (Some(path), _) => format!("unknown key here; did you mean `{path}`?"),
        (None, Some((name, _))) => format!("unknown key; the nearest known key is `{name}`"),
        (None, None) => "unknown key; this section has no keys".to_owned(),
    }
}

fn nearest<'a>(names: impl Iterator<Item = &'a str>, key: &str) -> Option<(&'a str, usize)> {
    names
        .map(|name| (name, strsim::damerau_levenshtein(name, key)))
        .min_by_key(|(_, distance)| *distance)
}

fn all_paths(section: &Json, path: &str, into: &mut Vec<String>) {
    let Some(known) = keys(section) else { return };
    for (key, child) in known {
        let path = join(path, key);
        all_paths(child, &path, into);
        into.push(path);
    }
}

/// Takes the unknown keys out, so that the values of the known ones can be judged as well.
pub(super) fn prune_unknown(table: &mut toml::Table, schema: &Json) {
    let Some(known) = keys(schema) else { return };
    table.retain(|key, _| known.contains_key(key));
    for (key, value) in table.iter_mut() {
        let Some(child) = known.get(key) else { continue };
        match value {
            toml::Value::Table(inner) => prune_unknown(inner, child),
            toml::Value::Array(list) => {
                let tables = list.iter_mut().filter_map(toml::Value::as_table_mut);
                if let Some(element) = element(child) {
                    tables.for_each(|inner| prune_unknown(inner, element));
                }
            }
            _ => {}
        }
    }
}

/// Every value that does not fit its key, found by trying each one alone.
///
/// Serde stops at the first misfit. Since every section has defaults, a document with one single
/// value in it either loads or names what is wrong with exactly that value.
pub(super) fn wrong_values<T: Settings>(
    table: &toml::Table,
    schema: &Json,
    whole: &toml::de::Error,
) -> Vec<Problem> {
    let mut leaves = Vec::new();
    let root = toml::Value::Table(table.clone());
    collect_leaves(&root, schema, &mut Vec::new(), &mut leaves);
    let mut problems = Vec::new();
    for (steps, value) in leaves {
        let Err(error) = T::deserialize(alone(&steps, value)) else { continue };
        // A list element tried alone may lack what it must have; then the whole error stands.
        if !error.message().starts_with("missing field") {
            problems.push(Problem::new(path_of(&steps), error.message()));
        }
    }
    if problems.is_empty() {
        problems.push(Problem::new("", whole.to_string().trim().replace('\n', " ")));
    }
    problems
}

#[derive(Debug, Clone)]
enum Step {
    Key(String),
    Index(usize),
}

fn collect_leaves(
    value: &toml::Value,
    schema: &Json,
    steps: &mut Vec<Step>,
    into: &mut Vec<(Vec<Step>, toml::Value)>,
) {
    match (value, keys(schema), element(schema)) {
        (toml::Value::Table(table), Some(known), _) => {
            for (key, inner) in table {
                let Some(child) = known.get(key) else { continue };
                steps.push(Step::Key(key.clone()));
                collect_leaves(inner, child, steps, into);
                steps.pop();
            }
        }
        (toml::Value::Array(list), _, Some(element)) => {
            for (i, inner) in list.iter().enumerate() {
                steps.push(Step::Index(i));
                collect_leaves(inner, element, steps, into);
                steps.pop();
            }
        }
        _ => into.push((steps.clone(), value.clone())),
    }
}

fn alone(steps: &[Step], leaf: toml::Value) -> toml::Value {
    steps.iter().rev().fold(leaf, |inner, step| match step {
        Step::Key(key) => toml::Value::Table([(key.clone(), inner)].into_iter().collect()),
        Step::Index(_) => toml::Value::Array(vec![inner]),
    })
}

fn path_of(steps: &[Step]) -> String {
    steps.iter().fold(String::new(), |path, step| match step {
        Step::Key(key) => join(&path, key),
        Step::Index(i) => format!("{path}[{i}]"),
    })
}
