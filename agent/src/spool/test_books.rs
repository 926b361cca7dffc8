//! A custody log for tests.

use std::io;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use spillway_proto::BatchId;
use tokio::sync::watch;

use super::disk_fake::FakeDisk;
use crate::identity::{CustodyLog, GivenUp, GivenUpReason};

/// Books that remember what was given up.
#[derive(Default)]
pub struct Books {
    given_up: watch::Sender<Vec<GivenUp>>,
    accepted: Mutex<Vec<BatchId>>,
    /// They lie on the same machine: without power, nothing is written down.
    machine: FakeDisk,
    /// Nothing can be noted durably.
    pub broken: AtomicBool,
}

impl CustodyLog for Books {
    fn accepted(&self, id: &BatchId) {
        self.accepted.lock().unwrap().push(*id);
    }

    fn given_up(&self, given_up: &GivenUp) -> io::Result<()> {
        if self.machine.is_dark() || self.broken.load(Ordering::Relaxed) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.gone(given_up);
        Ok(())
    }

    fn gone(&self, given_up: &GivenUp) {
        self.given_up.send_modify(|all| all.push(given_up.clone()));
    }
}

impl Books {
    pub fn beside(disk: &FakeDisk) -> Self {
        Self { machine: disk.clone(), ..Self::default() }
    }

    pub fn seqs(&self) -> Vec<u64> {
        let lost = self.given_up.borrow();
        lost.iter().flat_map(|range| range.first_seq..=range.last_seq).collect()
    }

    /// Waits until something was given up.
    pub async fn until_given_up(&self) {
        let mut changes = self.given_up.subscribe();
        let limit = std::time::Duration::from_secs(30);
        let come = tokio::time::timeout(limit, changes.wait_for(|all| !all.is_empty())).await;
        come.expect("nothing was given up").unwrap();
    }

    pub fn ranges(&self) -> usize {
        self.given_up.borrow().len()
    }

    pub fn accepted(&self) -> Vec<u64> {
        self.accepted.lock().unwrap().iter().map(|id| id.columns().2).collect()
    }

    pub fn reasons(&self) -> Vec<GivenUpReason> {
        self.given_up.borrow().iter().map(|lost| lost.reason).collect()
    }
}
