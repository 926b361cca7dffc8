//! Rollups after a fault: every minute and whole hour of a load is computed once more from its
//! single points and compared.

use std::time::Duration;

use spillway_testkit::rollup_proof::prove;
use sqlx::MySqlPool;
use tokio::time::Instant;

use crate::SenderOptions;

/// The keeper finds what is marked within seconds; after a failover it first finds the new primary.
/// How long all of it takes is the machine's affair: it gives way to what else keeps a shard busy.
const PROGRESS_WITHIN: Duration = Duration::from_secs(120);
const LOOK_EVERY: Duration = Duration::from_secs(1);
const MINUTE_S: i64 = 60;
/// A minute is made once it has ended and settled; a long load reaches into the future.
const SETTLED_AFTER_S: i64 = 90;

/// Waits until the rollups of the load's time say what the points say.
///
/// Panics with the first differences if they never do.
pub async fn rolled_up(mysql: &MySqlPool, options: &SenderOptions) {
    let first = i64::from(options.first_window_ts);
    let made = jiff::Timestamp::now().as_second() - SETTLED_AFTER_S;
    let (from, until) = (first, made.min(first + options.windows as i64 * 10));
    let whole = |at: i64| at.div_euclid(MINUTE_S) * MINUTE_S;
    let (mut left, mut by) = (usize::MAX, Instant::now() + PROGRESS_WITHIN);
    loop {
        // Whole minutes: of the one at either end, others may have a part.
        let proof = prove(mysql, whole(from + MINUTE_S - 1), whole(until)).await;
        let proof = proof.expect("the views are readable");
        if proof.wrong < left {
            (left, by) = (proof.wrong, Instant::now() + PROGRESS_WITHIN);
        }
        if proof.wrong == 0 || Instant::now() >= by {
            eprintln!("rolled up: {} minutes, {} hours", proof.minutes, proof.hours);
            return proof.must_hold();
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}
