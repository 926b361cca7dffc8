//! The parts of Spillway that people know by name, and how each does: state, response time and
//! errors, folded over all programs that make it up. Nothing in here tells who its customers are.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// How a part does. The worst of several is the greatest.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Condition {
    /// Nobody looked, or nobody knows.
    #[default]
    Unknown,
    Up,
    Degraded,
    Down,
}

impl Condition {
    /// Also its CSS class.
    pub fn key(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Up => "up",
            Self::Degraded => "degraded",
            Self::Down => "down",
        }
    }

    pub fn words(self) -> &'static str {
        match self {
            Self::Unknown => "not watched",
            Self::Up => "works",
            Self::Degraded => "impaired",
            Self::Down => "down",
        }
    }
}

/// A part, in the order a batch meets it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Part {
    Intake,
    Log,
    Detour,
    Storing,
    Storage,
    Keeping,
}

impl Part {
    pub const ALL: [Self; 6] =
        [Self::Intake, Self::Log, Self::Detour, Self::Storing, Self::Storage, Self::Keeping];

    pub fn key(self) -> &'static str {
        match self {
            Self::Intake => "intake",
            Self::Log => "log",
            Self::Detour => "detour",
            Self::Storing => "storing",
            Self::Storage => "storage",
            Self::Keeping => "keeping",
        }
    }

    /// The part of this key, as incidents name it.
    pub fn from_key(key: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|part| part.key() == key)
    }

    pub fn title(self) -> &'static str {
        match self {
            Self::Intake => "Ingest API",
            Self::Log => "Kafka",
            Self::Detour => "S3 detour",
            Self::Storing => "Consumer",
            Self::Storage => "MySQL",
            Self::Keeping => "Keeper",
        }
    }

    pub fn about(self) -> &'static str {
        match self {
            Self::Intake => "takes batches in",
            Self::Log => "keeps them until they are stored",
            Self::Detour => "takes them while the API can’t",
            Self::Storing => "stores them",
            Self::Storage => "answers dashboards",
            Self::Keeping => "makes room, watches the lag",
        }
    }

    /// The part that a program of this name belongs to; an agent belongs to its customer.
    pub fn of_program(name: &str) -> Option<Self> {
        let kinds = [
            ("ingest", Self::Intake),
            ("consumer", Self::Storing),
            ("recovery", Self::Detour),
            ("keeper", Self::Keeping),
        ];
        kinds.into_iter().find_map(|(word, part)| name.contains(word).then_some(part))
    }
}

/// One part at one moment.
#[derive(Debug, Clone, Serialize)]
pub struct Component {
    pub part: Part,
    pub condition: Condition,
    /// Mean over the last half minute, in milliseconds.
    pub response_ms: Option<f64>,
    /// Share of failures over the last half minute, 0..1.
    pub error_ratio: Option<f64>,
    /// What is wrong, for operators' eyes: it may name hosts and shards.
    pub why: Option<String>,
}

impl Component {
    pub fn unknown(part: Part) -> Self {
        let condition = Condition::Unknown;
        Self { part, condition, response_ms: None, error_ratio: None, why: None }
    }
}

/// What `/deepz` says of one dependency.
#[derive(Debug, Clone, Deserialize)]
pub struct Dependency {
    pub state: String,
    #[serde(default)]
    pub latency_ms: Option<f64>,
    #[serde(default)]
    pub error: Option<String>,
}

/// `/deepz`, as far as the page needs it.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct DeepReport {
    #[serde(default)]
    pub dependencies: BTreeMap<String, Dependency>,
}

/// Several that do the same work: some down is degraded, all down is down.
pub fn together(conditions: impl IntoIterator<Item = Condition>) -> Condition {
    let known: Vec<Condition> =
        conditions.into_iter().filter(|one| *one != Condition::Unknown).collect();
    match (known.iter().max(), known.iter().min()) {
        (Some(Condition::Down), Some(Condition::Down)) => Condition::Down,
        (Some(Condition::Down | Condition::Degraded), _) => Condition::Degraded,
        (Some(worst), _) => *worst,
        (None, _) => Condition::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn some_down_is_degraded_and_all_down_is_down() {
        use Condition::{Degraded, Down, Unknown, Up};
        assert_eq!(together([Up, Unknown, Up]), Up);
        assert_eq!(together([Up, Down]), Degraded);
        assert_eq!(together([Down, Unknown]), Down);
        assert_eq!(together([Degraded, Down]), Degraded);
        assert_eq!(together([]), Unknown);
    }

    #[test]
    fn a_program_belongs_to_the_part_its_name_tells() {
        assert_eq!(Part::of_program("ingest-api-3"), Some(Part::Intake));
        assert_eq!(Part::of_program("agent"), None);
        assert!(Part::ALL.into_iter().all(|part| Part::from_key(part.key()) == Some(part)));
    }
}
