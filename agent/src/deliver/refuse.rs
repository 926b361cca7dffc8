//! What becomes of a batch whose content was refused: quarantine, one more try, declaration.

use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;

use spillway_proto::kafka_record::Lane;
use spillway_proto::verdict::{Outcome, RejectedBatch};
use spillway_runtime::outside;

use super::carry::{Carrier, lock, ms};
use super::ingest_api::Refused;
use super::quarantine::{Note, Quarantine, RefusedBatch};
use super::route::State;
use super::status::now_ms;
use crate::spool::InHand;

/// A batch that quarantine could not take (its disk failed) is tried again after this.
const NO_QUARANTINE_PAUSE: Duration = Duration::from_secs(600);

impl Carrier {
    pub async fn to_quarantine(&self, batch: InHand, why: RejectedBatch) {
        let (id, refusal) = (batch.id(), why.refusal);
        tracing::error!(%id, refusal = refusal.as_str(), error = why.error, "a batch is refused");
        let points = batch.points();
        let refused =
            RefusedBatch { id, points, frame: batch.frame().clone(), refusal, error: why.error };
        let put = self.with_quarantine(move |quarantine| quarantine.put(refused, now_ms())).await;
        match put {
            Some(Ok(())) => {
                self.parts.metrics.batches_quarantined.inc();
                self.parts.metrics.points_quarantined.inc_by(points);
                batch.moved_out();
            }
            Some(Err(error)) => {
                tracing::error!(%error, "quarantine can't take a batch; it stays in the spool");
                batch.returned_for(NO_QUARANTINE_PAUSE);
            }
            None => batch.returned_for(NO_QUARANTINE_PAUSE),
        }
    }

    /// Works with the quarantine on a thread that may block; `None` after a panic there.
    async fn with_quarantine<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Quarantine) -> T + Send + 'static,
    ) -> Option<T> {
        let quarantine = Arc::clone(&self.quarantine);
        outside::blocking(move || work(&mut lock(&quarantine))).await.ok()
    }

    /// Tries the oldest batch in quarantine once more, if it is due and the API works.
    pub async fn second_try(&self) {
        if self.route().state() != State::Direct || self.route().attempts() > 0 {
            return;
        }
        let after_ms = ms(self.parts.settings.deliver.quarantine_retry.get());
        let due = self.with_quarantine(move |quarantine| {
            quarantine.look();
            let note = quarantine.due(now_ms(), after_ms)?;
            let frame = quarantine.frame(&note);
            Some((note, frame))
        });
        let Some((note, frame)) = due.await.flatten() else { return };
        let frame = match frame {
            Ok(frame) => frame,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                tracing::error!(id = %note.id(), "a batch in quarantine is gone");
                return self.declare(note).await;
            }
            // The disk says nothing of the batch: it is read again later.
            Err(error) => {
                tracing::warn!(id = %note.id(), %error, "a batch in quarantine can't be read");
                return;
            }
        };
        let told = self.api.send(Lane::Backlog, std::slice::from_ref(&frame), 0).await;
        self.note_request(&told, &[frame]);
        let refused_again = match told.outcome {
            Outcome::Done => !told.rejected.is_empty(),
            Outcome::Refused(Refused::Content { .. }) => true,
            _ => return,
        };
        if refused_again {
            return self.declare(note).await;
        }
        self.parts.metrics.batches_acked.inc();
        self.parts.metrics.points_acked.inc_by(note.points);
        let log = Arc::clone(&self.parts.log);
        let settled = move |quarantine: &mut Quarantine| {
            log.accepted(&note.id());
            quarantine.accepted(&note);
        };
        self.with_quarantine(settled).await.unwrap_or_default();
    }

    async fn declare(&self, note: Note) {
        tracing::error!(id = %note.id(), "a batch was refused twice: it is declared");
        self.with_quarantine(move |quarantine| quarantine.declare(&note)).await.unwrap_or_default();
    }
}
