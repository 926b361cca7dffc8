//! The lanes: what takes batches in hand, one lot after the other, until told to stop.
//!
//! A lane never sleeps on a hope: it looks at the route and the spool, and if there is nothing to
//! do it waits for a change of the spool, for the time the route named, or for the stop.

use std::sync::Arc;
use std::time::Duration;

use spillway_proto::kafka_record::Lane;
use spillway_proto::limits::FRAMES_PER_BODY_MAX;
use tokio::time::Instant;

use super::carry::{Carrier, ms};
use super::route::Way;
use crate::spool::{InHand, Wish};

/// A lane looks again after this even if nobody woke it: batches age from live to backlog.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// While parking, batches are gathered for as long as one takes to become backlog, at most this,
/// so that a bucket does not fill with objects of one batch each.
const GATHER_MAX: Duration = Duration::from_secs(10);
/// How often the quarantine is looked at.
const LOOK_AT_QUARANTINE: Duration = Duration::from_secs(30);
/// On shutdown: after so many failures in a row, what is safe on disk stays there.
const HOPELESS_AFTER: u32 = 3;

enum Next {
    /// Something was done; there may be more.
    Again,
    /// There is nothing to do for this lane at the moment.
    Idle,
    /// Not before then.
    At(Instant),
}

/// Serves one lane until the stop.
pub async fn serve(carrier: Arc<Carrier>, lane: Lane) {
    let mut changes = carrier.parts.spool.changes();
    let mut gathered_until = Instant::now();
    while !carrier.stop.now.is_cancelled() {
        changes.mark_unchanged();
        let draining = carrier.stop.drain.is_cancelled();
        let until = match turn(&carrier, lane, draining, &mut gathered_until).await {
            Next::Again => continue,
            Next::Idle => Instant::now() + LOOK_AGAIN,
            Next::At(at) => at.min(Instant::now() + LOOK_AGAIN),
        };
        if draining && is_drained(&carrier).await {
            return;
        }
        // In this order, so that a simulation's seed decides all there is to decide.
        tokio::select! {
            biased;
            () = carrier.stop.now.cancelled() => return,
            () = carrier.stop.drain.cancelled(), if !draining => {}
            () = changes.changed() => {}
            () = tokio::time::sleep_until(until) => {}
        }
    }
}

/// Nothing is left that this run can save: the spool is empty, or the API fails and what waits
/// is safe on disk.
async fn is_drained(carrier: &Carrier) -> bool {
    let totals = carrier.parts.spool.settled_totals().await;
    let way = carrier.way(false);
    if way == Way::Probe {
        carrier.not_probed();
    }
    let no_way = matches!(way, Way::Wait { .. }) && carrier.failures() >= HOPELESS_AFTER;
    totals.batches == 0 || (no_way && totals.volatile_batches == 0)
}

async fn turn(
    carrier: &Arc<Carrier>,
    lane: Lane,
    draining: bool,
    gathered_until: &mut Instant,
) -> Next {
    let urgent = draining && carrier.parts.spool.totals().volatile_batches > 0;
    match carrier.way(urgent) {
        Way::Direct => direct(carrier, lane).await,
        Way::Probe => probe(carrier, lane).await,
        Way::Wait { until_ms } => Next::At(carrier.instant(until_ms)),
        // Live batches stay for the probes, and go to S3 together once they are backlog.
        Way::Park if lane == Lane::Live && !draining => Next::Idle,
        Way::Park if *gathered_until > Instant::now() && !draining => Next::At(*gathered_until),
        Way::Park => park(carrier, lane, gathered_until).await,
    }
}

async fn direct(carrier: &Arc<Carrier>, lane: Lane) -> Next {
    let batches_max = match lane {
        Lane::Live => FRAMES_PER_BODY_MAX,
        Lane::Backlog => match pace(carrier, |pace, now_ms| pace.allowed(now_ms)) {
            Ok(count) => count.min(FRAMES_PER_BODY_MAX),
            Err(until_ms) => return Next::At(carrier.instant(until_ms)),
        },
    };
    let wish = Wish { lane, bytes_max: carrier.request_bytes_max(), batches_max };
    let lot = take(carrier, wish).await;
    if lot.is_empty() {
        return Next::Idle;
    }
    if lane == Lane::Backlog {
        pace(carrier, |pace, _| pace.spend(lot.len()));
    }
    carrier.to_api(lane, lot).await;
    Next::Again
}

/// One batch, to see whether the API is back.
async fn probe(carrier: &Arc<Carrier>, lane: Lane) -> Next {
    let wish = Wish { lane, bytes_max: carrier.request_bytes_max(), batches_max: 1 };
    let lot = take(carrier, wish).await;
    if lot.is_empty() {
        carrier.not_probed();
        return Next::Idle;
    }
    carrier.to_api(lane, lot).await;
    Next::Again
}

async fn park(carrier: &Arc<Carrier>, lane: Lane, gathered_until: &mut Instant) -> Next {
    let bytes_max = carrier.parts.settings.spill.object_bytes_max.as_usize();
    let wish = Wish { lane, bytes_max, batches_max: FRAMES_PER_BODY_MAX };
    let lot = take(carrier, wish).await;
    if lot.is_empty() {
        return Next::Idle;
    }
    let bytes: usize = lot.iter().map(|batch| batch.frame().len()).sum();
    if bytes < bytes_max / 2 && lot.len() < FRAMES_PER_BODY_MAX {
        let gather = carrier.parts.settings.deliver.backlog_after.get().min(GATHER_MAX);
        *gathered_until = Instant::now() + gather;
    }
    carrier.to_s3(lot).await;
    Next::Again
}

async fn take(carrier: &Carrier, wish: Wish) -> Vec<InHand> {
    carrier.parts.spool.take(wish, &carrier.parts.log).await
}

fn pace<T>(carrier: &Carrier, ask: impl FnOnce(&mut super::pace::Pace, i64) -> T) -> T {
    let mut pace = carrier.pace.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    ask(&mut pace, carrier.now_ms())
}

/// Tries refused batches once more when they are due. Ended by being aborted: it never has a
/// batch of the spool in hand.
pub async fn try_quarantine(carrier: Arc<Carrier>) {
    let retry = carrier.parts.settings.deliver.quarantine_retry.get();
    let every = LOOK_AT_QUARANTINE.min(retry).max(Duration::from_millis(10));
    debug_assert!(ms(every) > 0);
    loop {
        tokio::time::sleep(every).await;
        carrier.second_try().await;
    }
}
