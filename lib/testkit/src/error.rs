//! What can go wrong while a stack is fetched, started or driven. Every variant names the process
//! or the file it is about, so that a developer reads one sentence and knows where to look.

use std::io;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::Duration;

#[derive(Debug, thiserror::Error)]
pub enum StackError {
    #[error("`{tool}` was not found; {advice}")]
    MissingTool { tool: &'static str, advice: &'static str },
    #[error("{what} failed: {status}\n{output}")]
    Command { what: String, status: ExitStatus, output: String },
    #[error("{what}: {source}")]
    Io { what: String, source: io::Error },
    #[error("{name} was not ready after {waited:?}: {last}\nlast lines of {log}:\n{tail}")]
    NotReady { name: String, waited: Duration, last: String, log: PathBuf, tail: String },
    #[error("{name} ended with {status}\nlast lines of {log}:\n{tail}")]
    Exited { name: String, status: ExitStatus, log: PathBuf, tail: String },
    #[error("{what}: {source}")]
    Sql { what: String, source: sqlx::Error },
    #[error("no process is called {name}; there are: {known}")]
    UnknownProcess { name: String, known: String },
    #[error("{what}")]
    Refused { what: String },
}

impl StackError {
    /// For `map_err`: says what was being done when the operating system refused.
    pub fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }

    /// For `map_err`: says what was being asked of MySQL.
    pub fn sql(what: impl Into<String>) -> impl FnOnce(sqlx::Error) -> Self {
        let what = what.into();
        move |source| Self::Sql { what, source }
    }
}
