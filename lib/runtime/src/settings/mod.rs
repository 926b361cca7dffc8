//! Settings: declared once as a struct, from which loading, checks, `config show`, the samples and
//! the reference pages all follow.
//!
//! A file is TOML; `SPILLWAY__SECTION__KEY` in the environment overrides it. All problems are told
//! at once, each with its path: unknown keys (with the nearest known one), values of the wrong
//! type, and what the program's own `validate` finds. The overlay is ours and not a library's,
//! because the schema knows each key's type: `SPILLWAY__MYSQL__PASSWORD=123` stays a text, a list
//! stays a list, and a misspelt variable is an error like a misspelt key.

mod document;
mod overlay;
mod secret;
mod sections;
mod shape;
mod units;

#[cfg(test)]
mod tests;

use std::fmt;
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::Serialize;
use serde::de::DeserializeOwned;

pub use document::{reference_markdown, sample_toml, show};
pub use secret::{MASK, Secret, SecretFileError, mask_url};
pub use sections::{AdminSettings, LogFormat, LogSettings, Process, ShutdownSettings};
pub use units::{Dur, NotADuration, NotASize, Size};

/// The longest settings file read; ours have a few KiB.
const SETTINGS_FILE_BYTES_MAX: u64 = 4 << 20;

/// What a program's settings struct promises.
///
/// Every struct in it carries `#[serde(deny_unknown_fields, default)]`, every field a doc comment.
pub trait Settings:
    Serialize + DeserializeOwned + Default + JsonSchema + Clone + Send + Sync + 'static
{
    /// The program's name without `spillway-`; its first word is the metrics' prefix.
    const PROGRAM: &'static str;
    /// One line: what the program does.
    const ABOUT: &'static str;

    /// The three sections all programs have.
    fn process(&self) -> Process<'_>;

    /// Bounds and relations between keys. Offline: it opens no connection.
    fn validate(&self) -> Vec<Problem> {
        Vec::new()
    }

    /// Worker threads of the async runtime; `None` is one per core.
    fn worker_threads(&self) -> Option<usize> {
        None
    }
}

/// One thing that is wrong, and where.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// Dotted path of the key, `inputs[2].url` for list elements; empty for the whole file.
    pub path: String,
    pub message: String,
}

impl Problem {
    pub fn new(path: impl Into<String>, message: impl Into<String>) -> Self {
        Self { path: path.into(), message: message.into() }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.path.as_str() {
            "" => f.write_str(&self.message),
            path => write!(f, "{path}: {}", self.message),
        }
    }
}

/// Everything that is wrong with a program's settings.
#[derive(Debug, Clone)]
pub struct SettingsErrors {
    program: &'static str,
    file: Option<PathBuf>,
    problems: Vec<Problem>,
}

impl SettingsErrors {
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }
}

impl fmt::Display for SettingsErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let n = self.problems.len();
        let things = if n == 1 { "problem" } else { "problems" };
        write!(f, "the settings of {} have {n} {things}", self.program)?;
        if let Some(file) = &self.file {
            write!(f, " ({})", file.display())?;
        }
        for problem in &self.problems {
            write!(f, "\n  {problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for SettingsErrors {}

/// Reads `file` (none: defaults) and the process's environment, checks all of it, and returns
/// either sound settings or every problem at once.
pub fn load<T: Settings>(file: Option<&Path>) -> Result<T, SettingsErrors> {
    from_outside(file, load_parts)
}

/// As [`load`], for a command that only looks: names and types count, whether the values are sound
/// does not, so whoever runs it need not be able to read the program's secrets.
pub fn load_unchecked<T: Settings>(file: Option<&Path>) -> Result<T, SettingsErrors> {
    from_outside(file, |text, env| {
        let (settings, problems) = parse_parts(text, env)?;
        settings.filter(|_| problems.is_empty()).ok_or(problems)
    })
}

/// What `load` makes of the file's text and of the environment.
fn from_outside<T: Settings>(
    file: Option<&Path>,
    load: impl FnOnce(&str, Vec<(String, String)>) -> Result<T, Vec<Problem>>,
) -> Result<T, SettingsErrors> {
    let env = || std::env::vars_os().filter_map(overlay::ours).collect();
    let text = file.map_or(Ok(String::new()), read_settings_file).map_err(|problem| vec![problem]);
    let loaded = text.and_then(|text| load(&text, env()));
    loaded.map_err(|problems| SettingsErrors {
        program: T::PROGRAM,
        file: file.map(Path::to_owned),
        problems,
    })
}

/// As [`load`], from a text and a list of environment variables.
pub fn load_from<T: Settings>(
    toml: &str,
    env: impl IntoIterator<Item = (String, String)>,
) -> Result<T, SettingsErrors> {
    load_parts(toml, env).map_err(|problems| SettingsErrors {
        program: T::PROGRAM,
        file: None,
        problems,
    })
}

fn read_settings_file(path: &Path) -> Result<String, Problem> {
    use std::io::Read;
    let mut text = String::new();
    let read = std::fs::File::open(path)
        .and_then(|file| file.take(SETTINGS_FILE_BYTES_MAX).read_to_string(&mut text));
    match read {
        Ok(_) => Ok(text),
        Err(cause) => Err(Problem::new("", format!("the file cannot be read: {cause}"))),
    }
}

fn load_parts<T: Settings>(
    text: &str,
    env: impl IntoIterator<Item = (String, String)>,
) -> Result<T, Vec<Problem>> {
    let (settings, mut problems) = parse_parts::<T>(text, env)?;
    if let Some(settings) = &settings {
        problems.extend(settings.process().validate());
        problems.extend(settings.validate());
    }
    settings.filter(|_| problems.is_empty()).ok_or(problems)
}

/// The settings, if every value has its type, and what is wrong with names and types.
fn parse_parts<T: Settings>(
    text: &str,
    env: impl IntoIterator<Item = (String, String)>,
) -> Result<(Option<T>, Vec<Problem>), Vec<Problem>> {
    let schema = shape::schema_of::<T>();
    let mut table: toml::Table =
        text.parse().map_err(|error: toml::de::Error| vec![not_toml(text, &error)])?;
    let mut problems = shape::unknown_keys(&table, &schema);
    problems.extend(overlay::apply(&mut table, &schema, env));
    shape::prune_unknown(&mut table, &schema);
    match T::deserialize(toml::Value::Table(table.clone())) {
        Ok(settings) => Ok((Some(settings), problems)),
        Err(error) => {
            problems.extend(shape::wrong_values::<T>(&table, &schema, &error));
            Ok((None, problems))
        }
    }
}

fn not_toml(text: &str, error: &toml::de::Error) -> Problem {
    let start = error.span().map_or(0, |span| span.start);
    let line = text.bytes().take(start).filter(|b| *b == b'\n').count() + 1;
    Problem::new("", format!("line {line} is no TOML: {}", error.message()))
}
