//! `spillway dead-letters ls|replay`: what could not be applied, and its way back into MySQL once
//! the cause is mended.
//!
//! The topic is read from its first letter to where it ends when it is first looked at, a chunk at
//! a time; nothing is held of a letter once it is counted. No group is joined, nothing is noted in
//! Kafka, and no letter is ever removed.

mod letter;
mod list;
mod replay;

use std::time::{Duration, Instant};

use spillway_proto::BatchId;
use spillway_proto::kafka_record::TOPIC_DEAD_LETTERS;
use spillway_publisher::reading::{self, LogError, Since, Stretch, Telling, Told};
use spillway_publisher::{KafkaSettings, TopicProblem, TopicsError};

use self::letter::Letter;
use crate::answer::Answer;
use crate::cli;
use crate::desk::Desk;
use crate::failure::Failure;

/// Between two lines of progress.
const TELL_EVERY: Duration = Duration::from_secs(2);

pub async fn run(desk: &Desk, command: cli::DeadLetters) -> Result<Answer, Failure> {
    match command {
        cli::DeadLetters::Ls(options) => list::run(desk, &options).await,
        cli::DeadLetters::Replay(options) => replay::run(desk, &options).await,
    }
}

/// Which letters are meant.
struct Wanted<'a> {
    letters: &'a cli::Letters,
    batch: Option<BatchId>,
}

impl Wanted<'_> {
    fn takes(&self, letter: &Letter) -> bool {
        let is = |wanted: &Option<String>, found: &str| {
            wanted.as_deref().is_none_or(|wanted| wanted == found)
        };
        is(&self.letters.reason, letter.reason())
            && is(&self.letters.environment, letter.environment().unwrap_or_default())
            && self.batch.is_none_or(|id| letter.key == id.to_bytes()[..])
    }
}

/// The topic, chunk by chunk; each time it is read, to the same end.
struct Topic<'a> {
    kafka: &'a KafkaSettings,
    /// Where each partition ends, once that is known.
    ends: Vec<Option<i64>>,
    partition: usize,
    open: Option<Telling<Letter>>,
}

impl<'a> Topic<'a> {
    async fn of(desk: &'a Desk) -> Result<Self, Failure> {
        let cluster = desk.kafka()?.look().await?;
        let partitions = cluster.partitions.get(TOPIC_DEAD_LETTERS).copied().unwrap_or(0);
        if partitions == 0 {
            let missing = TopicProblem::Missing { topic: TOPIC_DEAD_LETTERS };
            return Err(TopicsError::Wrong(vec![missing]).into());
        }
        let kafka = &desk.settings.kafka;
        Ok(Self { kafka, ends: vec![None; partitions], partition: 0, open: None })
    }

    /// The next letters; `None` at the end. Kafka's silence ends the wait with an error.
    async fn next(&mut self) -> Result<Option<Vec<Letter>>, LogError> {
        while let Some(end) = self.ends.get_mut(self.partition) {
            let told = match &mut self.open {
                Some(told) => told,
                none => none.insert(open(self.kafka, self.partition, *end)?),
            };
            match told.recv().await.ok_or(LogError::Gone)?? {
                Told::Begins { next, .. } => *end = Some(next),
                Told::Records(letters) => return Ok(Some(letters)),
                Told::Ends => {
                    self.open = None;
                    self.partition += 1;
                }
            }
        }
        Ok(None)
    }

    /// To its first letter again.
    fn rewind(&mut self) {
        (self.partition, self.open) = (0, None);
    }
}

fn open(
    kafka: &KafkaSettings,
    partition: usize,
    next: Option<i64>,
) -> Result<Telling<Letter>, LogError> {
    let partition = u16::try_from(partition).unwrap_or(u16::MAX);
    let (topic, since) = (TOPIC_DEAD_LETTERS, Since::Beginning);
    reading::read(kafka, Stretch { topic, partition, since, next }, |message| {
        let letter = Letter::copy(message);
        let bytes = letter.bytes();
        (letter, bytes)
    })
}

/// Says how far it is, not too often.
struct Progress {
    told: Instant,
}

impl Progress {
    fn new() -> Self {
        Self { told: Instant::now() }
    }

    fn tell(&mut self, sentence: impl FnOnce() -> String) {
        if self.told.elapsed() >= TELL_EVERY {
            self.told = Instant::now();
            eprintln!("  {}", sentence());
        }
    }
}
