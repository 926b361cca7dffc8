//! What to do when an attempt fails: roll back, settle what is unknown, and choose between the same
//! again, a half of it, and giving it up.

use std::time::Duration;

use tokio::time::Instant;

use super::Worker;
use super::apply::{Hand, Step, place};
use crate::commit::{Advance, Committed, Settled, roll_back, settle};
use crate::metrics::Outcome;
use crate::store::StoreError;
use crate::store::classify::{Verdict, classify};
use crate::store::draft::Draft;
use crate::verify::{Named, Reason, Refused};

/// The same transaction is tried whole so often; then it is halved, which mends deadlocks and
/// servers too slow for it.
const WHOLE_ATTEMPTS: u32 = 4;
/// Kept free at the end of the drain for the group's last commit.
const DRAIN_MARGIN: Duration = Duration::from_secs(2);

impl Worker {
    /// What to do after a failure; the transaction is rolled back either way.
    pub(super) async fn failed(&mut self, hand: &mut Hand, error: &StoreError) -> Step {
        if let StoreError::Refused { index, reason } = error {
            self.refuse(hand, *index, *reason);
            return self.rolled_back(Step::Again(Duration::ZERO)).await;
        }
        let verdict = classify(error);
        self.note_trouble(error, verdict);
        let pause = self.pause.next_delay();
        let worn_out = hand.attempts >= WHOLE_ATTEMPTS && hand.records.len() > 1;
        match verdict {
            Verdict::Retry | Verdict::Duplicate if worn_out => {
                self.rolled_back(Step::Split(pause)).await
            }
            Verdict::Retry | Verdict::Duplicate => self.rolled_back(Step::Again(pause)).await,
            Verdict::Split => self.rolled_back(Step::Split(pause)).await,
            Verdict::Poison(number) if hand.records.len() == 1 => {
                self.refuse(hand, 0, Reason::RefusedByMysql(number));
                self.rolled_back(Step::Again(Duration::ZERO)).await
            }
            Verdict::Poison(_) => self.rolled_back(Step::Split(Duration::ZERO)).await,
            Verdict::Reconnect if worn_out && matches!(error, StoreError::Late(_)) => {
                self.link = None;
                Step::Split(pause)
            }
            Verdict::Reconnect | Verdict::Wait(_) => {
                self.link = None;
                Step::Again(pause)
            }
        }
    }

    /// Rolls back, or closes the connection, which does the same.
    pub(super) async fn rolled_back(&mut self, step: Step) -> Step {
        let limit = self.statement_timeout();
        if let Some(link) = &mut self.link
            && let Err(error) = roll_back(&mut link.session, limit).await
        {
            tracing::debug!(%error, "ROLLBACK failed: the connection is closed");
            self.link = None;
        }
        step
    }

    pub(super) async fn fenced(&mut self) -> Step {
        self.shared.metrics.fenced.inc();
        tracing::warn!(shard = %self.id.shard, "fenced: what was read is dropped and claimed anew");
        self.rolled_back(Step::GiveUp).await
    }

    /// Notes that a record's batch can never be applied.
    pub(super) fn refuse(&self, hand: &mut Hand, index: usize, reason: Reason) {
        let Some(record) = hand.records.get(index) else { return };
        let draft = self.drafts.batches.iter().find(|draft| draft.index == index);
        let batch = draft.map(|draft| Box::new(named(draft)));
        hand.refused.insert(place(record), Refused { reason, batch });
    }

    /// Learns what became of a COMMIT without an answer.
    pub(super) async fn settle(
        &mut self,
        advances: Vec<Advance>,
        error: &StoreError,
    ) -> Result<Committed, Step> {
        tracing::warn!(%error, shard = %self.id.shard, "COMMIT was not answered: asking positions");
        let (limit, server) = (self.statement_timeout(), self.server.clone());
        self.link = None;
        #[cfg(feature = "mutants")]
        if crate::mutant::is(crate::mutant::Mutant::SettleAsApplied) {
            return Ok(Committed::pretended(advances));
        }
        let outcome = loop {
            self.pulse.beat();
            if self.is_out_of_time() {
                break Err(("abandoned", Step::OutOfTime));
            }
            if self.connect().await {
                if self.server != server {
                    break Err(("other-server", Step::GiveUp));
                }
                let Some(link) = &mut self.link else { continue };
                match settle(&mut link.session, limit, advances.clone()).await {
                    Ok(Settled::Applied(committed)) => break Ok(committed),
                    Ok(Settled::NotApplied) => {
                        break Err(("not-applied", Step::Again(Duration::ZERO)));
                    }
                    Ok(Settled::Fenced) => break Err(("fenced", Step::GiveUp)),
                    Err(error) => {
                        self.note_trouble(&error, classify(&error));
                        self.link = None;
                    }
                }
            }
            let pause = self.pause.next_delay();
            self.pause_for(pause).await;
            self.follow();
        };
        let word = outcome.as_ref().err().map_or("applied", |(word, _)| word);
        tracing::info!(outcome = word, shard = %self.id.shard, "the unanswered COMMIT is settled");
        self.shared.metrics.unknown_commits.get_or_create(&Outcome { outcome: word }).inc();
        outcome.map_err(|(_, step)| step)
    }

    /// Sleeps, but not through the beginning of a stop, a new assignment or a new address.
    pub(super) async fn pause_for(&mut self, pause: Duration) {
        let stopping = self.shared.shutdown.requested();
        let shared = &mut self.shared;
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            _ = shared.assignment.changed() => {}
            _ = shared.shards.changed() => {}
            () = shared.shutdown.wait(), if !stopping => {}
        }
    }

    /// At a stop a shard that is away is not waited for; the others have until shortly before the
    /// end of the drain.
    pub(super) fn is_out_of_time(&self) -> bool {
        let shutdown = &self.shared.shutdown;
        let late = Instant::now() + DRAIN_MARGIN >= shutdown.drain_until();
        shutdown.requested() && (self.link.is_none() || late)
    }
}

fn named(draft: &Draft) -> Named {
    Named {
        id: draft.id,
        environment: draft.environment.clone(),
        host: draft.host.clone(),
        points: u64::from(draft.points) + u64::from(draft.expired),
        window_ts: draft.window_ts,
    }
}
