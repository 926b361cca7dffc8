//! Room for requests in work, counted in bytes of their bodies.
//!
//! A request waits a little for room before it is refused, in order, in a queue of bounded length.
//! The room shrinks while Kafka acknowledges slowly and grows back while it is quick (additive
//! increase, multiplicative decrease), so that a slow Kafka meets few requests that wait long,
//! not many that all miss the deadline. One environment can't hold it all.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use spillway_runtime::deadline;
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::metrics::Metrics;
use crate::settings::AdmissionSettings;

/// How often the room may change.
const ADJUST_EVERY: Duration = Duration::from_secs(1);
/// What slow acknowledgements leave of the room: 7/10.
const DECREASE: (usize, usize) = (7, 10);
/// What quick ones add: a part of the maximum.
const INCREASE_PART: usize = 16;

/// Why there is no room for a request now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoRoom {
    #[error("too many requests wait for room already")]
    QueueFull,
    #[error("no room became free in time")]
    Waited,
}

/// The room, shared by all connections.
#[derive(Debug)]
pub struct Budget {
    settings: AdmissionSettings,
    body_bytes_max: usize,
    metrics: Metrics,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    limit: usize,
    used: usize,
    by_environment: HashMap<Arc<str>, usize>,
    waiting: VecDeque<Waiting>,
    window: Window,
}

#[derive(Debug)]
struct Waiting {
    environment: Arc<str>,
    bytes: usize,
    grant: oneshot::Sender<Room>,
}

/// Acknowledgement times since the last adjustment.
#[derive(Debug)]
struct Window {
    began: Instant,
    sum: Duration,
    count: u32,
}

/// A part of the room, held by one request; dropping it frees it.
#[derive(Debug)]
pub struct Room {
    budget: Arc<Budget>,
    environment: Arc<str>,
    bytes: usize,
}

impl Budget {
    #[must_use]
    pub fn new(
        settings: &AdmissionSettings,
        body_bytes_max: usize,
        metrics: &Metrics,
    ) -> Arc<Self> {
        let limit = settings.bytes_max.as_usize();
        metrics.admission_limit_bytes.set(gauge(limit));
        let window = Window { began: Instant::now(), sum: Duration::ZERO, count: 0 };
        let (by_environment, waiting) = (HashMap::new(), VecDeque::new());
        Arc::new(Self {
            settings: settings.clone(),
            body_bytes_max,
            metrics: metrics.clone(),
            state: Mutex::new(State { limit, used: 0, by_environment, waiting, window }),
        })
    }

    /// Room for `bytes`, after a wait of at most `within` (and never longer than the settings').
    ///
    /// # Errors
    /// [`NoRoom`]; nothing is held then.
    pub async fn reserve(
        self: &Arc<Self>,
        environment: &Arc<str>,
        bytes: usize,
        within: Duration,
    ) -> Result<Room, NoRoom> {
        let granted = {
            let mut state = self.locked();
            state.waiting.retain(|waiting| !waiting.grant.is_closed());
            if !Self::someone_s_turn(&state) && self.fits(&state, environment, bytes) {
                return Ok(self.take(&mut state, environment, bytes));
            }
            if self.is_queue_full(&state, environment) {
                return Err(NoRoom::QueueFull);
            }
            let (grant, granted) = oneshot::channel();
            let environment = Arc::clone(environment);
            state.waiting.push_back(Waiting { environment, bytes, grant });
            self.metrics.admission_waiting.set(gauge(state.waiting.len()));
            granted
        };
        let within = within.min(self.settings.wait_max.get());
        match deadline::within(within, granted).await {
            Ok(Ok(room)) => Ok(room),
            Ok(Err(_)) | Err(_) => Err(NoRoom::Waited),
        }
    }

    /// A request's records were acknowledged, or waited for in vain, for this long.
    pub fn observe(self: &Arc<Self>, waited: Duration) {
        self.observe_at(waited, Instant::now());
    }

    fn observe_at(self: &Arc<Self>, waited: Duration, now: Instant) {
        let grew = {
            let mut state = self.locked();
            state.window.sum += waited;
            state.window.count += 1;
            if now.saturating_duration_since(state.window.began) < ADJUST_EVERY {
                return;
            }
            let mean = state.window.sum / state.window.count;
            state.window = Window { began: now, sum: Duration::ZERO, count: 0 };
            let before = state.limit;
            state.limit = self.adjusted(before, mean);
            self.metrics.admission_limit_bytes.set(gauge(state.limit));
            state.limit > before
        };
        if grew {
            self.grant();
        }
    }

    fn adjusted(&self, limit: usize, mean: Duration) -> usize {
        let (min, max) = (self.settings.bytes_min.as_usize(), self.settings.bytes_max.as_usize());
        let wanted = if mean > self.settings.ack_target.get() {
            limit / DECREASE.1 * DECREASE.0
        } else {
            limit.saturating_add(max / INCREASE_PART)
        };
        wanted.clamp(min, max)
    }

    fn locked(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether someone waits for room that all share, and must not be overtaken. Those who wait
    /// for their own environment's share are in nobody's way.
    fn someone_s_turn(state: &State) -> bool {
        state.waiting.iter().any(|waiting| state.used + waiting.bytes > state.limit)
    }

    /// One environment can't hold all places of the queue either: it would shut the others out.
    fn is_queue_full(&self, state: &State, environment: &str) -> bool {
        let places = self.settings.waiting_max as usize;
        let own = state.waiting.iter().filter(|waiting| &*waiting.environment == environment);
        let share = (places as f64 * self.settings.environment_share) as usize;
        state.waiting.len() >= places || own.count() >= share.max(1)
    }

    fn fits(&self, state: &State, environment: &str, bytes: usize) -> bool {
        let own = state.by_environment.get(environment).copied().unwrap_or(0);
        // A lone body of any allowed size must fit, whatever the share says.
        let share = state.limit as f64 * self.settings.environment_share;
        let share = (share as usize).max(self.body_bytes_max);
        state.used + bytes <= state.limit && own + bytes <= share
    }

    fn take(self: &Arc<Self>, state: &mut State, environment: &Arc<str>, bytes: usize) -> Room {
        state.used += bytes;
        *state.by_environment.entry(Arc::clone(environment)).or_default() += bytes;
        self.metrics.in_flight_bytes.set(gauge(state.used));
        Room { budget: Arc::clone(self), environment: Arc::clone(environment), bytes }
    }

    fn give_back(self: &Arc<Self>, environment: &Arc<str>, bytes: usize) {
        {
            let mut state = self.locked();
            state.used = state.used.saturating_sub(bytes);
            if let Some(own) = state.by_environment.get_mut(environment) {
                *own = own.saturating_sub(bytes);
                if *own == 0 {
                    state.by_environment.remove(environment);
                }
            }
            self.metrics.in_flight_bytes.set(gauge(state.used));
        }
        self.grant();
    }

    /// Hands free room to those who wait, in order; an environment at its share is passed over.
    fn grant(self: &Arc<Self>) {
        loop {
            let granted = {
                let mut state = self.locked();
                state.waiting.retain(|waiting| !waiting.grant.is_closed());
                let next = self.next(&state).and_then(|place| state.waiting.remove(place));
                self.metrics.admission_waiting.set(gauge(state.waiting.len()));
                next.map(|next| (self.take(&mut state, &next.environment, next.bytes), next.grant))
            };
            let Some((room, grant)) = granted else { return };
            // Outside of the lock: a receiver that just left drops the room, which locks again.
            if let Err(room) = grant.send(room) {
                drop(room);
            }
        }
    }

    fn next(&self, state: &State) -> Option<usize> {
        for (place, waiting) in state.waiting.iter().enumerate() {
            if self.fits(state, &waiting.environment, waiting.bytes) {
                return Some(place);
            }
            if state.used + waiting.bytes > state.limit {
                // It is the turn of this one: smaller ones behind it must not starve it.
                return None;
            }
        }
        None
    }
}

impl Room {
    /// Frees what a body turned out not to need.
    pub fn shrink_to(&mut self, bytes: usize) {
        let surplus = self.bytes.saturating_sub(bytes);
        self.bytes -= surplus;
        if surplus > 0 {
            self.budget.give_back(&self.environment, surplus);
        }
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.budget.give_back(&self.environment, self.bytes);
    }
}

fn gauge(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use prometheus_client::registry::Registry;
    use spillway_runtime::settings::{Dur, Size};

    use super::*;

    const WAIT: Duration = Duration::from_secs(1);

    fn budget(change: impl FnOnce(&mut AdmissionSettings)) -> Arc<Budget> {
        let mut settings = AdmissionSettings {
            bytes_max: Size::bytes(100),
            bytes_min: Size::bytes(20),
            environment_share: 1.0,
            waiting_max: 2,
            wait_max: Dur::from_secs(1),
            ..AdmissionSettings::default()
        };
        change(&mut settings);
        Budget::new(&settings, 20, &Metrics::register(&mut Registry::default()))
    }

    fn environment(name: &str) -> Arc<str> {
        Arc::from(name)
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_waits_for_room_before_it_is_refused() {
        let (budget, acme) = (budget(|_| {}), environment("acme"));
        let first = budget.reserve(&acme, 80, WAIT).await.unwrap();
        let refused = budget.reserve(&acme, 30, WAIT).await;
        assert_eq!(refused.err(), Some(NoRoom::Waited));
        let free = async {
            tokio::task::yield_now().await;
            drop(first);
        };
        let (second, ()) = tokio::join!(budget.reserve(&acme, 30, WAIT), free);
        assert_eq!(second.unwrap().bytes, 30);
        assert_eq!(budget.locked().used, 0, "a dropped room is free again");
    }

    #[tokio::test(start_paused = true)]
    async fn the_queue_of_those_who_wait_is_bounded() {
        let (budget, acme) = (budget(|_| {}), environment("acme"));
        let _all = budget.reserve(&acme, 100, WAIT).await.unwrap();
        let (a, b, c) = tokio::join!(
            budget.reserve(&acme, 1, WAIT),
            budget.reserve(&acme, 1, WAIT),
            budget.reserve(&acme, 1, WAIT),
        );
        assert_eq!(a.err(), Some(NoRoom::Waited));
        assert_eq!(b.err(), Some(NoRoom::Waited));
        assert_eq!(c.err(), Some(NoRoom::QueueFull));
    }

    #[tokio::test(start_paused = true)]
    async fn one_environment_can_not_hold_all_the_room() {
        let budget = budget(|settings| settings.environment_share = 0.5);
        let (acme, globex) = (environment("acme"), environment("globex"));
        let _half = budget.reserve(&acme, 50, WAIT).await.unwrap();
        let (waiting, other) =
            tokio::join!(budget.reserve(&acme, 1, WAIT), budget.reserve(&globex, 40, WAIT));
        assert_eq!(waiting.err(), Some(NoRoom::Waited));
        assert!(other.is_ok(), "it passes the environment that is at its share");
    }

    #[tokio::test(start_paused = true)]
    async fn an_environment_that_fills_its_share_and_its_places_shuts_nobody_out() {
        let budget = budget(|settings| {
            settings.environment_share = 0.5;
            settings.waiting_max = 4;
        });
        let (acme, globex) = (environment("acme"), environment("globex"));
        let _half = budget.reserve(&acme, 50, WAIT).await.unwrap();
        let (one, two, three, other) = tokio::join!(
            budget.reserve(&acme, 1, WAIT),
            budget.reserve(&acme, 1, WAIT),
            budget.reserve(&acme, 1, WAIT),
            budget.reserve(&globex, 40, WAIT),
        );
        assert_eq!(one.err(), Some(NoRoom::Waited));
        assert_eq!(two.err(), Some(NoRoom::Waited));
        assert_eq!(three.err(), Some(NoRoom::QueueFull), "half of the places are its own");
        assert!(other.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_large_request_is_not_starved_by_small_ones() {
        let (budget, acme) = (budget(|_| {}), environment("acme"));
        let first = budget.reserve(&acme, 60, WAIT).await.unwrap();
        let free = async {
            tokio::task::yield_now().await;
            assert_eq!(budget.locked().used, 60, "the small one waits behind the large one");
            drop(first);
        };
        let (large, small, ()) =
            tokio::join!(budget.reserve(&acme, 90, WAIT), budget.reserve(&acme, 5, WAIT), free);
        assert_eq!((large.unwrap().bytes, small.unwrap().bytes), (90, 5));
    }

    #[test]
    fn slow_acknowledgements_shrink_the_room_and_quick_ones_grow_it_back() {
        let budget = budget(|_| {});
        let mut now = budget.locked().window.began;
        let mut observe = |waited| {
            now += ADJUST_EVERY;
            budget.observe_at(waited, now);
            budget.locked().limit
        };
        let slow: Vec<usize> = (0..5).map(|_| observe(Duration::from_secs(3))).collect();
        assert_eq!(slow, [70, 49, 28, 20, 20]);
        let quick: Vec<usize> = (0..15).map(|_| observe(Duration::from_millis(10))).collect();
        assert_eq!((quick[0], quick[14]), (26, 100));
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_of_unstated_length_frees_what_it_did_not_need() {
        let (budget, acme) = (budget(|_| {}), environment("acme"));
        let mut room = budget.reserve(&acme, 100, WAIT).await.unwrap();
        room.shrink_to(10);
        assert!(budget.reserve(&acme, 90, WAIT).await.is_ok());
    }
}
