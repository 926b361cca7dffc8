//! The nth step of this thread fails, and perhaps every one after it: then it is as if the
//! process had been killed there.

use std::cell::Cell;
use std::io;

/// What happens at a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// That system call fails, once.
    Error,
    /// Nothing is done from there on.
    Kill,
}

thread_local! {
    static STEPS: Cell<u64> = const { Cell::new(0) };
    static PLAN: Cell<Option<(u64, Fault)>> = const { Cell::new(None) };
    static STRUCK: Cell<bool> = const { Cell::new(false) };
}

/// The `nth` step from now on, counted from 1, meets `fault`.
pub fn strike(nth: u64, fault: Fault) {
    STEPS.set(0);
    STRUCK.set(false);
    PLAN.set(Some((nth, fault)));
}

/// Everything works again.
pub fn heal() {
    PLAN.set(None);
}

/// Whether the fault has come since [`strike`].
pub fn is_struck() -> bool {
    STRUCK.get()
}

/// Whether the process counts as killed.
pub fn is_killed() -> bool {
    is_struck() && PLAN.get().is_some_and(|(_, fault)| fault == Fault::Kill)
}

/// A folder for a test that syncs often: in memory, where that can be had.
pub fn quick_dir() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

pub fn step() -> io::Result<()> {
    let steps = STEPS.get() + 1;
    STEPS.set(steps);
    let Some((nth, fault)) = PLAN.get() else { return Ok(()) };
    if steps == nth || (steps > nth && fault == Fault::Kill) {
        STRUCK.set(true);
        return Err(io::Error::other(format!("{fault:?} at step {nth}")));
    }
    Ok(())
}
