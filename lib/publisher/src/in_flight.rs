//! Records between [`crate::Publisher::publish`] and their delivery report, and those whose
//! report came a moment ago.
//!
//! A caller waits only as long as its own deadline; the record goes on without it. When the same
//! record comes again it finds its first copy here and waits for that one's report instead of
//! being published twice.
//!
//! Bounds: as many flying records as the producer's queue holds, [`SETTLED_RECORDS_MAX`] landed.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use spillway_runtime::deadline;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::outcome::{Hindrance, Outcome};
use crate::record::{Identity, Record};

/// How long an acknowledged record can still be joined: a sender that was told to come again comes
/// within it, its first half dozen attempts long.
pub const JOINABLE_FOR: Duration = Duration::from_mins(5);
/// Acknowledged records that are remembered, some 200 bytes each; beyond it the oldest are
/// forgotten first, which costs a duplicate that the consumer recognises.
pub const SETTLED_RECORDS_MAX: usize = 100_000;

/// One record on its way. librdkafka carries it as the message's opaque and gives it back with
/// the delivery report, so it lives until then even when nobody waits any more.
#[derive(Debug)]
pub(crate) struct Delivery {
    identity: Option<Identity>,
    pub topic: &'static str,
    pub bytes: usize,
    pub queued_at: Instant,
    state: Mutex<State>,
}

#[derive(Debug)]
enum State {
    /// Those who wait. A waiter that gave up leaves a dead reference, swept at the next arrival.
    Flying(Vec<Weak<Countdown>>),
    Landed(Outcome),
}

/// One wake-up for a caller that waits for many records: counts down as their reports come.
#[derive(Debug)]
struct Countdown {
    left: AtomicUsize,
    zero: Notify,
}

impl Countdown {
    fn down(&self) {
        if self.left.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.zero.notify_one();
        }
    }
}

impl Delivery {
    fn outcome(&self) -> Option<Outcome> {
        match &*locked(&self.state) {
            State::Flying(_) => None,
            State::Landed(outcome) => Some(*outcome),
        }
    }

    fn attach(&self, countdown: &Arc<Countdown>) {
        if let State::Flying(waiting) = &mut *locked(&self.state) {
            waiting.retain(|waiter| waiter.strong_count() > 0);
            countdown.left.fetch_add(1, Ordering::AcqRel);
            waiting.push(Arc::downgrade(countdown));
        }
    }

    fn land(&self, outcome: Outcome) {
        let before = std::mem::replace(&mut *locked(&self.state), State::Landed(outcome));
        if let State::Flying(waiting) = before {
            waiting.iter().filter_map(Weak::upgrade).for_each(|waiter| waiter.down());
        }
    }
}

/// A record that was taken, or an earlier copy of it that it joined.
#[derive(Clone, Debug)]
#[must_use = "nothing is known of the record until its outcome was read"]
pub struct Pending {
    delivery: Arc<Delivery>,
    joined: bool,
}

impl Pending {
    /// Whether an earlier copy of the same record is waited for.
    #[must_use]
    pub fn joined(&self) -> bool {
        self.joined
    }

    /// The outcome, or [`Outcome::Unknown`] if none is known after `within`. The record stays on
    /// its way then, and publishing it again joins it.
    pub async fn wait(&self, within: Duration) -> Outcome {
        let outcomes = wait_all(std::slice::from_ref(self), within).await;
        outcomes.first().copied().unwrap_or(Outcome::Unknown)
    }
}

/// The outcomes of `pendings`, in their order, after all landed or `within` has passed; those
/// that did not land by then are [`Outcome::Unknown`].
pub async fn wait_all(pendings: &[Pending], within: Duration) -> Vec<Outcome> {
    // It starts at one, so that it can't reach zero while records are still being attached.
    let countdown = Arc::new(Countdown { left: AtomicUsize::new(1), zero: Notify::new() });
    for pending in pendings {
        pending.delivery.attach(&countdown);
    }
    countdown.down();
    // Running out of time is no error here: what did not land reads as unknown below.
    if deadline::within(within, countdown.zero.notified()).await.is_err() {
        tracing::debug!(records = pendings.len(), "no delivery report within the deadline");
    }
    let outcome = |pending: &Pending| pending.delivery.outcome().unwrap_or(Outcome::Unknown);
    pendings.iter().map(outcome).collect()
}

/// All records that can be joined.
#[derive(Debug, Default)]
pub(crate) struct InFlight {
    joinable: Mutex<Joinable>,
    flying: AtomicUsize,
}

#[derive(Debug, Default)]
struct Joinable {
    by_identity: HashMap<Identity, Arc<Delivery>>,
    /// The acknowledged ones of `by_identity`, oldest first.
    settled: VecDeque<(Instant, Identity)>,
}

/// What [`InFlight::enter`] found.
pub(crate) enum Entry {
    /// A copy is in flight or was just acknowledged: there is nothing to send.
    Joined(Pending),
    /// The record is the first of its kind and must be sent with this delivery.
    First(Arc<Delivery>),
}

impl InFlight {
    pub fn enter(&self, record: &Record, now: Instant) -> Entry {
        let identity = record.identity();
        let mut joinable = locked(&self.joinable);
        joinable.forget(now);
        if let Some(delivery) = identity.and_then(|id| joinable.by_identity.get(&id)) {
            return Entry::Joined(Pending { delivery: Arc::clone(delivery), joined: true });
        }
        let delivery = Arc::new(Delivery {
            identity,
            topic: record.topic,
            bytes: record.bytes(),
            queued_at: now,
            state: Mutex::new(State::Flying(Vec::new())),
        });
        if let Some(identity) = identity {
            joinable.by_identity.insert(identity, Arc::clone(&delivery));
        }
        self.flying.fetch_add(1, Ordering::Relaxed);
        Entry::First(delivery)
    }

    /// The producer took the record of this delivery.
    pub fn pending(delivery: Arc<Delivery>) -> Pending {
        Pending { delivery, joined: false }
    }

    /// The producer refused the record. Whoever joined it meanwhile must try again.
    pub fn withdraw(&self, delivery: &Delivery, now: Instant) {
        self.land(delivery, Outcome::TryLater(Hindrance::NotTaken), now);
    }

    /// The delivery report came. Only an acknowledged record stays joinable: any other one has to
    /// be published again.
    pub fn land(&self, delivery: &Delivery, outcome: Outcome, now: Instant) {
        if let Some(identity) = delivery.identity {
            let mut joinable = locked(&self.joinable);
            if outcome.is_done() {
                joinable.settled.push_back((now, identity));
                joinable.forget(now);
            } else {
                joinable.by_identity.remove(&identity);
            }
        }
        self.flying.fetch_sub(1, Ordering::Relaxed);
        delivery.land(outcome);
    }

    /// Records without a delivery report.
    pub fn flying(&self) -> usize {
        self.flying.load(Ordering::Relaxed)
    }
}

impl Joinable {
    fn forget(&mut self, now: Instant) {
        while let Some((settled_at, identity)) = self.settled.front().copied() {
            let fresh = now.saturating_duration_since(settled_at) < JOINABLE_FOR;
            if fresh && self.settled.len() <= SETTLED_RECORDS_MAX {
                return;
            }
            self.settled.pop_front();
            self.by_identity.remove(&identity);
        }
    }
}

/// A panic elsewhere leaves these states whole, so a poisoned lock is as good as any.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::record::Repeat;

    const DONE: Outcome = Outcome::Done { topic: "t", partition: 3, offset: Some(7) };

    fn record(value: &'static str) -> Record {
        Record {
            topic: "t",
            partition: 3,
            key: Bytes::from_static(b"id"),
            value: Bytes::from_static(value.as_bytes()),
            headers: Vec::new(),
            repeat: Repeat::Joins,
        }
    }

    fn first(board: &InFlight, value: &'static str, now: Instant) -> Arc<Delivery> {
        match board.enter(&record(value), now) {
            Entry::First(delivery) => delivery,
            Entry::Joined(_) => panic!("{value} should not have been there"),
        }
    }

    fn joined(board: &InFlight, value: &'static str, now: Instant) -> Pending {
        match board.enter(&record(value), now) {
            Entry::Joined(pending) => pending,
            Entry::First(_) => panic!("{value} should have been there"),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn one_wake_up_waits_for_many_records() {
        let (board, now) = (InFlight::default(), Instant::now());
        let deliveries: Vec<_> =
            ["a", "b", "c"].into_iter().map(|value| first(&board, value, now)).collect();
        let pendings: Vec<_> = deliveries.iter().cloned().map(InFlight::pending).collect();
        let land = async {
            for delivery in &deliveries {
                tokio::task::yield_now().await;
                board.land(delivery, DONE, now);
            }
        };
        let (outcomes, ()) = tokio::join!(wait_all(&pendings, Duration::from_secs(3)), land);
        assert_eq!(outcomes, [DONE; 3]);
        assert_eq!(board.flying(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn what_has_not_landed_in_time_is_unknown_and_can_still_be_joined() {
        let (board, now) = (InFlight::default(), Instant::now());
        let delivery = first(&board, "a", now);
        let pending = InFlight::pending(Arc::clone(&delivery));
        assert_eq!(pending.wait(Duration::from_secs(3)).await, Outcome::Unknown);
        let again = joined(&board, "a", now);
        board.land(&delivery, DONE, now);
        assert_eq!(again.wait(Duration::from_secs(3)).await, DONE);
        assert!(again.joined());
    }

    #[test]
    fn a_lost_answer_is_joined_for_some_minutes_and_then_published_again() {
        let (board, now) = (InFlight::default(), Instant::now());
        let delivery = first(&board, "a", now);
        board.land(&delivery, DONE, now);
        let soon = now + JOINABLE_FOR - Duration::from_millis(1);
        assert_eq!(joined(&board, "a", soon).delivery.outcome(), Some(DONE));
        first(&board, "a", now + JOINABLE_FOR);
    }

    #[test]
    fn a_record_of_unknown_fate_is_published_again() {
        let (board, now) = (InFlight::default(), Instant::now());
        let delivery = first(&board, "a", now);
        board.land(&delivery, Outcome::Unknown, now);
        first(&board, "a", now);
    }

    #[test]
    fn other_bytes_under_the_same_key_are_never_joined() {
        let (board, now) = (InFlight::default(), Instant::now());
        first(&board, "a", now);
        first(&board, "b", now);
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_joined_a_record_that_the_queue_refused_must_try_again() {
        let (board, now) = (InFlight::default(), Instant::now());
        let delivery = first(&board, "a", now);
        let other = joined(&board, "a", now);
        board.withdraw(&delivery, now);
        let outcome = other.wait(Duration::from_secs(3)).await;
        assert_eq!(outcome, Outcome::TryLater(Hindrance::NotTaken));
        first(&board, "a", now);
    }

    #[test]
    fn the_memory_of_acknowledged_records_is_bounded() {
        let now = Instant::now();
        let mut joinable = Joinable::default();
        for number in 0..SETTLED_RECORDS_MAX + 10 {
            let mut record = record("a");
            record.key = Bytes::from(number.to_le_bytes().to_vec());
            let identity = record.identity().unwrap();
            joinable.settled.push_back((now, identity));
        }
        joinable.forget(now);
        assert_eq!(joinable.settled.len(), SETTLED_RECORDS_MAX);
    }
}
