//! When this client can't be trusted: what it does not hand out, and what it jumps over. Either way
//! another client is asked, and the one that was wrong is given up.

use std::collections::BTreeMap;

use spillway_proto::kafka_record::Lane;

use super::{Poller, Refused};
use crate::sources::{Finding, Hole};
use crate::stalls::Stalls;
use crate::witness;

/// Looks in a row at which a lane has stalled before the client is made anew.
const LOOKS_UNTIL_ANEW: u32 = 1;

impl Poller {
    /// Whatever keeps the client from reading on, and has not been thought of: what stalls is
    /// assigned anew, and if that does not help, the client is made anew.
    pub(super) fn look(&mut self, ends: &BTreeMap<(Lane, u16), i64>) -> Result<(), Refused> {
        let stalled = self.stalls.look(&self.sources, &self.paused, ends);
        let Some(worst) = stalled.iter().max_by_key(|stalled| stalled.looks) else { return Ok(()) };
        self.parts.metrics.reads_stalled.inc_by(stalled.len() as u64);
        tracing::error!(
            places = stalled.len(),
            lane = worst.lane.as_str(),
            partition = worst.partition,
            next = worst.next,
            end = worst.end,
            looks = worst.looks,
            "Kafka holds records that the client does not hand out"
        );
        if worst.looks > LOOKS_UNTIL_ANEW {
            self.stalls = Stalls::default();
            return Err(Refused("it reads nothing where there is something".to_owned()));
        }
        self.reassign = true;
        Ok(())
    }

    /// A jump that was fetched again and came again. Only if another client finds the same is
    /// anything passed over; if Kafka does not answer, it is asked again.
    pub(super) fn doubt(&mut self, hole: Hole) -> Result<(), Refused> {
        let Hole { lane, partition, next, .. } = hole;
        let place = (lane, partition);
        let first = witness::first_from(&self.parts.config, place, next).unwrap_or_else(|error| {
            tracing::warn!(?hole, %error, "no other client could look for it");
            None
        });
        match hole.judge(first) {
            Finding::PassedOver { first } => {
                tracing::error!(?hole, first, "this client passes over records that another reads");
                return Err(Refused("it passed over records".to_owned()));
            }
            Finding::Real => {
                tracing::error!(?hole, "offsets are missing from the log, by two clients' word");
                if let Some(source) = self.sources.get_mut(&partition) {
                    source.confirm(lane);
                }
            }
            Finding::Unknown => tracing::warn!(?hole, "no other client said whether it is real"),
        }
        self.reassign = true;
        Ok(())
    }
}
