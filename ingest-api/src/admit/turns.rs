//! Turns at work that costs processors and memory: opening what came compressed, reading, cutting.
//!
//! So much is in work at once and no more. Who waits is served environment by environment, the one
//! with the least in work first, so that a flood of one waits behind its own requests and not the
//! others behind it; and one environment never has all places, so that another need not wait for
//! what cannot be interrupted. Those who wait are bounded by the connections: a connection has one
//! request at a time.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use spillway_runtime::deadline::{self, DeadlineExceeded};
use tokio::sync::oneshot;

/// From this length on, those who left a line are looked for each time it has doubled.
const CLEAN_FROM: usize = 64;

/// Places for one kind of work; clones are one.
#[derive(Clone, Debug)]
pub struct Turns {
    all: Arc<All>,
}

#[derive(Debug)]
struct All {
    at_once: usize,
    /// Of one environment.
    own: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    taken: usize,
    by_environment: HashMap<Arc<str>, Line>,
    /// Environments with somebody who waits, in the order of their last turn.
    waiting: VecDeque<Arc<str>>,
}

/// What one environment has in work, and who of it waits.
#[derive(Debug, Default)]
struct Line {
    taken: usize,
    waiting: VecDeque<oneshot::Sender<Turn>>,
}

/// A place, held while the work is done; dropping it calls the next.
#[derive(Debug)]
pub struct Turn {
    turns: Turns,
    environment: Arc<str>,
}

impl Turns {
    /// Places for `at_once` pieces of work on a machine with `processors`. One environment has all
    /// places but one, and all processors but one: whoever comes finds both free.
    #[must_use]
    pub fn new(at_once: usize, processors: usize) -> Self {
        let at_once = at_once.max(1);
        let own = at_once.min(processors).saturating_sub(1).max(1);
        Self { all: Arc::new(All { at_once, own, state: Mutex::default() }) }
    }

    /// A place for work of `environment`, waited for at most `within`.
    ///
    /// # Errors
    /// [`DeadlineExceeded`]; nothing is held then.
    pub async fn take(
        &self,
        environment: &Arc<str>,
        within: Duration,
    ) -> Result<Turn, DeadlineExceeded> {
        let called = {
            let mut state = self.locked();
            if !self.someone_could_go(&state) && self.is_free(&state, environment) {
                return Ok(self.enter(&mut state, environment));
            }
            let (call, called) = oneshot::channel();
            let line = state.by_environment.entry(Arc::clone(environment)).or_default();
            if line.waiting.len() >= CLEAN_FROM && line.waiting.len().is_power_of_two() {
                line.waiting.retain(|call| !call.is_closed());
            }
            line.waiting.push_back(call);
            if !state.waiting.contains(environment) {
                state.waiting.push_back(Arc::clone(environment));
            }
            called
        };
        let late = DeadlineExceeded { after: within };
        let called = deadline::within(within, called).await;
        called.and_then(|turn| turn.map_err(|_| late))
    }

    /// Whoever waits although there is a place is about to be called: nobody overtakes it.
    fn someone_could_go(&self, state: &State) -> bool {
        state.waiting.iter().any(|environment| self.is_free(state, environment))
    }

    fn is_free(&self, state: &State, environment: &str) -> bool {
        let own = state.by_environment.get(environment).map_or(0, |line| line.taken);
        state.taken < self.all.at_once && own < self.all.own
    }

    fn enter(&self, state: &mut State, environment: &Arc<str>) -> Turn {
        state.taken += 1;
        state.by_environment.entry(Arc::clone(environment)).or_default().taken += 1;
        Turn { turns: self.clone(), environment: Arc::clone(environment) }
    }

    fn call_next(&self) {
        loop {
            let called = {
                let mut state = self.locked();
                self.next(&mut state)
            };
            let Some((call, turn)) = called else { return };
            // Outside of the lock: a turn that nobody waits for any more calls the next.
            let Err(turn) = call.send(turn) else { continue };
            drop(turn);
            return;
        }
    }

    /// The first in line of the environment that has the least in work and waited the longest.
    fn next(&self, state: &mut State) -> Option<(oneshot::Sender<Turn>, Turn)> {
        loop {
            let (call, environment) = self.pop(state)?;
            if !call.is_closed() {
                return Some((call, self.enter(state, &environment)));
            }
        }
    }

    fn pop(&self, state: &mut State) -> Option<(oneshot::Sender<Turn>, Arc<str>)> {
        let taken = |environment: &Arc<str>| {
            state.by_environment.get(environment).map_or(0, |line| line.taken)
        };
        let able = state.waiting.iter().enumerate();
        let able = able.filter(|(_, environment)| self.is_free(state, environment));
        let (at, _) = able.min_by_key(|(_, environment)| taken(environment))?;
        let environment = state.waiting.remove(at)?;
        let line = state.by_environment.get_mut(&environment)?;
        let call = line.waiting.pop_front()?;
        if !line.waiting.is_empty() {
            state.waiting.push_back(Arc::clone(&environment));
        } else if line.taken == 0 {
            state.by_environment.remove(&environment);
        }
        Some((call, environment))
    }

    fn locked(&self) -> MutexGuard<'_, State> {
        self.all.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        {
            let mut state = self.turns.locked();
            state.taken = state.taken.saturating_sub(1);
            if let Some(line) = state.by_environment.get_mut(&self.environment) {
                line.taken = line.taken.saturating_sub(1);
                if line.taken == 0 && line.waiting.is_empty() {
                    state.by_environment.remove(&self.environment);
                }
            }
        }
        self.turns.call_next();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WAIT: Duration = Duration::from_secs(1);

    fn environment(name: &str) -> Arc<str> {
        Arc::from(name)
    }

    #[tokio::test(start_paused = true)]
    async fn one_environment_never_has_all_places() {
        let turns = Turns::new(3, 8);
        let (acme, globex) = (environment("acme"), environment("globex"));
        let two = (turns.take(&acme, WAIT).await.unwrap(), turns.take(&acme, WAIT).await.unwrap());
        let (third, other) = tokio::join!(turns.take(&acme, WAIT), turns.take(&globex, WAIT));
        assert!(third.is_err());
        assert!(other.is_ok(), "it is not behind the one that waits for its own");
        drop(other);
        assert_eq!(turns.locked().waiting.len(), 1, "who left is in line until it is its turn");
        drop(two);
        assert_eq!(turns.locked().waiting.len(), 0);
        assert!(turns.locked().by_environment.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn one_environment_never_has_all_processors() {
        for (processors, own) in [(1, 1), (2, 1), (4, 3), (64, 3)] {
            let (turns, acme) = (Turns::new(4, processors), environment("acme"));
            let mut held = Vec::new();
            while let Ok(turn) = turns.take(&acme, WAIT).await {
                held.push(turn);
            }
            assert_eq!(held.len(), own, "of {processors} processors");
            assert!(turns.take(&environment("globex"), WAIT).await.is_ok());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_flood_waits_behind_itself_and_another_comes_next() {
        let turns = Turns::new(2, 8);
        let (acme, globex) = (environment("acme"), environment("globex"));
        let (first, other) =
            (turns.take(&acme, WAIT).await.unwrap(), turns.take(&globex, WAIT).await.unwrap());
        let order = Arc::new(Mutex::new(Vec::new()));
        let wait = |environment: &Arc<str>| {
            let (turns, environment) = (turns.clone(), Arc::clone(environment));
            let order = Arc::clone(&order);
            async move {
                let turn = turns.take(&environment, WAIT).await.unwrap();
                order.lock().unwrap().push(environment.to_string());
                tokio::time::sleep(Duration::from_millis(1)).await;
                drop(turn);
            }
        };
        let flood = futures_of((0..20).map(|_| wait(&acme)));
        let late = wait(&globex);
        let free = async {
            tokio::task::yield_now().await;
            drop(first);
            drop(other);
        };
        tokio::join!(flood, late, free);
        let order = order.lock().unwrap();
        let place = order.iter().position(|environment| environment == "globex");
        assert!(place.unwrap() <= 1, "it came last and goes among the first: {order:?}");
        assert_eq!(order.len(), 21);
        assert!(turns.locked().by_environment.is_empty(), "nothing is kept of those who went");
    }

    #[tokio::test(start_paused = true)]
    async fn a_turn_that_nobody_waits_for_any_more_goes_to_the_next() {
        let turns = Turns::new(1, 8);
        let acme = environment("acme");
        let first = turns.take(&acme, WAIT).await.unwrap();
        let mut gone = Box::pin(turns.take(&acme, WAIT));
        assert!(deadline::within(Duration::from_millis(1), &mut gone).await.is_err());
        drop(gone);
        let free = async {
            tokio::task::yield_now().await;
            drop(first);
        };
        let (next, ()) = tokio::join!(turns.take(&acme, WAIT), free);
        assert!(next.is_ok());
    }

    async fn futures_of(work: impl Iterator<Item = impl Future<Output = ()> + Send + 'static>) {
        let mut all: tokio::task::JoinSet<()> = work.collect();
        while all.join_next().await.is_some() {}
    }
}
