//! The dashboards of deploy/grafana as Grafana reads them: their statements, with variables and
//! macros filled in by the rules of Grafana's MySQL data source.

use std::path::PathBuf;

use serde_json::Value as Json;

/// One statement of a dashboard, and who asks it.
#[derive(Debug, Clone)]
pub struct Statement {
    /// A panel's title, or the name of a variable or of annotations.
    pub of: String,
    /// `timeseries`, `stat`, `table`, `variable` or `annotation`.
    pub kind: String,
    /// As it stands in the file.
    pub sql: String,
}

/// A dashboard's file.
#[derive(Debug)]
pub struct Dashboard {
    /// Without `.json`.
    pub name: String,
    pub json: Json,
}

/// What Grafana's user chose, and the time shown in Unix seconds.
#[derive(Debug, Clone)]
pub struct View<'a> {
    /// Name and value of each variable.
    pub variables: Vec<(&'a str, String)>,
    pub from: i64,
    pub to: i64,
    /// Seconds of one step on a screen of usual width.
    pub interval_s: i64,
}

/// Every dashboard that is shipped.
///
/// # Panics
/// If a file is not there or is no JSON.
#[expect(clippy::expect_used, reason = "a test that can't go on fails")]
pub fn dashboards() -> Vec<Dashboard> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../deploy/grafana/dashboards");
    let entries = std::fs::read_dir(folder).expect("the folder is there");
    let read = |entry: std::io::Result<std::fs::DirEntry>| {
        let path = entry.expect("a file").path();
        let text = std::fs::read_to_string(&path).expect("it is text");
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        Dashboard { name, json: serde_json::from_str(&text).expect("it is JSON") }
    };
    entries.map(read).collect()
}

impl Dashboard {
    /// What panels, variables and annotations ask.
    pub fn statements(&self) -> Vec<Statement> {
        let list = |pointer: &str| {
            let list = self.json.pointer(pointer).and_then(Json::as_array);
            list.map_or(&[][..], Vec::as_slice)
        };
        let text = |json: &Json, pointer: &str| {
            json.pointer(pointer).and_then(Json::as_str).unwrap_or_default().to_owned()
        };
        let mut found = Vec::new();
        for panel in list("/panels") {
            let targets = panel.get("targets").and_then(Json::as_array);
            for target in targets.into_iter().flatten() {
                let (of, kind) = (text(panel, "/title"), text(panel, "/type"));
                found.push(Statement { of, kind, sql: text(target, "/rawSql") });
            }
        }
        let named = [
            ("variable", "/templating/list", "/query"),
            ("annotation", "/annotations/list", "/target/rawSql"),
        ];
        for (kind, pointer, sql) in named {
            for one in list(pointer) {
                let (of, sql) = (text(one, "/name"), text(one, sql));
                found.push(Statement { of, kind: kind.to_owned(), sql });
            }
        }
        found
    }
}

impl View<'_> {
    /// A statement as it reaches MySQL, or what Grafana would complain of.
    pub fn fill(&self, sql: &str) -> Result<String, String> {
        let mut sql = sql.to_owned();
        for (name, value) in &self.variables {
            let quoted = format!("'{}'", value.replace('\'', "''"));
            sql = sql.replace(&format!("${{{name}:sqlstring}}"), &quoted);
            sql = sql.replace(&format!("${{{name}:raw}}"), value);
        }
        let sql = sql
            .replace("$__interval_ms", &(self.interval_s * 1_000).to_string())
            .replace("$__interval", &format!("{}s", self.interval_s))
            .replace("$__unixEpochFrom()", &self.from.to_string())
            .replace("$__unixEpochTo()", &self.to.to_string());
        let filled = macros(&sql)?;
        match filled.contains("$__") || filled.contains("${") {
            true => Err(format!("a variable dangles: {filled}")),
            false => Ok(filled),
        }
    }
}

/// `$name(arguments)`. As in Grafana, arguments end at the first closing bracket, whatever was
/// opened between.
fn macros(sql: &str) -> Result<String, String> {
    let mut filled = String::new();
    let mut rest = sql;
    while let Some((before, after)) = rest.split_once("$__") {
        let (name, after) = after.split_once('(').ok_or("a macro without brackets")?;
        let (arguments, after) = after.split_once(')').ok_or("a bracket stays open")?;
        let (column, interval) = arguments
            .split_once(',')
            .ok_or_else(|| format!("macro {name} needs time column and interval: {arguments}"))?;
        if name != "unixEpochGroup" {
            return Err(format!("unknown macro {name}"));
        }
        let step = interval.trim().trim_matches('\'').trim_end_matches('s');
        // Grafana puts no brackets around it.
        filled += &format!("{before}{} DIV {step} * {step}", column.trim());
        rest = after;
    }
    Ok(filled + rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn macros_are_filled_as_grafana_does() {
        let variables = vec![("host", "it's".to_owned()), ("resolution", "metrics_1m".to_owned())];
        let view = View { variables, from: 10, to: 20, interval_s: 5 };
        let sql = "SELECT $__unixEpochGroup(ts, $__interval) FROM ${resolution:raw} \
                   WHERE h = ${host:sqlstring} AND ts >= $__unixEpochFrom()";
        let filled = view.fill(sql).unwrap();
        assert_eq!(filled, "SELECT ts DIV 5 * 5 FROM metrics_1m WHERE h = 'it''s' AND ts >= 10");
        let nested = view.fill("SELECT $__unixEpochGroup(MAX(ts),$__interval)").unwrap_err();
        assert!(nested.contains("needs time column and interval"), "{nested}");
        assert!(view.fill("SELECT ${nobody:raw}").is_err());
    }
}
