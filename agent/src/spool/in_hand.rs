//! A batch in hand is a duty, not a value: it must end acked, parked, given up or returned.
//!
//! Dropping one is a bug of the taker. It is counted, stops a debug build, and the batch goes
//! back into the spool all the same.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use spillway_proto::BatchId;

use super::index::Serial;
use super::take::{Ending, TakenBatch};
use super::thread::Shared;
use crate::metrics::Reason;

/// A batch taken from the spool.
#[must_use]
pub struct InHand {
    batch: TakenBatch,
    shared: Arc<Shared>,
    duty: Duty,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Duty {
    /// On its way to the taker.
    Unarmed,
    Armed,
    Done,
}

impl InHand {
    pub(super) fn new(shared: &Arc<Shared>, batch: TakenBatch) -> Self {
        shared.metrics.batches_in_flight.inc();
        shared.metrics.points_in_flight.inc_by(i64::from(batch.points));
        Self { batch, shared: Arc::clone(shared), duty: Duty::Unarmed }
    }

    pub(super) fn arm(mut self) -> Self {
        self.duty = Duty::Armed;
        self
    }

    pub(super) fn serial(&self) -> Serial {
        self.batch.serial
    }

    pub fn id(&self) -> BatchId {
        self.batch.id
    }

    /// Start of its window, s.
    pub fn window_ts(&self) -> u32 {
        self.batch.window_ts
    }

    pub fn points(&self) -> u64 {
        u64::from(self.batch.points)
    }

    pub fn frame(&self) -> &Bytes {
        &self.batch.frame
    }

    /// Whether a crash would lose it.
    pub fn volatile(&self) -> bool {
        self.batch.volatile
    }

    /// The API has it.
    pub fn acked(self) {
        self.shared.metrics.batches_acked.inc();
        self.shared.metrics.points_acked.inc_by(self.points());
        self.end(Ending::Gone);
    }

    /// S3 has it, and that is noted.
    pub(super) fn parked(self) {
        self.shared.metrics.batches_parked.inc();
        self.shared.metrics.points_parked.inc_by(self.points());
        self.end(Ending::Gone);
    }

    /// It lies in quarantine, or the custody log says that it will never come.
    pub fn moved_out(self) {
        self.end(Ending::Gone);
    }

    /// It waits on.
    pub fn returned(self) {
        self.end(Ending::Returned { after_ms: 0 });
    }

    /// It waits on, and is not taken again before `after` has passed.
    pub fn returned_for(self, after: Duration) {
        let after_ms = i64::try_from(after.as_millis()).unwrap_or(i64::MAX);
        self.end(Ending::Returned { after_ms });
    }

    fn end(mut self, ending: Ending) {
        self.duty = Duty::Done;
        let serial = self.batch.serial;
        self.shared.put(|inbox| inbox.settled.push((serial, ending)));
    }
}

impl Drop for InHand {
    fn drop(&mut self) {
        self.shared.metrics.batches_in_flight.dec();
        self.shared.metrics.points_in_flight.dec_by(i64::from(self.batch.points));
        if self.duty == Duty::Done {
            return;
        }
        let returned = (self.batch.serial, Ending::Returned { after_ms: 0 });
        self.shared.put(|inbox| inbox.settled.push(returned));
        if self.duty == Duty::Armed {
            let reason = Reason { reason: "dropped-in-hand" };
            self.shared.metrics.spool_errors.get_or_create(&reason).inc();
            tracing::error!(id = %self.batch.id, "a batch in hand was dropped; it goes back");
            debug_assert!(std::thread::panicking(), "a batch in hand was dropped");
        }
    }
}
