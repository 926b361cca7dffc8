//! What a program takes from outside without asking anybody: chance, the wall clock, and threads
//! that may block. Everything else from outside (network, disk, broker, bucket) has a trait.
//!
//! Taken here and nowhere else by whatever runs in the simulation too (`sim/`): there, one seed
//! decides all of it. In a shipped program each of these is the system's own; the feature
//! `simulation` is never part of one.

#[cfg(target_os = "linux")]
use std::cell::Cell;

use tokio::task::JoinError;
use uuid::Uuid;

#[cfg(feature = "simulation")]
mod simulated;

#[cfg(feature = "simulation")]
pub use simulated::Simulation;

/// Fills `bytes` with randomness.
///
/// # Errors
/// The system has none.
pub fn fill(bytes: &mut [u8]) -> Result<(), getrandom::Error> {
    #[cfg(feature = "simulation")]
    if simulated::fill(bytes) {
        return Ok(());
    }
    getrandom::fill(bytes)
}

/// A random number, for what is spread only: 0 if the system has no randomness.
#[must_use]
pub fn spread() -> u32 {
    let mut bytes = [0; 4];
    match fill(&mut bytes) {
        Ok(()) => u32::from_le_bytes(bytes),
        Err(_) => 0,
    }
}

/// A random id.
#[must_use]
pub fn uuid_v4() -> Uuid {
    #[cfg(feature = "simulation")]
    if let Some(id) = simulated::uuid_v4() {
        return id;
    }
    Uuid::new_v4()
}

/// An id that sorts by the time at which it was made.
#[must_use]
pub fn uuid_v7() -> Uuid {
    #[cfg(feature = "simulation")]
    if let Some(id) = simulated::uuid_v7() {
        return id;
    }
    Uuid::now_v7()
}

/// The wall clock, in ms since the Unix epoch. People set it: only [`tokio::time::Instant`] tells
/// how much time passed.
#[must_use]
pub fn wall_ms() -> i64 {
    #[cfg(feature = "simulation")]
    if let Some(now_ms) = simulated::wall_ms() {
        return now_ms;
    }
    jiff::Timestamp::now().as_millisecond()
}

/// Does work that may block (a disk, a lot of arithmetic) where it holds nobody up.
///
/// # Errors
/// The work panicked, or the runtime ends.
pub async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, JoinError> {
    #[cfg(feature = "simulation")]
    if simulated::is_on() {
        // A thread's end is an event that no seed decides.
        return Ok(work());
    }
    tokio::task::spawn_blocking(work).await
}

/// As [`blocking`], behind the threads that serve sockets: what costs processors and belongs to one
/// sender must not keep the short work of all others from them.
///
/// # Errors
/// The work panicked, or the runtime ends.
pub async fn behind<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, JoinError> {
    let work = move || {
        step_back();
        work()
    };
    blocking(work).await
}

/// How far behind, in steps of niceness: less than a third of a processor where somebody else wants
/// it, so that whoever waits for the work gets it still. The kernel's weight of 335 beside 1,024
/// (`sched(7)`).
#[cfg(target_os = "linux")]
const STEPS: i32 = 5;
/// The least urgent there is.
#[cfg(target_os = "linux")]
const NICENESS_MAX: i32 = 19;

/// On Linux a thread's niceness is its own. It stays: without a privilege nobody gets back, and
/// threads for blocking work have no hurry.
#[cfg(target_os = "linux")]
fn step_back() {
    #[cfg(feature = "simulation")]
    if simulated::is_on() {
        return;
    }
    thread_local! {
        static IS_BEHIND: Cell<bool> = const { Cell::new(false) };
    }
    if IS_BEHIND.replace(true) {
        return;
    }
    // From where the program was started, which may be behind already.
    let stepped = rustix::process::getpriority_process(None).and_then(|niceness| {
        rustix::process::setpriority_process(None, (niceness + STEPS).min(NICENESS_MAX))
    });
    if let Err(error) = stepped {
        tracing::debug!(%error, "a thread stays where it is");
    }
}

#[cfg(not(target_os = "linux"))]
fn step_back() {}

/// The seed of pauses' jitter; `None`: a random one each time.
pub(crate) fn jitter_seed() -> Option<u64> {
    #[cfg(feature = "simulation")]
    if simulated::is_on() {
        return Some(u64::from(spread()));
    }
    None
}
