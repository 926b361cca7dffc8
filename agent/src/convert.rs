//! `convert telegraf|prometheus FILE`: another agent's configuration becomes one of ours, on
//! stdout. What could not be carried over is named on stderr, line by line: a conversion that is
//! silent about what it dropped would be believed.

use std::fmt;
use std::path::Path;
use std::process::ExitCode;

use clap::{Arg, ArgMatches, Command, value_parser};

use crate::cli::say;

mod tree;

mod telegraf;

mod prometheus;

/// A configuration larger than this is none.
const FILE_BYTES_MAX: u64 = 4 << 20;
const EXIT_FAILED: u8 = 1;

/// Its command line.
#[must_use]
pub fn command() -> Command {
    let file = Arg::new("FILE").required(true).value_parser(value_parser!(std::path::PathBuf));
    let of =
        |name: &'static str, about: &'static str| Command::new(name).about(about).arg(file.clone());
    Command::new("convert")
        .about("Writes another agent's configuration as one of ours; says what it left out")
        .subcommand_required(true)
        .subcommand(of("telegraf", "A telegraf.conf"))
        .subcommand(of("prometheus", "A prometheus.yml: its scrape_configs"))
        .after_help(
            "The settings go to stdout, what was left out to stderr.\n\
             Exit codes: 0 converted, perhaps with something left out, 1 not converted.",
        )
}

/// Converts, by what the command line says.
#[must_use]
pub fn run(matches: &ArgMatches) -> ExitCode {
    let Some((format, inner)) = matches.subcommand() else { return ExitCode::from(EXIT_FAILED) };
    let Some(file) = inner.get_one::<std::path::PathBuf>("FILE") else {
        return ExitCode::from(EXIT_FAILED);
    };
    let converted = read(file).and_then(|text| match format {
        "telegraf" => telegraf::convert(&text),
        _ => prometheus::convert(&text),
    });
    match converted {
        Ok(converted) => {
            for left_out in &converted.left_out {
                eprintln!("{}:{left_out}", file.display());
            }
            say(&converted.text(&format!("{format} configuration {}", file.display())))
        }
        Err(cause) => {
            eprintln!("spillway-agent: {}: {cause}", file.display());
            ExitCode::from(EXIT_FAILED)
        }
    }
}

fn read(file: &Path) -> Result<String, ConvertError> {
    let size = std::fs::metadata(file)?.len();
    if size > FILE_BYTES_MAX {
        return Err(ConvertError::TooLarge);
    }
    Ok(std::fs::read_to_string(file)?)
}

/// Why nothing could be converted.
#[derive(Debug, thiserror::Error)]
pub enum ConvertError {
    #[error("it can't be read: {0}")]
    Io(#[from] std::io::Error),
    #[error("it is larger than {FILE_BYTES_MAX} bytes")]
    TooLarge,
    #[error("it is no TOML: {0}")]
    Toml(#[from] toml::de::Error),
    #[error("it is no YAML: {0}")]
    Yaml(#[from] yaml_rust2::ScanError),
    #[error("it is nested too deeply")]
    TooDeep,
    #[error("it holds no sections")]
    NoSections,
}

/// What became of a configuration.
#[derive(Debug, Default)]
pub struct Converted {
    settings: toml::Table,
    left_out: Vec<LeftOut>,
}

/// Something that is not in the result, or not as it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeftOut {
    pub line: usize,
    pub what: String,
    pub why: &'static str,
}

impl fmt::Display for LeftOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}", self.line, self.what, self.why)
    }
}

impl Converted {
    fn leave_out(&mut self, line: usize, what: impl Into<String>, why: &'static str) {
        self.left_out.push(LeftOut { line, what: what.into(), why });
    }

    /// Names every key that nobody took.
    fn leave_out_rest(&mut self, table: tree::Table, of: &str) {
        for (key, line) in table.rest() {
            self.leave_out(line, format!("{of}.{key}"), "has no counterpart here");
        }
    }

    /// Sets `section.key`.
    fn set(&mut self, section: &str, key: &str, value: impl Into<toml::Value>) {
        let table = self.settings.entry(section).or_insert_with(|| toml::Table::new().into());
        if let Some(table) = table.as_table_mut() {
            table.insert(key.to_owned(), value.into());
        }
    }

    /// Adds a `[[section]]`.
    fn add(&mut self, section: &str, table: toml::Table) {
        let list = self.settings.entry(section).or_insert_with(|| toml::Value::Array(Vec::new()));
        if let Some(list) = list.as_array_mut() {
            list.push(table.into());
        }
    }

    /// The file, with what is still to be filled in at its top.
    fn text(&self, from: &str) -> String {
        let settings = toml::to_string(&self.settings).unwrap_or_default();
        let left_out = match self.left_out.len() {
            0 => "Everything was carried over.".to_owned(),
            many => format!("{many} things were left out or changed; stderr named them."),
        };
        format!(
            "# Made of the {from}.\n# {left_out}\n# Still to be said: agent.environment and \
             agent.token_file (`spillway token create`), deliver.endpoints.\n\n{settings}"
        )
    }
}

#[cfg(test)]
#[path = "convert/convert_tests.rs"]
mod tests;
