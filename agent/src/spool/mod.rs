//! The spool: where a batch is safe until somebody else has it.
//!
//! ```text
//! spool/lock                                    held while an agent runs
//! spool/segment-<number>-<salt>.spool           preallocated; records one after the other
//!   [header|crc|state][payload=frame] [header|crc|state][payload] … zeros
//! ```
//!
//! Promises, each with the file that keeps it:
//! - `append` answers when the batch is durable: its record, its file and its directory are
//!   synced, together with whatever else waited (`write.rs`).
//! - After a failed write or sync a segment is never written again; what was not durable goes into
//!   another one, else into bounded memory, and is called volatile (`write.rs`).
//! - It never takes more than its cap, and leaves the file system its floor; backlog leaves room
//!   for live data (`budget.rs`).
//! - A damaged record costs that record and is named if it can be; the spool always opens
//!   (`recovery.rs`).
//! - What is given up is in the custody log before its bytes go (`store.rs`).
//! - A batch taken out comes back unless its taker says what became of it (`in_hand.rs`).
//!
//! One thread owns everything; handles put work into its inbox (`thread.rs`).

use std::collections::{BTreeMap, HashSet};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::Serialize;
use spillway_proto::BatchId;
use spillway_proto::object_key::ObjectKey;
use spillway_runtime::deadline::within;
use tokio::sync::oneshot;
use uuid::Uuid;

use crate::durable;
use crate::identity::{CustodyLog, GivenUp, GivenUpReason};
use crate::metrics::Metrics;
use crate::settings::{Settings, SpoolKind};

mod disk;
mod record;
mod segment;
mod recovery;
mod reread;
mod budget;
mod index;
mod store;
mod write;
mod take;
mod board;
mod thread;
mod in_hand;
#[cfg(feature = "simulation")]
mod simulated;

#[cfg(test)]
pub(crate) mod test_books;
#[cfg(test)]
pub(crate) mod disk_fake;
#[cfg(test)]
mod store_tests;
#[cfg(test)]
mod damage_tests;
#[cfg(test)]
mod model_tests;
#[cfg(test)]
mod crash_points_tests;
#[cfg(test)]
mod spool_tests;

pub use self::board::Changes;
pub use self::disk::{Disk, DiskFile};
pub use self::in_hand::InHand;
#[cfg(feature = "simulation")]
pub use self::simulated::SpoolTask;
pub use self::take::Wish;

use self::budget::Budget;
use self::disk::RealDisk;
use self::index::Gate;
use self::store::{Limits, Store};
use self::thread::{Append, Note, Shared, Take};
use self::write::Incoming;

/// What `kind = "memory"` may take at most.
const MEMORY_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// What a disk spool keeps in memory at most while its disk does not take batches.
const OVERFLOW_BYTES_MAX: u64 = 8 * 1024 * 1024;
/// A disk that has not answered after this is taken for broken. A batch that it has not been asked
/// for is refused; one that it is busy with is nobody's loss until the thread has said so.
const APPEND_DEADLINE: Duration = Duration::from_secs(30);
/// How long taking, noting and closing may wait for the disk.
const TAKE_DEADLINE: Duration = Duration::from_secs(30);
const CLOSE_DEADLINE: Duration = Duration::from_secs(5);
/// The spool's directory is the agent's alone.
const DIR_MODE: u32 = 0o700;
const LOCK_FILE: &str = "lock";

/// A handle on the spool; all clones are one spool.
#[derive(Clone)]
pub struct Spool {
    shared: Arc<Shared>,
    /// The thread ends when the last handle is gone.
    _open: Arc<thread::CloseOnDrop>,
}

/// What opening gives.
pub struct Opened {
    pub spool: Spool,
    pub found: Found,
}

/// What recovery saw.
#[derive(Debug)]
pub struct Found {
    pub batches: u64,
    /// The highest seq of each epoch that is in the spool.
    pub highest_seq: BTreeMap<Uuid, u64>,
    /// Damaged records whose id is known, for the custody log.
    pub damaged: Vec<GivenUp>,
}

/// Why the spool can't be opened. What its files hold is never a reason.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("the spool's directory {dir} can't be used")]
    Directory { dir: PathBuf, source: io::Error },
    #[error("another agent uses the spool in {dir}")]
    InUse { dir: PathBuf },
    #[error("the spool's thread can't be started")]
    Thread(#[source] io::Error),
}

/// A batch to be kept.
#[derive(Clone, Debug)]
pub struct NewRecord {
    pub id: BatchId,
    /// Start of its window, s.
    pub window_ts: i64,
    pub points: u64,
    pub frame: Bytes,
}

/// Refusal returns the batch.
#[derive(Debug, thiserror::Error)]
#[error("batch {} was not spooled", record.id)]
pub struct Refused {
    pub record: NewRecord,
    pub reason: GivenUpReason,
    #[source]
    pub cause: RefusalCause,
}

impl Refused {
    /// What the books have to hear; nothing of a batch that has no seq.
    fn given_up(&self) -> Option<GivenUp> {
        let BatchId::Sequenced { epoch, seq, .. } = self.record.id else { return None };
        let (first_seq, last_seq, points) = (seq, seq, self.record.points);
        Some(GivenUp { epoch, first_seq, last_seq, points, reason: self.reason })
    }
}

/// Why neither disk nor memory took a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RefusalCause {
    #[error("it is larger than a frame may be")]
    TooLarge,
    #[error("the spool is full, and of live data alone")]
    Full,
    #[error("the disk failed ({0}) and memory is full")]
    Io(io::ErrorKind),
    #[error("the disk failed a moment ago and memory is full")]
    Resting,
    #[error("the disk does not answer, and was not asked for this one")]
    NoAnswer,
}

/// What is in the spool.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct SpoolTotals {
    pub batches: u64,
    pub points: u64,
    /// Taken on disk (preallocated space included) and in memory.
    pub bytes: u64,
    pub bytes_max: u64,
    pub backlog_batches: u64,
    pub oldest_window_ts: Option<i64>,
    /// Batches that a crash would lose.
    pub volatile_batches: u64,
    /// New batches are kept in memory, though they are meant for the disk.
    pub disk_refuses: bool,
    pub oldest_age_ms: i64,
}

impl SpoolTotals {
    /// How full it is, 0 to 1.
    pub fn fill(&self) -> f64 {
        if self.bytes_max == 0 { 1.0 } else { self.bytes as f64 / self.bytes_max as f64 }
    }
}

/// A stored batch that deliver does not see yet. Dropping it releases it as well: nothing is
/// ever stuck.
#[must_use]
pub struct Held {
    gate: Gate,
    volatile: bool,
    shared: Arc<Shared>,
}

impl Held {
    /// Whether a crash would lose it.
    pub fn volatile(&self) -> bool {
        self.volatile
    }

    /// Deliver may have it.
    pub fn release(self) {}
}

impl Drop for Held {
    fn drop(&mut self) {
        self.gate.open();
        self.shared.poke();
    }
}

impl Spool {
    /// Opens the spool. What is `elsewhere` on this host (in quarantine) waits here no more: its
    /// move was under way when the power went. Blocking: it reads all segments.
    pub fn open(
        settings: &Settings,
        dir: &Path,
        metrics: &Metrics,
        elsewhere: &HashSet<BatchId>,
    ) -> Result<Opened, OpenError> {
        let limits = limits_of(settings);
        let place = match settings.spool.kind {
            SpoolKind::Memory => None,
            SpoolKind::Disk => Some((RealDisk::new(dir), lock(dir)?)),
        };
        Self::start(place, limits, metrics, dir, elsewhere)
    }

    fn start<D: Disk>(
        place: Option<(D, File)>,
        limits: Limits,
        metrics: &Metrics,
        dir: &Path,
        elsewhere: &HashSet<BatchId>,
    ) -> Result<Opened, OpenError> {
        let most = if place.is_some() { limits.budget.bytes_max } else { limits.memory_bytes_max };
        metrics.spool_bytes_max.set(i64::try_from(most).unwrap_or(i64::MAX));
        let (disk, lock) = place.unzip();
        let clock = thread::Clock::start();
        let opened = Store::open(disk, limits, metrics.clone(), clock.now_ms(), elsewhere);
        let unusable = |source| OpenError::Directory { dir: dir.to_owned(), source };
        let (store, found) = opened.map_err(unusable)?;
        let shared = Arc::new(Shared::new(store.totals(), metrics.clone()));
        thread::start(store, clock, Arc::clone(&shared), lock).map_err(OpenError::Thread)?;
        let open = Arc::new(thread::CloseOnDrop(Arc::clone(&shared)));
        Ok(Opened { spool: Self { shared, _open: open }, found })
    }

    /// Keeps a batch. Makes room if it must: the oldest backlog is given up through `log`, never
    /// live data. Answers once the batch is durable, or volatile and marked so. A disk that takes
    /// too long over it leaves it volatile too: should the disk fail in the end, the thread says
    /// so through `log`. So what is refused here is never sent, and what is sent was not declared.
    pub async fn append(
        &self,
        record: NewRecord,
        log: &Arc<dyn CustodyLog>,
    ) -> Result<Held, Refused> {
        let gate = Gate::closed();
        let incoming = Incoming::new(record.clone(), gate.clone())?;
        let points = i64::try_from(record.points).unwrap_or(i64::MAX);
        let mut held = Held { gate, volatile: true, shared: Arc::clone(&self.shared) };
        let (reply, mut answer) = oneshot::channel();
        let mut append = Some(Append { incoming, log: Arc::clone(log), reply });
        let stored = async {
            let _room = self.shared.room().await?;
            self.shared.put(|inbox| inbox.appends.extend(append.take()));
            (&mut answer).await.ok()
        };
        let stored = within(APPEND_DEADLINE, stored).await.ok().flatten();
        // From here on the thread can tell that nobody hears it.
        answer.close();
        match stored.or_else(|| answer.try_recv().ok()) {
            Some(stored) => stored.map(|stored| {
                held.volatile = stored.volatile;
                held
            }),
            None if append.is_none() && !self.shared.withdraw(&record.id) => {
                tracing::error!(id = %record.id, "the disk is busy with a batch and does not end");
                // The thread counts it once it can count anything.
                self.shared.metrics.spool_batches.inc();
                self.shared.metrics.spool_points.inc_by(points);
                Ok(held)
            }
            None => {
                let (reason, cause) = (GivenUpReason::SpoolIo, RefusalCause::NoAnswer);
                Err(Refused { record, reason, cause })
            }
        }
    }

    /// Takes batches in hand; none if there are none, or if the disk does not answer.
    pub async fn take(&self, wish: Wish, log: &Arc<dyn CustodyLog>) -> Vec<InHand> {
        let (reply, answer) = oneshot::channel();
        let take = Take { wish, log: Arc::clone(log), reply };
        let taken = async {
            let _room = self.shared.room().await?;
            self.shared.put(|inbox| inbox.takes.push(take));
            answer.await.ok()
        };
        let lot = within(TAKE_DEADLINE, taken).await.ok().flatten().unwrap_or_default();
        lot.into_iter().map(InHand::arm).collect()
    }

    /// Notes durably that S3 has these batches, and forgets them. Gives them back if the note
    /// could not be written.
    pub async fn parked(
        &self,
        key: &ObjectKey,
        lot: Vec<InHand>,
        log: &Arc<dyn CustodyLog>,
    ) -> Result<(), Vec<InHand>> {
        let (reply, answer) = oneshot::channel();
        let serials = lot.iter().map(InHand::serial).collect();
        let note = Note { key: key.clone(), serials, log: Arc::clone(log), reply };
        let noted = async {
            let _room = self.shared.room().await?;
            self.shared.put(|inbox| inbox.notes.push(note));
            answer.await.ok()
        };
        match within(TAKE_DEADLINE, noted).await {
            Ok(Some(true)) => {
                lot.into_iter().for_each(InHand::parked);
                Ok(())
            }
            Ok(Some(false) | None) | Err(_) => Err(lot),
        }
    }

    /// What is in it at this moment.
    pub fn totals(&self) -> SpoolTotals {
        self.shared.board.totals()
    }

    /// The same, once everything that was said of batches in hand is counted.
    pub async fn settled_totals(&self) -> SpoolTotals {
        let (reply, answer) = oneshot::channel();
        self.shared.put(|inbox| inbox.barriers.push(reply));
        let _late_or_closed = within(TAKE_DEADLINE, answer).await.is_err();
        self.totals()
    }

    /// Wakes whenever something came, went or was given back.
    pub fn changes(&self) -> Changes {
        self.shared.board.subscribe()
    }

    /// Ends the thread and lets go of the directory. What is in memory alone ends as well, and is
    /// given up by name.
    pub async fn close(self, log: &Arc<dyn CustodyLog>) {
        self.shared.put(|inbox| inbox.leave = Some(Arc::clone(log)));
        let mut ended = self.shared.ended.subscribe();
        self.shared.close();
        if within(CLOSE_DEADLINE, ended.wait_for(|ended| *ended)).await.is_err() {
            tracing::error!("the spool's disk does not answer; leaving without it");
        }
    }
}

fn limits_of(settings: &Settings) -> Limits {
    let spool = &settings.spool;
    let ms = |duration: Duration| i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
    let memory_bytes_max = match spool.kind {
        SpoolKind::Memory => spool.bytes_max.get().min(MEMORY_BYTES_MAX),
        SpoolKind::Disk => OVERFLOW_BYTES_MAX,
    };
    Limits {
        budget: Budget {
            bytes_max: spool.bytes_max.get(),
            live_reserve: spool.live_reserve.get(),
            free_floor: spool.free_space_floor.get(),
        },
        segment_bytes: spool.segment_bytes.get(),
        memory_bytes_max,
        backlog_after_ms: ms(settings.deliver.backlog_after.get()),
        age_max_ms: ms(spool.age_max.get()),
    }
}

/// Makes the directory and takes it for this process.
fn lock(dir: &Path) -> Result<File, OpenError> {
    let unusable = |source| OpenError::Directory { dir: dir.to_owned(), source };
    durable::make_dir(dir, DIR_MODE).map_err(unusable)?;
    let file = File::create(dir.join(LOCK_FILE)).map_err(unusable)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(std::fs::TryLockError::WouldBlock) => Err(OpenError::InUse { dir: dir.to_owned() }),
        Err(std::fs::TryLockError::Error(source)) => Err(unusable(source)),
    }
}
