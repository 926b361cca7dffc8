//! What every command works with: the settings, the options, and the two operators' files.

use std::io::IsTerminal;
use std::path::PathBuf;

use spillway_runtime::settings::SecretFileError;
use spillway_runtime::shards::{Shard, ShardMap, ShardsError};

use crate::answer::Style;
use crate::cli::Options;
use crate::consent::{self, Consent, ConsentError, Plan};
use crate::reach::kafka::Kafka;
use crate::settings::ConsoleSettings;

/// One invocation of the console.
#[derive(Debug)]
pub struct Desk {
    pub settings: ConsoleSettings,
    pub options: Options,
}

impl Desk {
    pub fn shards(&self) -> Result<ShardMap, ShardsError> {
        ShardMap::load(&self.settings.shards_file)
    }

    pub fn kafka(&self) -> Result<Kafka, SecretFileError> {
        Kafka::new(&self.settings.kafka, self.settings.remote_deadline.get())
    }

    /// Shows `plan` and asks; see [`consent::ask`].
    pub fn ask(&self, plan: &Plan) -> Result<Consent, ConsentError> {
        self.ask_about(plan, "")
    }

    /// The same of a change that is one per shard, or per `about` whatever that is.
    pub fn ask_about(&self, plan: &Plan, about: &str) -> Result<Consent, ConsentError> {
        consent::ask(&self.options, &self.settings.journal_file, (plan, about))
    }

    /// The shards that a question about `environment` (or all of them) concerns.
    pub fn shards_of<'a>(&self, map: &'a ShardMap, environment: Option<&str>) -> Vec<&'a Shard> {
        match environment {
            Some(name) => map.shard_of_environment(name).into_iter().collect(),
            None => map.shards.iter().collect(),
        }
    }

    /// Colours are for a terminal whose user did not refuse them (https://no-color.org).
    pub fn style(&self) -> Style {
        match std::io::stdout().is_terminal() && !crate::settings::no_color() {
            true => Style::Coloured,
            false => Style::Plain,
        }
    }

    pub fn config_path(&self) -> Option<PathBuf> {
        self.options.config.clone()
    }
}
