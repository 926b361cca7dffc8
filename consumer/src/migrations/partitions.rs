//! Which partitions the partitioned tables have and should have. The migration makes the
//! first ones, the keeper all later ones and drops the old; both ask here, so that names and
//! bounds can't differ. A partition is named `p` and the second at which it ends.

use std::fmt::Write as _;

use sqlx::MySqlConnection;

/// One ALTER adds at most this many partitions: an hour's tree each, two weeks of them.
const ADDED_AT_ONCE_MAX: usize = 400;

/// A table partitioned by a column of seconds into equal steps, always made some way ahead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Partitioned {
    /// The table, in `spillway_store`.
    pub name: &'static str,
    pub step_s: u32,
    /// How far ahead of now there must be partitions.
    pub ahead_s: u32,
}

/// Hourly by window_ts: one hour's tree stays small.
pub const POINTS: Partitioned = Partitioned { name: "points", step_s: 3600, ahead_s: 48 * 3600 };
/// Daily by applied_ts.
pub const AUDIT: Partitioned = Partitioned { name: "audit", step_s: 86_400, ahead_s: 7 * 86_400 };
/// Daily by minute_ts: some 90 of them.
pub const ROLLUP_1M: Partitioned =
    Partitioned { name: "rollup_1m", step_s: 86_400, ahead_s: 7 * 86_400 };
/// By hour_ts, thirty days each: some forty of them in three years.
pub const ROLLUP_1H: Partitioned =
    Partitioned { name: "rollup_1h", step_s: 30 * 86_400, ahead_s: 30 * 86_400 };

impl Partitioned {
    /// The partition clauses of a new table: from `back_s` before now to `ahead_s` after.
    pub fn first_partitions(&self, now_s: u32, back_s: u32) -> String {
        clauses(&self.ends_between(now_s.saturating_sub(back_s), now_s))
    }

    /// The ends still to be made, given those that exist. After a long stop the gap before the
    /// table's first new partition stays one wide partition instead of thousands of empty ones.
    pub fn missing(&self, ends: &[u32], now_s: u32) -> Vec<u32> {
        let newest = ends.iter().copied().max().unwrap_or(0);
        let mut missing = self.ends_between(now_s.max(newest), now_s);
        missing.truncate(ADDED_AT_ONCE_MAX);
        missing
    }

    /// The ends of partitions that hold nothing younger than `keep_s`; never the last one left.
    pub fn outlived(&self, ends: &[u32], now_s: u32, keep_s: u32) -> Vec<u32> {
        let newest = ends.iter().copied().max().unwrap_or(0);
        let old = |end: &&u32| **end < newest && **end <= now_s.saturating_sub(keep_s);
        ends.iter().filter(old).copied().collect()
    }

    /// The statement that adds these partitions, in order; None when there are none.
    pub fn add_ddl(&self, ends: &[u32]) -> Option<String> {
        let table = self.name;
        (!ends.is_empty()).then(|| {
            format!("ALTER TABLE spillway_store.{table} ADD PARTITION ({})", clauses(ends))
        })
    }

    /// The statement that drops this partition with all it holds.
    pub fn drop_ddl(&self, end: u32) -> String {
        format!("ALTER TABLE spillway_store.{} DROP PARTITION p{end}", self.name)
    }

    /// The ends of the partitions that exist, ascending. The caller sets the deadline.
    pub async fn ends(&self, conn: &mut MySqlConnection) -> Result<Vec<u32>, sqlx::Error> {
        let sql =
            "SELECT CAST(partition_description AS UNSIGNED) FROM information_schema.partitions
                   WHERE table_schema = 'spillway_store' AND table_name = ?
                     AND partition_description REGEXP '^[0-9]+$'
                   ORDER BY partition_ordinal_position";
        let ends: Vec<u64> = sqlx::query_scalar(sql).bind(self.name).fetch_all(conn).await?;
        Ok(ends.into_iter().filter_map(|end| u32::try_from(end).ok()).collect())
    }

    /// Every step's end after `from_s`, until `ahead_s` beyond `now_s` is covered.
    fn ends_between(&self, from_s: u32, now_s: u32) -> Vec<u32> {
        let first = from_s / self.step_s * self.step_s;
        let until = now_s.saturating_add(self.ahead_s);
        let next = |end: &u32| (*end < until).then(|| end.checked_add(self.step_s)).flatten();
        let ends = std::iter::successors(Some(first), next);
        ends.skip(1).collect()
    }
}

fn clauses(ends: &[u32]) -> String {
    let mut sql = String::new();
    for end in ends {
        let comma = if sql.is_empty() { "" } else { ",\n  " };
        // Writing to a String can't fail.
        write!(sql, "{comma}PARTITION p{end} VALUES LESS THAN ({end})").unwrap_or_default();
    }
    sql
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: Partitioned = Partitioned { name: "points", step_s: 3600, ahead_s: 7200 };

    #[test]
    fn a_new_table_reaches_from_the_oldest_kept_hour_to_the_hours_ahead() {
        let sql = TABLE.first_partitions(36_100, 3600);
        let ends = ["36000", "39600", "43200", "46800"];
        assert_eq!(sql.matches("VALUES LESS THAN").count(), ends.len(), "{sql}");
        for end in ends {
            assert!(sql.contains(&format!("PARTITION p{end} VALUES LESS THAN ({end})")), "{sql}");
        }
    }

    #[test]
    fn only_what_lies_beyond_the_newest_partition_is_missing() {
        assert_eq!(TABLE.missing(&[36_000, 39_600], 36_100), [43_200, 46_800]);
        assert_eq!(TABLE.missing(&[43_200, 46_800], 36_100), Vec::<u32>::new());
    }

    #[test]
    fn after_a_long_stop_the_hours_that_passed_share_one_partition() {
        assert_eq!(TABLE.missing(&[3600], 36_100), [39_600, 43_200, 46_800]);
    }

    #[test]
    fn partitions_are_outlived_once_all_in_them_is_too_old_and_the_newest_never_is() {
        assert_eq!(TABLE.outlived(&[3600, 7200, 10_800], 14_400, 7200), [3600, 7200]);
        assert_eq!(TABLE.outlived(&[3600], 1_000_000, 7200), Vec::<u32>::new());
    }
}
