//! Writes a program's TOML file: what the stack generates, and what a test lays over it.

use std::path::Path;

use serde_json::Value;
use toml::Table;

use super::dir::write_atomically;
use crate::error::StackError;

/// `null` entries are left out; `laid_over` wins, key by key, in order.
pub fn write(file: &Path, generated: Value, laid_over: &[&str]) -> Result<(), StackError> {
    let refused = |e: &dyn std::fmt::Display| StackError::Refused {
        what: format!("settings for {}: {e}", file.display()),
    };
    let mut table: Table =
        serde_json::from_value(without_nulls(generated)).map_err(|e| refused(&e))?;
    for text in laid_over {
        merge(&mut table, text.parse::<Table>().map_err(|e| refused(&e))?);
    }
    let text = toml::to_string_pretty(&table).map_err(|e| refused(&e))?;
    write_atomically(file, &text)
}

fn merge(under: &mut Table, over: Table) {
    for (key, value) in over {
        match (under.get_mut(&key), value) {
            (Some(toml::Value::Table(below)), toml::Value::Table(above)) => merge(below, above),
            (_, value) => {
                under.insert(key, value);
            }
        }
    }
}

fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(map) => {
            let kept = map.into_iter().filter(|(_, value)| !value.is_null());
            Value::Object(kept.map(|(key, value)| (key, without_nulls(value))).collect())
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_later_layer_changes_only_what_it_names() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a.toml");
        let generated = serde_json::json!({"a": {"x": 1, "y": null}, "b": ["one"]});
        write(&file, generated, &["a.z = 2", "[a]\nx = 3\n[c]\nd = '1s'"]).unwrap();
        let written: Table = std::fs::read_to_string(&file).unwrap().parse().unwrap();
        let wanted: Table = "b = ['one']\n[a]\nx = 3\nz = 2\n[c]\nd = '1s'".parse().unwrap();
        assert_eq!(written, wanted);
    }
}
