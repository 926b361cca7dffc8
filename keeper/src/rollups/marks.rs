//! Marks: what must be made again. The consumer raises a minute's version in the very transaction
//! that changes its points; here one is read before the points are, and cleared only at the
//! version that was read. Hours have marks of their own, raised by the minutes made.

use spillway_runtime::mysql::Session;

use super::list::{padded, places};
use crate::mutant::{Mutant, is};
use crate::shard::{ShardError, answer};

/// A host's minute or hour, and the version of its mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Mark {
    pub at: u32,
    pub host_id: u64,
    pub version: u64,
}

/// Which marks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Span {
    Minute,
    Hour,
}

/// From which end they are taken, so that neither today nor the past waits for the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Newest,
    Oldest,
}

impl Span {
    /// In metrics.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Minute => "minute",
            Self::Hour => "hour",
        }
    }

    /// Table and column.
    const fn names(self) -> (&'static str, &'static str) {
        match self {
            Self::Minute => ("rollup_marks", "minute_ts"),
            Self::Hour => ("rollup_hour_marks", "hour_ts"),
        }
    }
}

/// Up to `most` marks that begin at `until` or earlier. An hour waits while one of its minutes
/// does: it is made once instead of sixty times.
pub async fn take(
    session: &mut Session,
    (span, end): (Span, End),
    until: u32,
    most: u32,
) -> Result<Vec<Mark>, ShardError> {
    let (table, column) = span.names();
    let minutes_done = match span {
        Span::Minute => "",
        Span::Hour => {
            "AND NOT EXISTS (SELECT 1 FROM rollup_marks m WHERE m.host_id = k.host_id
               AND m.minute_ts >= k.hour_ts AND m.minute_ts < k.hour_ts + 3600)"
        }
    };
    let order = if end == End::Newest { "DESC" } else { "ASC" };
    let sql = format!(
        "SELECT {column}, host_id, version FROM {table} k WHERE {column} <= ? {minutes_done}
         ORDER BY {column} {order} LIMIT ?"
    );
    let query = sqlx::query_as::<_, (u32, u64, u64)>(&sql).bind(until).bind(most);
    let found = answer(query.fetch_all(&mut **session)).await?;
    let mark = |(at, host_id, version)| Mark { at, host_id, version };
    Ok(found.into_iter().map(mark).collect())
}

/// Clears marks at the versions that were read, and no other. How many there were.
pub async fn clear(session: &mut Session, span: Span, marks: &[Mark]) -> Result<u64, ShardError> {
    let (table, column) = span.names();
    let version = if is(Mutant::ClearNewerMark) { "version >= ?" } else { "version = ?" };
    let one = format!("(host_id = ? AND {column} = ? AND {version})");
    let mut cleared = 0;
    // In the order of the key, as the consumer raises them: neither waits for the other in a ring.
    let mut marks = marks.to_vec();
    marks.sort_unstable_by_key(|mark| (mark.host_id, mark.at));
    for marks in padded(&marks) {
        let any = vec![one.as_str(); marks.len()].join(" OR ");
        let sql = format!("DELETE FROM {table} WHERE {any}");
        let mut query = sqlx::query(&sql);
        for mark in marks {
            query = query.bind(mark.host_id).bind(mark.at).bind(mark.version);
        }
        cleared += answer(query.execute(&mut **session)).await?.rows_affected();
    }
    Ok(cleared)
}

/// Marks hours, given as (host, hour).
pub async fn raise_hours(session: &mut Session, hours: &[(u64, u32)]) -> Result<(), ShardError> {
    for hours in padded(hours) {
        let sql = format!(
            "INSERT INTO rollup_hour_marks (host_id, hour_ts, version) VALUES {}
             ON DUPLICATE KEY UPDATE version = version + 1",
            places("(?, ?, 1)", hours.len())
        );
        let mut query = sqlx::query(&sql);
        for (host_id, hour) in hours {
            query = query.bind(host_id).bind(hour);
        }
        answer(query.execute(&mut **session)).await?;
    }
    Ok(())
}
