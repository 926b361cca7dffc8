//! A custody log for tests.

use std::sync::Mutex;

use spillway_proto::BatchId;

use crate::identity::{CustodyLog, GivenUp, GivenUpReason};

/// Books that remember what was given up.
#[derive(Default)]
pub struct Books {
    given_up: Mutex<Vec<GivenUp>>,
    accepted: Mutex<Vec<BatchId>>,
}

impl CustodyLog for Books {
    fn accepted(&self, id: &BatchId) {
        self.accepted.lock().unwrap().push(*id);
    }

    fn given_up(&self, given_up: GivenUp) {
        self.given_up.lock().unwrap().push(given_up);
    }
}

impl Books {
    pub fn seqs(&self) -> Vec<u64> {
        let lost = self.given_up.lock().unwrap();
        lost.iter().flat_map(|range| range.first_seq..=range.last_seq).collect()
    }

    pub fn ranges(&self) -> usize {
        self.given_up.lock().unwrap().len()
    }

    pub fn accepted(&self) -> Vec<u64> {
        self.accepted.lock().unwrap().iter().map(|id| id.columns().2).collect()
    }

    pub fn reasons(&self) -> Vec<GivenUpReason> {
        self.given_up.lock().unwrap().iter().map(|lost| lost.reason).collect()
    }
}
