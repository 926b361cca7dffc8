//! Who this agent is, and what it owes an account of: the reason why a loss is seen and named.
//!
//! - `agent_id` is made once and kept in the state directory.
//! - An **epoch** begins at every start, and whenever wall clock and boot clock part ways (a
//!   resumed snapshot would otherwise count on where another copy of it counts too). It belongs
//!   to one environment and one host.
//! - **seq** counts 1, 2, 3 …; it is given when its batch goes into the spool, and never again.
//!   The last one is noted durably before that batch may leave the machine.
//! - The epochs before this one with their last seq, and what the agent gave up, are carried by
//!   every batch until a carrier was accepted, over restarts too.
//!
//! State directory: `agent_id` (text), `books` ([`state`]), `last_seq` ([`last_seq`]), `lock`. What
//! is written again and again has its space beforehand, so that it can be on a full disk.

use std::collections::BTreeMap;
use std::fs::{File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use spillway_proto::{BatchId, Declaration, PreviousEpoch};
use spillway_runtime::outside;
use tracing::{error, info, warn};
use uuid::Uuid;

use crate::durable;
use crate::folder::{Folder, RealFolder};
use crate::metrics::{Metrics, Reason};
use crate::mutant::{Mutant, is};

mod custody;

mod state;

mod last_seq;

mod slots;

pub use custody::{CustodyLog, GivenUp, GivenUpReason};
use last_seq::LastSeq;
use slots::Slots;
pub use state::Losses;
use state::State;

/// Wall and boot clock may drift apart by this much between two looks (10 s) before the agent
/// takes itself for a resumed copy. NTP slews at most 5 ms in that time; a step of a few seconds
/// on a badly kept host must not make an epoch each time.
pub const CLOCKS_APART_MS_MAX: i64 = 30_000;
/// Declarations one batch carries: with 40 bytes each they stay small beside its points.
const DECLARATIONS_CARRIED_MAX: usize = 64;
/// The state directory is the agent's alone.
const DIR_MODE: u32 = 0o700;
const _: () = assert!(DECLARATIONS_CARRIED_MAX <= spillway_proto::limits::BATCH_DECLARATIONS_MAX);

/// Why the identity can't be had.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    #[error("the state directory {dir} can't be used: {cause}")]
    Directory { dir: PathBuf, cause: std::io::Error },
    #[error("another agent runs with the state directory {dir}")]
    Locked { dir: PathBuf },
}

/// To what an epoch belongs.
#[derive(Clone, Debug, Eq, PartialEq, serde::Deserialize, serde::Serialize)]
pub struct Binding {
    pub environment: String,
    pub host: String,
}

/// What a batch must carry besides its points. Looking at it gives nothing away.
#[derive(Clone, Debug, PartialEq)]
pub struct Ticket {
    pub id: BatchId,
    pub previous: Option<PreviousEpoch>,
    pub declarations: Vec<Declaration>,
    seq: u64,
}

/// The agent's identity and its books.
pub struct Identity {
    binding: Binding,
    agent_id: Uuid,
    metrics: Metrics,
    inner: Mutex<Inner>,
    /// Held as long as the agent lives.
    _lock: Option<File>,
}

struct Inner {
    state: State,
    books: Slots,
    note: LastSeq,
    epoch: Uuid,
    next_seq: u64,
    /// `state` is not what lies on disk: a write of it failed.
    unsaved: bool,
    /// Wall minus boot clock at the last look.
    clocks_apart_ms: Option<i64>,
}

impl Identity {
    /// Opens the state directory (made if missing) and begins an epoch. `seen` is the highest seq
    /// per epoch that the spool holds: an agent that crashed after storing a batch and before
    /// noting its seq learns it from there.
    ///
    /// # Errors
    /// The directory can't be written, or another agent uses it.
    pub fn open(
        dir: &Path,
        binding: Binding,
        seen: &BTreeMap<Uuid, u64>,
        metrics: Metrics,
    ) -> Result<Self, IdentityError> {
        let unusable = |cause| IdentityError::Directory { dir: dir.to_owned(), cause };
        durable::make_dir(dir, DIR_MODE).map_err(unusable)?;
        let lock = File::create(dir.join("lock")).map_err(unusable)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(IdentityError::Locked { dir: dir.to_owned() });
            }
            Err(TryLockError::Error(cause)) => return Err(unusable(cause)),
        }
        let folder = Arc::new(RealFolder::new(dir));
        let begun = Self::begin(folder, binding, seen, metrics).map_err(unusable)?;
        Ok(Self { _lock: Some(lock), ..begun })
    }

    /// The same, in a folder that is this agent's alone.
    ///
    /// # Errors
    /// The folder can't be read or written.
    pub fn begin(
        folder: Arc<dyn Folder>,
        binding: Binding,
        seen: &BTreeMap<Uuid, u64>,
        metrics: Metrics,
    ) -> io::Result<Self> {
        let (agent_id, new) = state::agent_id(&*folder)?;
        // What another identity owed is not this one's to tell.
        let (mut books, content) = Slots::open(Arc::clone(&folder), state::BOOKS)?;
        let mut state = State::read(content.as_deref().filter(|_| !new));
        let mut note = LastSeq::open(folder)?;
        if let Some(epoch) = state.newest() {
            let stored = seen.get(&epoch).copied().unwrap_or(0);
            state.end_newest(note.last_of(epoch).max(stored));
        }
        let epoch = match state.newest() {
            Some(newest) if is(Mutant::ReuseSeq) => newest,
            _ => outside::uuid_v7(),
        };
        state.begin(epoch, &binding);
        state.save(&mut books)?;
        note.write(epoch, 0)?;
        metrics.epochs.get_or_create(&Reason { reason: "start" }).inc();
        info!(%agent_id, %epoch, "an epoch begins");
        let (next_seq, unsaved, clocks_apart_ms) = (1, false, None);
        let inner = Inner { state, books, note, epoch, next_seq, unsaved, clocks_apart_ms };
        Ok(Self { binding, agent_id, metrics, inner: Mutex::new(inner), _lock: None })
    }

    #[must_use]
    pub fn binding(&self) -> &Binding {
        &self.binding
    }

    #[must_use]
    pub fn agent_id(&self) -> Uuid {
        self.agent_id
    }

    /// The current epoch and the last seq it gave.
    #[must_use]
    pub fn position(&self) -> (Uuid, u64) {
        let inner = self.inner();
        (inner.epoch, inner.next_seq - 1)
    }

    /// All that this agent ever gave up, by reason.
    #[must_use]
    pub fn losses_ever(&self) -> BTreeMap<String, Losses> {
        self.inner().state.ever().clone()
    }

    /// Compares the clocks with the last look, and begins an epoch if they parted ways.
    /// Whether it did.
    pub fn look_at_clocks(&self, wall_ms: i64, boot_ms: i64) -> bool {
        let mut inner = self.inner();
        let apart = wall_ms.saturating_sub(boot_ms);
        let moved = inner.clocks_apart_ms.replace(apart).map_or(0, |was| apart.abs_diff(was));
        if moved <= CLOCKS_APART_MS_MAX.unsigned_abs() {
            return false;
        }
        let last = inner.next_seq - 1;
        inner.state.end_newest(last);
        inner.epoch = outside::uuid_v7();
        inner.next_seq = 1;
        let epoch = inner.epoch;
        inner.state.begin(epoch, &self.binding);
        let _owed_in_memory = self.save(&mut inner).is_err();
        self.write_note(&mut inner, 0);
        self.metrics.epochs.get_or_create(&Reason { reason: "clock" }).inc();
        warn!(moved_ms = moved, %epoch, "wall clock and boot clock parted ways: an epoch begins");
        true
    }

    /// What the next batch must carry. Nothing is given until [`Self::give`].
    #[must_use]
    pub fn ticket(&self) -> Ticket {
        let inner = self.inner();
        let id =
            BatchId::Sequenced { agent_id: self.agent_id, epoch: inner.epoch, seq: inner.next_seq };
        let previous = inner.state.previous(&self.binding);
        let declarations = inner.state.declarations(&self.binding, DECLARATIONS_CARRIED_MAX);
        Ticket { id, previous, declarations, seq: inner.next_seq }
    }

    /// Gives the ticket's seq away: call it when the batch goes to the spool, whatever comes of
    /// that. A seq that was given once is never given again.
    pub fn give(&self, ticket: &Ticket) {
        let mut inner = self.inner();
        assert_eq!(inner.next_seq, ticket.seq, "one task gives seqs, in order");
        inner.next_seq += 1;
        inner.state.carried(ticket);
    }

    /// Notes the ticket's seq as given, durably. To be called once its batch is stored and before
    /// anybody may send it. A failure is counted and not fatal: the spool knows the seq as well.
    pub fn note(&self, ticket: &Ticket) {
        let mut inner = self.inner();
        if inner.unsaved {
            // The disk may be well again, and what is owed must outlive this process.
            let _still_in_memory = self.save(&mut inner).is_err();
        }
        self.write_note(&mut inner, ticket.seq);
    }

    /// What could not be saved is saved with the next batch.
    fn save(&self, inner: &mut Inner) -> io::Result<()> {
        let saved = inner.state.save(&mut inner.books);
        inner.unsaved = saved.is_err();
        self.counted(saved)
    }

    /// As long as the state on disk does not know the epoch, the last seq of the one before must
    /// not be written over.
    fn write_note(&self, inner: &mut Inner, seq: u64) {
        if inner.state.newest_saved() == Some(inner.epoch) {
            let noted = inner.note.write(inner.epoch, seq);
            let _counted = self.counted(noted).is_err();
        }
    }

    fn counted(&self, written: io::Result<()>) -> io::Result<()> {
        if let Err(cause) = &written {
            self.metrics.state_errors.inc();
            error!(%cause, "the state directory can't be written; what is owed stays in memory");
        }
        written
    }

    fn tell(&self, given_up: &GivenUp) {
        let reason = given_up.reason.as_str();
        let label = Reason { reason };
        let GivenUp { epoch, first_seq, last_seq, points, .. } = *given_up;
        warn!(%epoch, first_seq, last_seq, points, reason, "batches are given up");
        let batches = last_seq.saturating_sub(first_seq).saturating_add(1);
        self.metrics.batches_declared.get_or_create(&label).inc_by(batches);
        self.metrics.points_declared.get_or_create(&label).inc_by(points);
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        // Every change under the lock is whole before anything that could panic.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl CustodyLog for Identity {
    fn accepted(&self, id: &BatchId) {
        let BatchId::Sequenced { agent_id, epoch, seq } = *id else { return };
        let mut inner = self.inner();
        if agent_id != self.agent_id || epoch != inner.epoch {
            return;
        }
        if inner.state.arrived(seq) {
            // Unsaved, it is told once more after a restart.
            let _told_again = self.save(&mut inner).is_err();
        }
    }

    fn given_up(&self, given_up: &GivenUp) -> io::Result<()> {
        let mut inner = self.inner();
        let before = inner.state.clone();
        let is_new = inner.state.declare(given_up);
        if is_new || inner.unsaved {
            let unsaved = inner.unsaved;
            if let Err(cause) = self.save(&mut inner) {
                (inner.state, inner.unsaved) = (before, unsaved);
                return Err(cause);
            }
        }
        if is_new {
            self.tell(given_up);
        }
        Ok(())
    }

    fn gone(&self, given_up: &GivenUp) {
        let mut inner = self.inner();
        if inner.state.declare(given_up) {
            let _owed_in_memory = self.save(&mut inner).is_err();
            self.tell(given_up);
        }
    }
}

#[cfg(test)]
#[path = "identity/tests.rs"]
mod tests;

#[cfg(test)]
#[path = "identity/crash_points_tests.rs"]
mod crash_points_tests;
