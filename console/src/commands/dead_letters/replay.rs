//! `spillway dead-letters replay`: the batches of dead letters into Kafka's backlog once more.
//!
//! The topic is read twice, to the same end: once to count for the plan, once to publish. Each time
//! the consumer's own check says what is a batch; everything else is counted and left. A batch
//! counts as published only by its delivery report. Nothing notes what was replayed, and nothing
//! has to: the ledger recognises each batch, so any part of this may be done again.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use prometheus_client::registry::Registry;
use spillway_consumer::verify::Reason;
use spillway_proto::BatchId;
use spillway_proto::frame::Decoder;
use spillway_proto::partition::Partitioning;
use spillway_publisher::reading::LogError;
use spillway_publisher::{
    Outcome, Pending, PublishError, Publisher, Record, check_topics, wait_all,
};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::Instant;

use super::letter::{Fit, Letter};
use super::{Progress, Topic, Wanted};
use crate::answer::{Answer, Verdict};
use crate::cli::ReplayLetters;
use crate::commands::spill::Pace;
use crate::commands::trace;
use crate::consent::{Consent, Plan};
use crate::desk::Desk;
use crate::failure::{Failure, UsageError};

/// Batches remembered, so that each goes once: some 20 MB. Of more than these, one that lies there
/// twice may go twice, which is harmless.
const REMEMBERED_MAX: usize = 200_000;
/// Between two looks at a full queue.
const QUEUE_PAUSE: Duration = Duration::from_millis(50);

/// Why it ended early. What was published stays so.
#[derive(Debug, thiserror::Error)]
enum ReplayFault {
    #[error("dead letters can't be read on: {cause}; {sum}")]
    Log { sum: Sum, cause: LogError },
    #[error("Kafka takes no more now: {cause}; {sum}")]
    NotTaken { sum: Sum, cause: PublishError },
    #[error("Kafka did not confirm {batches} batches in time; {sum}")]
    Unconfirmed { sum: Sum, batches: usize },
}

/// What was published.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Sum {
    batches: u64,
    points: u64,
}

impl std::fmt::Display for Sum {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { batches, points } = self;
        write!(
            f,
            "{batches} batches with {points} points were published before: run it again, they \
             then count as duplicates"
        )
    }
}

/// What was found in the topic.
#[derive(Debug, Default)]
struct Found {
    looked_at: u64,
    chosen: u64,
    sum: Sum,
    /// Letters whose batch lies there before.
    repeated: u64,
    /// By reason: how many, and where the first of them lies.
    unfit: BTreeMap<&'static str, (u64, String)>,
    remembered_all: bool,
}

/// What is held against each letter.
struct Sieve<'a> {
    wanted: Wanted<'a>,
    partitioning: Partitioning,
    decoder: Decoder,
    /// A seq that was given twice names two batches, told apart by their bytes.
    seen: HashSet<(BatchId, u32)>,
    found: Found,
}

impl<'a> Sieve<'a> {
    fn new(wanted: Wanted<'a>, partitioning: Partitioning) -> Self {
        let found = Found { remembered_all: true, ..Found::default() };
        Self { wanted, partitioning, decoder: Decoder::new(), seen: HashSet::new(), found }
    }

    /// The batch that is to go, if this letter brings one.
    fn sift(&mut self, letter: &Letter) -> Option<Fit> {
        self.found.looked_at += 1;
        if !self.wanted.takes(letter) {
            return None;
        }
        self.found.chosen += 1;
        let fit = match letter.fit(&mut self.decoder, self.partitioning) {
            Ok(fit) => fit,
            Err(reason) => {
                self.leave(reason, letter);
                return None;
            }
        };
        let name = (fit.record.id, fit.crc);
        if self.seen.contains(&name) {
            self.found.repeated += 1;
            return None;
        }
        match self.seen.len() < REMEMBERED_MAX {
            true => drop(self.seen.insert(name)),
            false => self.found.remembered_all = false,
        }
        self.found.sum.batches += 1;
        self.found.sum.points += fit.points;
        Some(fit)
    }

    fn leave(&mut self, reason: Reason, letter: &Letter) {
        let left = self.found.unfit.entry(reason.word()).or_insert((0, letter.place()));
        left.0 += 1;
    }
}

pub async fn run(desk: &Desk, options: &ReplayLetters) -> Result<Answer, Failure> {
    let batch = options.batch.as_deref().map(named).transpose()?;
    let map = desk.shards()?;
    let Some(partitioning) = map.partitioning() else {
        return Err(UsageError("shards.toml has no partitions".to_owned()).into());
    };
    // A batch in a wrong partition would only come back as another letter.
    let within = desk.settings.remote_deadline.get();
    check_topics(&desk.settings.kafka, map.partitions, within).await?;
    let sieve = || Sieve::new(Wanted { letters: &options.letters, batch }, partitioning);
    let mut topic = Topic::of(desk).await?;
    let found = look(&mut topic, sieve()).await?;
    let mut answer = Answer::default();
    tell_found(&found, &mut answer);
    let plan = Plan { action: "dead-letters replay", steps: steps(&found, options) };
    let entry = match desk.ask(&plan)? {
        Consent::Nothing(why) => {
            answer.note(why);
            return Ok(answer);
        }
        Consent::Given(entry) => entry,
    };
    topic.rewind();
    let done = publish_all(desk, &mut topic, sieve(), Pace::new(options.rate)).await;
    let done = entry.end(done)?;
    tell_done(&done, &mut answer);
    Ok(answer)
}

fn named(text: &str) -> Result<BatchId, UsageError> {
    trace::parse(text).ok_or_else(|| {
        UsageError(format!("{text:?} names no batch: AGENT/EPOCH/SEQ, or content/HASH"))
    })
}

/// What there is, before anything is done.
async fn look(topic: &mut Topic<'_>, mut sieve: Sieve<'_>) -> Result<Found, Failure> {
    let mut progress = Progress::new();
    while let Some(letters) = topic.next().await? {
        for letter in &letters {
            sieve.sift(letter);
        }
        let Found { looked_at, sum, .. } = &sieve.found;
        progress.tell(|| format!("{looked_at} letters read, {} batches to replay", sum.batches));
    }
    Ok(sieve.found)
}

fn steps(found: &Found, options: &ReplayLetters) -> Vec<String> {
    let Found { sum, repeated, unfit, .. } = found;
    if sum.batches == 0 {
        return Vec::new();
    }
    let mut steps = vec![format!(
        "publish {} batches with {} points to spillway.backlog once more, at most {} a second",
        sum.batches, sum.points, options.rate
    )];
    if *repeated > 0 {
        steps.push(format!("pass over {repeated} letters whose batch lies there before"));
    }
    if !unfit.is_empty() {
        let named = unfit.iter().map(|(reason, (count, _))| format!("{count} {reason}"));
        let named = named.collect::<Vec<_>>().join(", ");
        steps.push(format!("leave what can't be replayed: {named}"));
    }
    steps.push("leave every letter where it is".to_owned());
    steps
}

/// How publishing went.
#[derive(Debug, Default)]
struct Done {
    sum: Sum,
    /// Batches that Kafka will never take.
    refused: u64,
    /// By Ctrl-C, between two batches.
    stopped: bool,
}

async fn publish_all(
    desk: &Desk,
    topic: &mut Topic<'_>,
    mut sieve: Sieve<'_>,
    pace: Pace,
) -> Result<Done, Failure> {
    // The metrics of a command that ends are nobody's.
    let publisher = Publisher::start(&desk.settings.kafka, &mut Registry::default())?;
    let within = desk.settings.remote_deadline.get();
    let interrupts = signal(SignalKind::interrupt())?;
    let mut way = Way { publisher, pace, interrupts, within, done: Done::default() };
    let mut progress = Progress::new();
    let ended = loop {
        let letters = match topic.next().await {
            Ok(Some(letters)) => letters,
            Ok(None) => break Ok(()),
            Err(cause) => break Err(ReplayFault::Log { sum: way.done.sum, cause }),
        };
        let fits: Vec<Fit> = letters.iter().filter_map(|letter| sieve.sift(letter)).collect();
        if let Err(fault) = way.publish(fits, &mut progress).await {
            break Err(fault);
        }
        if way.done.stopped {
            break Ok(());
        }
    };
    // Whatever has no report by now is not counted; this only lets the client end in peace.
    way.publisher.drain(within).await;
    ended?;
    Ok(way.done)
}

/// Where and how fast.
struct Way {
    publisher: Publisher,
    pace: Pace,
    /// One for the whole run: what comes while a batch is published is not missed.
    interrupts: Signal,
    /// For the reports of one chunk, once all of it is handed over.
    within: Duration,
    done: Done,
}

impl Way {
    /// One chunk of the topic: handed over at the pace, then every report waited for.
    async fn publish(
        &mut self,
        fits: Vec<Fit>,
        progress: &mut Progress,
    ) -> Result<(), ReplayFault> {
        let (mut pendings, mut points) = (Vec::with_capacity(fits.len()), Vec::new());
        let mut failed = None;
        for fit in fits {
            tokio::select! {
                biased;
                _ = self.interrupts.recv() => {
                    self.done.stopped = true;
                    break;
                }
                () = self.pace.next() => {}
            }
            match self.hand_over(fit.record.into()).await {
                Ok(pending) => {
                    pendings.push(pending);
                    points.push(fit.points);
                }
                Err(PublishError::TooLarge { .. }) => self.done.refused += 1,
                Err(cause) => {
                    failed = Some(cause);
                    break;
                }
            }
            let handed = self.done.sum.batches + pendings.len() as u64;
            progress.tell(|| format!("{handed} batches handed to Kafka"));
        }
        let outcomes = wait_all(&pendings, self.within).await;
        let mut unconfirmed = 0;
        for (outcome, points) in outcomes.iter().zip(points) {
            match outcome {
                Outcome::Done { .. } => {
                    self.done.sum.batches += 1;
                    self.done.sum.points += points;
                }
                Outcome::Refused(_) => self.done.refused += 1,
                Outcome::TryLater(_) | Outcome::Unknown => unconfirmed += 1,
            }
        }
        let sum = self.done.sum;
        match (failed, unconfirmed) {
            (Some(cause), _) => Err(ReplayFault::NotTaken { sum, cause }),
            (None, 0) => Ok(()),
            (None, batches) => Err(ReplayFault::Unconfirmed { sum, batches }),
        }
    }

    /// Waits for room in the queue, as long as one answer may take.
    async fn hand_over(&self, mut record: Record) -> Result<Pending, PublishError> {
        let until = Instant::now() + self.within;
        loop {
            let error = match self.publisher.publish(record) {
                Ok(pending) => return Ok(pending),
                Err(error) => error,
            };
            if !error.is_transient() || Instant::now() + QUEUE_PAUSE >= until {
                return Err(error);
            }
            tokio::time::sleep(QUEUE_PAUSE).await;
            record = error.into_record();
        }
    }
}

fn tell_found(found: &Found, answer: &mut Answer) {
    answer
        .fact("letters", found.chosen)
        .fact("looked_at", found.looked_at)
        .fact("batches", found.sum.batches)
        .fact("points", found.sum.points)
        .fact("repeated", found.repeated)
        .fact("not_replayable", found.unfit.values().map(|(count, _)| count).sum::<u64>());
    if !found.unfit.is_empty() {
        let section = answer.section("left", &["why", "letters", "first_at"]);
        for (reason, (count, place)) in &found.unfit {
            section.row([(*reason).into(), (*count).into(), place.clone().into()]);
        }
        let text = "some letters are no batches, or say another environment or id than their \
                    frame: they can't be replayed, and stay";
        answer.trouble(Verdict::Warning, text);
    }
    if !found.remembered_all {
        answer.note(format!(
            "More than {REMEMBERED_MAX} batches: of the others, one that lies there twice goes \
             twice, and counts once."
        ));
    }
}

fn tell_done(done: &Done, answer: &mut Answer) {
    let Sum { batches, points } = done.sum;
    answer
        .fact("published", batches)
        .fact("published_points", points)
        .fact("refused", done.refused);
    if done.refused > 0 {
        let text = "Kafka refuses some batches for good, as too large for its topic: see \
                    `spillway topics check`";
        answer.trouble(Verdict::Critical, text);
    }
    if done.stopped {
        let text = "stopped before the end: the same command begins anew, and what was published \
                    counts as duplicate";
        answer.trouble(Verdict::Warning, text);
    }
    answer.note(format!(
        "Published {batches} batches with {points} points; those that were stored already count \
         as duplicates."
    ));
    answer.note(
        "The consumer takes them now: `spillway lag`, then `spillway gaps`. What it refuses again \
         becomes a new letter with its reason. Letters stay in the topic.",
    );
}

#[cfg(test)]
#[path = "replay_tests.rs"]
mod tests;
