//! Whether Kafka's topics are what the programs rest on. A program that finds them otherwise
//! refuses to go on with one sentence that says what to do; a Kafka that is away proves nothing.

use std::fmt;
use std::time::Duration;

use rdkafka::ClientContext;
use rdkafka::admin::{AdminClient, AdminOptions, ConfigResource, ResourceSpecifier};
use rdkafka::config::{FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::error::KafkaError;
use rdkafka::metadata::Metadata;
use spillway_proto::kafka_record::{Lane, TOPIC_DEAD_LETTERS};
use spillway_proto::limits::KAFKA_MESSAGE_BYTES_MAX;
use spillway_runtime::settings::SecretFileError;

use crate::log_gate::LogGate;
use crate::report;
use crate::settings::KafkaSettings;

/// Why the topics can't be relied on.
#[derive(Debug, thiserror::Error)]
pub enum TopicsError {
    /// Kafka did not answer: nothing is known, try again.
    #[error("Kafka at {brokers} did not answer: {cause}")]
    Unreachable { brokers: String, cause: KafkaError },
    /// They are there and wrong: an operator must act.
    #[error("{}", Sentences(.0))]
    Wrong(Vec<TopicProblem>),
    /// The Kafka client can't be made from these settings.
    #[error("the Kafka client can't be made: {0}")]
    Client(KafkaError),
    #[error(transparent)]
    Secret(#[from] SecretFileError),
    /// The check itself was ended.
    #[error("the check of the topics was ended: {0}")]
    Ended(#[from] tokio::task::JoinError),
}

impl TopicsError {
    /// Whether the same check may pass without anyone's action.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Ended(_) => true,
            Self::Wrong(_) | Self::Client(_) | Self::Secret(_) => false,
        }
    }
}

struct Sentences<'a>(&'a [TopicProblem]);

impl fmt::Display for Sentences<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, problem) in self.0.iter().enumerate() {
            write!(f, "{}{problem}", if place == 0 { "" } else { "; " })?;
        }
        Ok(())
    }
}

/// One thing that is wrong with one topic.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TopicProblem {
    #[error("topic {topic} does not exist: run `spillway topics create`")]
    Missing { topic: &'static str },
    #[error(
        "topic {topic} has {found} partitions, but the settings say {expected}: the number is \
         fixed for life, so set `partitions` to what the topic has"
    )]
    Partitions { topic: &'static str, found: usize, expected: u16 },
    #[error(
        "topic {topic} has {name}={found}, but must have {expected}: run `spillway topics check`"
    )]
    Property { topic: &'static str, name: &'static str, found: String, expected: String },
}

/// Looks at all topics: whether they exist, have `partitions` partitions, and keep what they are
/// given (time of the append, nothing expires, large enough records).
///
/// # Errors
/// [`TopicsError`]; [`TopicsError::is_transient`] tells an absent Kafka from a wrong one.
pub async fn check_topics(
    settings: &KafkaSettings,
    partitions: u16,
    within: Duration,
) -> Result<(), TopicsError> {
    let mut config = settings.client_config()?;
    config.set("log_level", "3");
    let brokers = settings.brokers.join(",");
    let runtime = tokio::runtime::Handle::current();
    // The client's calls block, and so does dropping it.
    let check = move || {
        let client = AdminClient::from_config_and_context(&config, Quiet::default())
            .map_err(TopicsError::Client)?;
        let unreachable = |cause| TopicsError::Unreachable { brokers: brokers.clone(), cause };
        let metadata = client.inner().fetch_metadata(None, within).map_err(unreachable)?;
        let mut problems = places(&metadata, partitions);
        if problems.is_empty() {
            let topics = Lane::ALL.map(|lane| ResourceSpecifier::Topic(lane.topic()));
            // A mock cluster never answers this, and a real one does at once: it gets a third.
            let options = AdminOptions::new().request_timeout(Some(within / 3));
            match runtime.block_on(client.describe_configs(&topics, &options)) {
                Ok(found) => problems.extend(found.iter().flatten().flat_map(properties)),
                // A principal may write without being allowed to read configurations.
                Err(error) => tracing::warn!(%error, "the topics' properties can't be read"),
            }
        }
        if problems.is_empty() { Ok(()) } else { Err(TopicsError::Wrong(problems)) }
    };
    tokio::task::spawn_blocking(check).await?
}

fn places(metadata: &Metadata, partitions: u16) -> Vec<TopicProblem> {
    let expected = [
        (Lane::Live.topic(), Some(partitions)),
        (Lane::Backlog.topic(), Some(partitions)),
        (TOPIC_DEAD_LETTERS, None),
    ];
    let mut problems = Vec::new();
    for (topic, expected) in expected {
        let there = metadata.topics().iter().find(|found| found.name() == topic);
        match there.filter(|found| found.error().is_none()).map(|found| found.partitions().len()) {
            None | Some(0) => problems.push(TopicProblem::Missing { topic }),
            Some(found) => {
                if let Some(expected) = expected.filter(|count| usize::from(*count) != found) {
                    problems.push(TopicProblem::Partitions { topic, found, expected });
                }
            }
        }
    }
    problems
}

/// What must hold, so that nothing expires unread and late data keeps its place in time.
const PROPERTIES: [(&str, &str); 4] = [
    ("message.timestamp.type", "LogAppendTime"),
    ("retention.ms", "-1"),
    ("retention.bytes", "-1"),
    ("cleanup.policy", "delete"),
];

fn properties(found: &ConfigResource) -> Vec<TopicProblem> {
    let rdkafka::admin::OwnedResourceSpecifier::Topic(name) = &found.specifier else {
        return Vec::new();
    };
    let Some(topic) = Lane::of_topic(name).map(Lane::topic) else { return Vec::new() };
    let value = |name: &str| found.get(name).and_then(|entry| entry.value.as_deref());
    let mut problems = Vec::new();
    for (name, expected) in PROPERTIES {
        if let Some(found) = value(name).filter(|found| *found != expected) {
            let (found, expected) = (found.to_owned(), expected.to_owned());
            problems.push(TopicProblem::Property { topic, name, found, expected });
        }
    }
    let name = "max.message.bytes";
    let bytes = value(name).and_then(|bytes| bytes.parse::<usize>().ok());
    if let Some(bytes) = bytes.filter(|bytes| *bytes < KAFKA_MESSAGE_BYTES_MAX) {
        let expected = format!("at least {KAFKA_MESSAGE_BYTES_MAX}");
        problems.push(TopicProblem::Property { topic, name, found: bytes.to_string(), expected });
    }
    problems
}

/// The check's own client: it comes and goes in an outage, and must not fill the log.
#[derive(Default)]
struct Quiet(LogGate);

impl ClientContext for Quiet {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        report::log(&self.0, level, facility, line);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, reason, "Kafka client of the topics' check");
    }
}
