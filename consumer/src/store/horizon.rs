//! Which windows still have a partition in `points`.
//!
//! The table has no lower bound of its own: a row older than its first partition would land in
//! that one, in the wrong hour. So what lies below it is judged expired instead.

use std::time::Duration;

use spillway_runtime::deadline::within;
use sqlx::mysql::MySqlConnection;

use super::StoreError;
use crate::migrations::partitions::POINTS;

/// The first window that has a partition of its own; 0 when there is none, and then every INSERT
/// says so itself.
pub async fn floor_ts(conn: &mut MySqlConnection, limit: Duration) -> Result<u32, StoreError> {
    let ends = within(limit, POINTS.ends(conn)).await??;
    Ok(ends.first().map_or(0, |end| end.saturating_sub(POINTS.step_s)))
}
