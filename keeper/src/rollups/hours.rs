//! One hour of some hosts, made again from its minutes, in one transaction with the marks it
//! clears. Minutes are kept far longer than points, so nothing is missing from a late hour.

use std::collections::BTreeMap;

use spillway_consumer::store::values::Summary;
use spillway_runtime::mysql::Session;

use super::bucket::{Bucket, held};
use super::marks::{Mark, Span, clear};
use super::rows::{Minute, series_of, stored_minutes, write_hours};
use super::{HOUR_S, MINUTE_S};
use crate::shard::{ShardError, execute};

/// Series whose minutes are in memory at a time, sixty each.
const SERIES_AT_ONCE: usize = 100;

/// Makes this hour for these marks. How many rows were written.
pub async fn roll(session: &mut Session, hour: u32, marks: &[Mark]) -> Result<u64, ShardError> {
    // A failure on the way ends the connection and with it the transaction.
    execute(session, "START TRANSACTION").await?;
    let hosts: Vec<u64> = marks.iter().map(|mark| mark.host_id).collect();
    let ids: Vec<u64> = series_of(session, &hosts).await?.iter().map(|one| one.id).collect();
    let mut written = 0;
    for ids in ids.chunks(SERIES_AT_ONCE) {
        let span = (hour, hour + HOUR_S - MINUTE_S);
        let minutes = stored_minutes(session, "rollup_1m", ids, span).await?;
        let rows = of_minutes(&minutes);
        write_hours(session, hour, &rows).await?;
        written += rows.len() as u64;
    }
    clear(session, Span::Hour, marks).await?;
    execute(session, "COMMIT").await?;
    Ok(written)
}

/// Joined summaries; an hour's increase is the sum of its minutes'.
fn of_minutes(minutes: &BTreeMap<u64, Vec<Minute>>) -> Vec<(u64, Summary, Option<f64>)> {
    let hour = |(id, minutes): (&u64, &Vec<Minute>)| {
        let mut whole = Bucket::default();
        let mut increase = None;
        for minute in minutes {
            whole.join(&minute.bucket);
            if let Some(more) = minute.increase {
                increase = Some(held(increase.unwrap_or(0.0) + more));
            }
        }
        (*id, whole.summary, increase)
    };
    minutes.iter().map(hour).collect()
}
