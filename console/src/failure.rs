//! A command that could not do its work: one clear sentence and an exit code.

use std::error::Error;

use spillway_runtime::program::{EXIT_CONFIG, EXIT_USAGE, chain};
use spillway_runtime::settings::SettingsErrors;
use spillway_runtime::shards::ShardsError;

use crate::answer::Verdict;
use crate::consent::ConsentError;

/// Any command's error with the exit code that goes with it.
#[derive(Debug)]
pub struct Failure {
    pub exit_code: u8,
    cause: Box<dyn Error + Send + Sync>,
}

impl Failure {
    pub fn sentence(&self) -> String {
        chain(&*self.cause)
    }
}

impl<E: Error + Send + Sync + 'static> From<E> for Failure {
    fn from(error: E) -> Self {
        let any: &(dyn Error + 'static) = &error;
        let exit_code = if any.is::<SettingsErrors>() || any.is::<ShardsError>() {
            EXIT_CONFIG
        } else if any.is::<ConsentError>() || any.is::<UsageError>() {
            EXIT_USAGE
        } else {
            Verdict::Critical.exit_code()
        };
        Self { exit_code, cause: Box::new(error) }
    }
}

/// The command line asks for something that can't be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct UsageError(pub String);
