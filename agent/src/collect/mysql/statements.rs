//! The statements that took the most time since the last read, as performance_schema counts them
//! by digest. Only what ran since is asked for, so that a server that knows 10,000 digests is
//! not asked for all of them; text is fetched for those alone that are told.

use std::borrow::Cow;
use std::collections::HashMap;

use spillway_proto::Kind::Delta;
use sqlx::{Executor as _, Row as _};
use xxhash_rust::xxh3::xxh3_64;

use super::{AskError, Link, Readings, text};
use crate::collect::tray::Sample;

/// Digests remembered: the server itself keeps 10,000 unless told otherwise.
const KNOWN_MAX: usize = 20_000;
/// Digests taken in one read.
const ROWS_MAX: usize = 10_000;
/// Of a digest's 64 digits; enough to tell them apart.
const DIGEST_CHARS: usize = 16;

/// Column, metric, unit, and what one of it is in that unit.
const COUNTED: [(&str, &str, &str, f64); 6] = [
    ("SUM_TIMER_WAIT", "mysql.statement.seconds", "seconds", 1e-12),
    ("COUNT_STAR", "mysql.statement.calls", "", 1.0),
    ("SUM_LOCK_TIME", "mysql.statement.lock_seconds", "seconds", 1e-12),
    ("SUM_ERRORS", "mysql.statement.errors", "", 1.0),
    ("SUM_ROWS_EXAMINED", "mysql.statement.rows_examined", "", 1.0),
    ("SUM_ROWS_SENT", "mysql.statement.rows_sent", "", 1.0),
];

type Counts = [f64; COUNTED.len()];

/// What was counted up to the last read.
pub(super) struct Statements {
    top: usize,
    chars: u32,
    known: HashMap<u64, Counts>,
    /// The server's own time of the last read; none before the first.
    since: Option<String>,
}

struct Grown {
    digest: String,
    schema: String,
    by: Counts,
}

impl Statements {
    pub(super) fn new(top: u32, chars: u32) -> Self {
        Self { top: top as usize, chars, known: HashMap::new(), since: None }
    }

    pub(super) async fn read(
        &mut self,
        link: &mut Link,
        into: &mut Readings<'_>,
    ) -> Result<(), AskError> {
        let now = link.conn.fetch_one(sqlx::raw_sql("SELECT NOW(6)")).await?;
        let now = text(&now, 0);
        let mut grown = self.grown(link).await?;
        self.since = now;
        grown.sort_by(|a, b| b.by[0].total_cmp(&a.by[0]));
        grown.truncate(self.top);
        for one in &grown {
            let statement = self.statement(link, one).await?;
            let digest = one.digest.get(..DIGEST_CHARS).unwrap_or(&one.digest);
            let labels = [
                (Cow::from("digest"), Cow::from(digest)),
                (Cow::from("schema"), Cow::from(one.schema.as_str())),
                (Cow::from("statement"), Cow::from(statement)),
            ];
            for ((_, metric, unit, of_one), by) in COUNTED.iter().zip(one.by) {
                let (value, ts_ms, kind) = (by * of_one, into.ts_ms, Delta);
                into.out.push(&Sample { metric, labels: &labels, kind, unit, ts_ms, value })?;
            }
        }
        Ok(())
    }

    /// What ran since the last read, and by how much it grew. The first read only looks.
    async fn grown(&mut self, link: &mut Link) -> Result<Vec<Grown>, AskError> {
        let columns = COUNTED.map(|(column, ..)| column).join(", ");
        let first = self.since.is_none();
        let filter = if first { "" } else { "AND LAST_SEEN >= ?" };
        let query = format!(
            "SELECT DIGEST, COALESCE(SCHEMA_NAME, ''), {columns} \
             FROM performance_schema.events_statements_summary_by_digest \
             WHERE DIGEST IS NOT NULL {filter} LIMIT {ROWS_MAX}"
        );
        let mut query = sqlx::query(&query);
        if let Some(since) = &self.since {
            query = query.bind(since);
        }
        let rows = link.conn.fetch_all(query.persistent(false)).await?;
        let mut grown = Vec::new();
        for row in &rows {
            let Some(digest) = text(row, 0) else { continue };
            let schema = text(row, 1).unwrap_or_default();
            let mut counts = Counts::default();
            for (at, count) in counts.iter_mut().enumerate() {
                let counted = row.try_get_unchecked::<Option<u64>, _>(at + 2).ok().flatten();
                *count = counted.unwrap_or(0) as f64;
            }
            let key = xxh3_64(format!("{digest}\0{schema}").as_bytes());
            let before = self.known.insert(key, counts);
            if first {
                continue;
            }
            let mut by = before.unwrap_or_default();
            by.iter_mut().zip(counts).for_each(|(by, now)| *by = now - *by);
            // Somebody truncated the table: what is there now is what grew.
            if by.iter().any(|by| *by < 0.0) {
                by = counts;
            }
            if by[1] > 0.0 {
                grown.push(Grown { digest, schema, by });
            }
        }
        if self.known.len() > KNOWN_MAX {
            self.known.clear();
            self.since = None;
        }
        Ok(grown)
    }

    /// Its text: without literals, which the server replaced by `?`, and cut.
    async fn statement(&self, link: &mut Link, one: &Grown) -> Result<String, AskError> {
        let query = "SELECT LEFT(DIGEST_TEXT, ?) \
                     FROM performance_schema.events_statements_summary_by_digest \
                     WHERE DIGEST = ? LIMIT 1";
        let query = sqlx::query(query).bind(self.chars).bind(&one.digest).persistent(false);
        let row = link.conn.fetch_optional(query).await?;
        Ok(row.and_then(|row| text(&row, 0)).unwrap_or_default())
    }
}
