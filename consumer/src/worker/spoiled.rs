//! What the mutants of a worker do instead ([`crate::mutant`]).

use super::Worker;
use super::apply::{Hand, Step, now_ms};
use crate::claim::Claimed;
use crate::commit::{CommitError, commit, commit_claim};
use crate::mutant::{Mutant, is, turn};
use crate::receive::Record;
use crate::store::statement::{Sql, run};

impl Worker {
    pub(super) fn spoil_drafts(&mut self, records: &[Record]) {
        let samples = &mut self.drafts.samples;
        let unlike = samples.windows(2).position(|pair| match pair {
            [(_, first), (_, second)] => first.to_bits() != second.to_bits(),
            _ => false,
        });
        if let Some(at) = unlike
            && turn(Mutant::SwapTwoValues, 20)
            && let Some([(_, first), (_, second)]) = samples.get_mut(at..at + 2)
        {
            std::mem::swap(first, second);
        }
        if is(Mutant::TrustCacheAfterUnknown) {
            for batch in &self.drafts.batches {
                let Some(record) = records.get(batch.index) else { continue };
                let Some(held) = self.partitions.get_mut(record.partition) else { continue };
                for row in self.drafts.rows.get(batch.rows.clone()).unwrap_or_default() {
                    held.known.seen(row.series_id, 1, u32::MAX);
                }
            }
        }
    }

    pub(super) async fn offsets_before_rows(&mut self, hand: &mut Hand) -> Step {
        let limit = self.statement_timeout();
        let advances = self.partitions.advances(&hand.records);
        let Some(link) = &mut self.link else { return Step::Again(std::time::Duration::ZERO) };
        if let Err(error) = run(&mut link.session, limit, &Sql::new("START TRANSACTION")).await {
            return self.failed(hand, &error).await;
        }
        let committed = match commit(&mut link.session, limit, advances, now_ms()).await {
            Ok(committed) => committed,
            Err(CommitError::Fenced) => return self.fenced().await,
            Err(CommitError::Failed(error) | CommitError::Unknown(error)) => {
                return self.failed(hand, &error).await;
            }
        };
        let written = match self.write(hand).await {
            Ok(written) => written,
            Err(error) => return self.failed(hand, &error).await,
        };
        let Some(link) = &mut self.link else { return Step::Again(std::time::Duration::ZERO) };
        if let Err(error) = commit_claim(&mut link.session, limit).await {
            return self.failed(hand, &error).await;
        }
        self.finish(hand, &written, &committed);
        Step::Committed
    }

    /// Where to read from: the group's offsets in place of the shard's, where the group has any.
    pub(super) async fn spoiled_from(&self, claimed: &Claimed, from: [i64; 2]) -> [i64; 2] {
        if !is(Mutant::GroupOffsetOnStart) {
            return from;
        }
        self.shared.log_ends.group_offsets(claimed.partition, claimed.next).await
    }
}
