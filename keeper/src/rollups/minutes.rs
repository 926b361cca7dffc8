//! One minute of some hosts, made again from what `points` holds now: in one transaction with the
//! hours it marks and the marks it clears.

use std::collections::{BTreeMap, BTreeSet};

use spillway_runtime::mysql::Session;

use super::bucket::Bucket;
use super::list::LENGTH_MAX;
use super::marks::{Mark, Span, clear, raise_hours};
use super::rows::{
    Minute, Series, minutes_of_points, series_of, stored_minutes, write_increases, write_minutes,
};
use super::{HOUR_S, LOOK_BACK_S};
use crate::shard::{ShardError, execute};

/// The table that dashboards read.
const TABLE: &str = "rollup_1m";

/// What a minute's series become, and the next minutes whose first step changes by it.
#[derive(Debug, Default, PartialEq)]
pub struct Made {
    /// With whether the series is cumulative.
    pub minutes: Vec<(Minute, bool)>,
    pub next: Vec<Minute>,
}

/// Makes this minute for these marks. How many rows were written.
pub async fn roll(session: &mut Session, minute: u32, marks: &[Mark]) -> Result<u64, ShardError> {
    // A failure on the way ends the connection and with it the transaction.
    execute(session, "START TRANSACTION").await?;
    let hosts: Vec<u64> = marks.iter().map(|mark| mark.host_id).collect();
    let series = series_of(session, &hosts).await?;
    let mut hours: BTreeSet<(u64, u32)> = BTreeSet::new();
    let mut written = 0;
    for page in series.chunks(LENGTH_MAX) {
        let made = make(session, TABLE, page, minute).await?;
        write_minutes(session, TABLE, &made.minutes).await?;
        write_increases(session, TABLE, &made.next).await?;
        written += made.minutes.len() as u64;
        let host_of: BTreeMap<u64, u64> = page.iter().map(|one| (one.id, one.host_id)).collect();
        let changed = made.minutes.iter().map(|(minute, _)| minute).chain(&made.next);
        hours.extend(changed.filter_map(|minute| {
            Some((*host_of.get(&minute.series_id)?, minute.at / HOUR_S * HOUR_S))
        }));
    }
    raise_hours(session, &hours.into_iter().collect::<Vec<_>>()).await?;
    clear(session, Span::Minute, marks).await?;
    execute(session, "COMMIT").await?;
    Ok(written)
}

/// What this minute of these series is now. `table` holds the minutes around it.
pub async fn make(
    session: &mut Session,
    table: &str,
    series: &[Series],
    minute: u32,
) -> Result<Made, ShardError> {
    let found = minutes_of_points(session, series, minute).await?;
    let cumulative = |one: &&Series| one.is_cumulative && found.contains_key(&one.id);
    let ids: Vec<u64> = series.iter().filter(cumulative).map(|one| one.id).collect();
    let around = (minute.saturating_sub(LOOK_BACK_S), minute.saturating_add(LOOK_BACK_S));
    let stored = stored_minutes(session, table, &ids, around).await?;
    let mut made = Made::default();
    for one in series {
        let Some(bucket) = found.get(&one.id) else { continue };
        let mut this = Minute { series_id: one.id, at: minute, bucket: *bucket, increase: None };
        if one.is_cumulative {
            let around = stored.get(&one.id).map_or(&[][..], Vec::as_slice);
            this.increase = bucket.increase(last_before(around, minute));
            made.next.extend(next_after(around, &this));
        }
        made.minutes.push((this, one.is_cumulative));
    }
    Ok(made)
}

/// The last sample of the stored minutes before `at`, as far as is looked back.
fn last_before(stored: &[Minute], at: u32) -> Option<f64> {
    let near = |minute: &&Minute| minute.at < at && minute.at >= at.saturating_sub(LOOK_BACK_S);
    stored.iter().rev().filter(near).find_map(|minute| minute.bucket.summary.last)
}

/// The first minute after this one with a sample, if its increase is another one now.
fn next_after(stored: &[Minute], this: &Minute) -> Option<Minute> {
    let has_sample = |minute: &&Minute| minute.bucket.summary.first.is_some();
    let next = stored.iter().filter(|minute| minute.at > this.at).find(has_sample)?;
    let Bucket { summary, .. } = this.bucket;
    let before: Vec<Minute> = stored.iter().filter(|m| m.at < this.at).copied().collect();
    let before = summary.last.or_else(|| last_before(&before, next.at));
    let increase = next.bucket.increase(before);
    (increase.map(f64::to_bits) != next.increase.map(f64::to_bits))
        .then_some(Minute { increase, ..*next })
}
