//! The thread that owns the store, and its inbox.
//!
//! A disk may block for seconds, so no async task ever touches it. Whatever has gathered in the
//! inbox while the last sync ran is the next group: that is the whole of group commit. The inbox
//! is a mutex and a condition variable, checked under the lock, so no wake-up can be lost; what
//! is in it is bounded by permits, and settlements by what was taken.

use std::fs::File;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use spillway_proto::BatchId;
use spillway_proto::object_key::ObjectKey;
use spillway_runtime::outside;
use tokio::sync::{Semaphore, SemaphorePermit, oneshot, watch};
use tokio::time::Instant;

use super::board::Board;
use super::disk::Disk;
use super::index::Serial;
use super::store::Store;
use super::take::{Ending, Wish};
use super::write::{Incoming, Stored};
use super::{InHand, Refused, SpoolTotals};
use crate::identity::CustodyLog;
use crate::metrics::Metrics;

/// Requests that may wait for the thread at once; more wait in line for a permit.
const WAITING_MAX: usize = 64;
/// How often the store's own duties are done.
pub const TICK: Duration = Duration::from_secs(1);

pub struct Append {
    pub incoming: Incoming,
    pub log: Arc<dyn CustodyLog>,
    /// Whose receiver is gone leaves the last word on a refusal to the thread.
    pub reply: oneshot::Sender<Result<Stored, Refused>>,
}

pub struct Take {
    pub wish: Wish,
    pub log: Arc<dyn CustodyLog>,
    pub reply: oneshot::Sender<Vec<InHand>>,
}

/// "S3 has these": answered `true` once that is durable.
pub struct Note {
    pub key: ObjectKey,
    pub serials: Vec<Serial>,
    pub log: Arc<dyn CustodyLog>,
    pub reply: oneshot::Sender<bool>,
}

#[derive(Default)]
pub struct Inbox {
    pub appends: Vec<Append>,
    pub takes: Vec<Take>,
    pub notes: Vec<Note>,
    pub settled: Vec<(Serial, Ending)>,
    /// "This process ends": what only memory holds then is given up in these books.
    pub leave: Option<Arc<dyn CustodyLog>>,
    /// Answered once all that was put in before is done and counted.
    pub barriers: Vec<oneshot::Sender<()>>,
    poked: bool,
    closed: bool,
}

impl Inbox {
    /// Everything in it; that it is closed stays.
    fn take(&mut self) -> Self {
        let closed = self.closed;
        let work = std::mem::take(self);
        self.closed = closed;
        work
    }

    fn is_empty(&self) -> bool {
        self.appends.is_empty()
            && self.takes.is_empty()
            && self.notes.is_empty()
            && self.settled.is_empty()
            && self.leave.is_none()
            && self.barriers.is_empty()
            && !self.poked
            && !self.closed
    }
}

/// What handles and thread share.
pub struct Shared {
    inbox: Mutex<Inbox>,
    wake: Condvar,
    #[cfg(feature = "simulation")]
    pub told: tokio::sync::Notify,
    permits: Semaphore,
    pub board: Arc<Board>,
    pub ended: watch::Sender<bool>,
    pub metrics: Metrics,
}

impl Shared {
    pub fn new(totals: SpoolTotals, metrics: Metrics) -> Self {
        Self {
            inbox: Mutex::default(),
            wake: Condvar::new(),
            permits: Semaphore::new(WAITING_MAX),
            board: Board::new(totals),
            #[cfg(feature = "simulation")]
            told: tokio::sync::Notify::new(),
            ended: watch::Sender::new(false),
            metrics,
        }
    }

    /// A place in the inbox; `None` once the spool is closed.
    pub async fn room(&self) -> Option<SemaphorePermit<'_>> {
        self.permits.acquire().await.ok()
    }

    pub fn put(&self, put: impl FnOnce(&mut Inbox)) {
        put(&mut self.lock());
        self.wake.notify_one();
        #[cfg(feature = "simulation")]
        self.told.notify_one();
    }

    /// Takes back an append that the thread has not begun. `false`: it has, and nobody but the
    /// thread can say what becomes of it.
    pub fn withdraw(&self, id: &BatchId) -> bool {
        let mut inbox = self.lock();
        let before = inbox.appends.len();
        inbox.appends.retain(|append| append.incoming.id() != *id);
        inbox.appends.len() < before
    }

    /// Makes the thread look at the gates again and tell whoever waits for changes.
    pub fn poke(&self) {
        self.put(|inbox| inbox.poked = true);
    }

    pub fn close(&self) {
        self.permits.close();
        self.put(|inbox| inbox.closed = true);
    }

    fn lock(&self) -> MutexGuard<'_, Inbox> {
        // The inbox is only ever pushed to or taken whole: a panic elsewhere leaves it sound.
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for work, at most until the next tick.
    fn next(&self) -> Inbox {
        let waited = self.wake.wait_timeout_while(self.lock(), TICK, |inbox| inbox.is_empty());
        let (mut inbox, _) = waited.unwrap_or_else(PoisonError::into_inner);
        inbox.take()
    }

    /// What there is to do at this moment.
    #[cfg(feature = "simulation")]
    pub fn work(&self) -> Inbox {
        self.lock().take()
    }
}

/// Closes the spool when the last handle goes.
pub struct CloseOnDrop(pub Arc<Shared>);

impl Drop for CloseOnDrop {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// The spool's clock: the wall clock as it was at the start, and monotonic from there, so that a
/// clock that jumps neither ages a batch nor makes it young.
pub struct Clock {
    wall_ms: i64,
    started: Instant,
}

impl Clock {
    pub fn start() -> Self {
        Self { wall_ms: outside::wall_ms(), started: Instant::now() }
    }

    pub fn now_ms(&self) -> i64 {
        let elapsed = i64::try_from(self.started.elapsed().as_millis()).unwrap_or(i64::MAX);
        self.wall_ms.saturating_add(elapsed)
    }
}

/// Starts the thread; it holds `lock` until it ends.
pub fn start<D: Disk>(
    store: Store<D>,
    clock: Clock,
    shared: Arc<Shared>,
    lock: Option<File>,
) -> io::Result<()>
where
    Store<D>: Send,
{
    let thread = std::thread::Builder::new().name("spool".to_owned());
    thread.spawn(move || {
        Keeper::new(store, clock, Arc::clone(&shared)).run();
        drop(lock);
        shared.ended.send_replace(true);
    })?;
    Ok(())
}

/// Who works on the store: alone, and on nothing else.
pub struct Keeper<D: Disk> {
    store: Store<D>,
    clock: Clock,
    pub shared: Arc<Shared>,
    /// The books, once somebody has brought them.
    log: Option<Arc<dyn CustodyLog>>,
    ticked_ms: i64,
}

impl<D: Disk> Keeper<D> {
    pub fn new(store: Store<D>, clock: Clock, shared: Arc<Shared>) -> Self {
        Self { store, clock, shared, log: None, ticked_ms: 0 }
    }

    fn run(mut self) {
        loop {
            let work = self.shared.next();
            if self.turn(work) {
                return self.store.close();
            }
        }
    }

    /// Does what there is to do. Whether the spool is closed.
    pub fn turn(&mut self, work: Inbox) -> bool {
        let (closed, idle) = (work.closed, work.is_empty());
        let news = work.poked || !work.settled.is_empty() || !work.appends.is_empty();
        let now_ms = self.clock.now_ms();
        self.store.now_ms = now_ms;
        for (serial, ending) in work.settled {
            self.store.settle(serial, ending);
        }
        self.append(work.appends);
        for note in work.notes {
            self.note(note);
        }
        for take in work.takes {
            self.take(take);
        }
        let due = now_ms - self.ticked_ms >= TICK.as_millis() as i64;
        if due {
            self.store.tick(now_ms, self.log.as_ref());
            self.ticked_ms = now_ms;
        }
        if due || !idle {
            self.publish(due || news);
        }
        if let Some(log) = work.leave {
            self.store.give_up_memory(&log);
        }
        for barrier in work.barriers {
            let _nobody = barrier.send(()).is_err();
        }
        closed
    }

    /// Puts what was noted in place where it survives a power cut as well.
    #[cfg(feature = "simulation")]
    pub fn close(self) {
        self.store.close();
    }

    fn append(&mut self, appends: Vec<Append>) {
        let Some(first) = appends.first() else { return };
        let log = Arc::clone(&first.log);
        self.log = Some(Arc::clone(&log));
        let mut replies = Vec::with_capacity(appends.len());
        let mut group = Vec::with_capacity(appends.len());
        for append in appends {
            replies.push(append.reply);
            group.push(append.incoming);
        }
        let stored = self.store.append(group, &log);
        // Before anybody is answered: who asks afterwards sees his batch counted.
        self.publish(true);
        for (reply, stored) in replies.into_iter().zip(stored) {
            // Nobody waits any more, and what nobody heard of nobody declares.
            if let Err(Err(refused)) = reply.send(stored) {
                tracing::error!(cause = %refused.cause, "a batch can't be kept, as is known late");
                refused.given_up().iter().for_each(|lost| log.gone(lost));
            }
        }
    }

    fn note(&mut self, note: Note) {
        let noted = self.store.note_parked(&note.key, &note.serials, &note.log);
        if let Err(error) = &noted {
            tracing::warn!(%error, key = %note.key, "can't note what is in S3, so it stays here");
        }
        let _nobody = note.reply.send(noted.is_ok()).is_err();
    }

    fn take(&mut self, take: Take) {
        self.log = Some(Arc::clone(&take.log));
        let taken = self.store.take(take.wish, &take.log);
        let lot = taken.into_iter().map(|batch| InHand::new(&self.shared, batch)).collect();
        // Nobody waits any more: unarmed batches go back by themselves.
        let _nobody = take.reply.send(lot).is_err();
    }

    /// Makes the totals known. Only `news` wakes those who wait for something to do: if asking
    /// were news, two lanes that find nothing would wake each other for ever.
    fn publish(&self, news: bool) {
        let totals = self.store.totals();
        let metrics = &self.shared.metrics;
        let gauge = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        metrics.spool_batches.set(gauge(totals.batches));
        metrics.spool_points.set(gauge(totals.points));
        metrics.spool_bytes.set(gauge(totals.bytes));
        metrics.spool_backlog_batches.set(gauge(totals.backlog_batches));
        metrics.oldest_in_spool_seconds.set(totals.oldest_age_ms as f64 / 1_000.0);
        self.shared.board.post(totals, news);
    }
}
