//! How far a replica is. A server that follows none says nothing here.

use std::borrow::Cow;

use spillway_proto::Kind::Gauge;
use sqlx::mysql::MySqlRow;
use sqlx::{Column as _, Executor as _, Row as _};

use super::{AskError, Link, Readings, text};
use crate::collect::tray::Sample;

/// Channels of one replica; each is four series.
const CHANNELS_MAX: usize = 32;

/// The state of every channel.
pub(super) async fn read(link: &mut Link, into: &mut Readings<'_>) -> Result<(), AskError> {
    let query = if link.mariadb { "SHOW ALL SLAVES STATUS" } else { "SHOW REPLICA STATUS" };
    let rows = link.conn.fetch_all(sqlx::raw_sql(query)).await?;
    for row in rows.iter().take(CHANNELS_MAX) {
        let channel = named(row, &["Channel_Name", "Connection_name"]).unwrap_or_default();
        let labels = [(Cow::from("channel"), Cow::from(channel))];
        let running =
            |names: &[&str]| named(row, names).map(|state| f64::from(u8::from(state == "Yes")));
        let io = running(&["Replica_IO_Running", "Slave_IO_Running"]);
        // A replica that does not reach its source may well say 0: it applied all it has. How far
        // behind it is, it can't know, and then no lag is told.
        let lag = number(row, &["Seconds_Behind_Source", "Seconds_Behind_Master"]);
        let lag = lag.filter(|_| io == Some(1.0));
        let facts = [
            ("io_running", "", io),
            ("sql_running", "", running(&["Replica_SQL_Running", "Slave_SQL_Running"])),
            ("lag_seconds", "seconds", lag),
            ("relay_log_bytes", "bytes", number(row, &["Relay_Log_Space"])),
        ];
        for (name, unit, value) in facts {
            let Some(value) = value else { continue };
            let (ts_ms, kind) = (into.ts_ms, Gauge);
            let metric = &format!("mysql.replication.{name}");
            into.out.push(&Sample { metric, labels: &labels, kind, unit, ts_ms, value })?;
        }
    }
    Ok(())
}

/// The column with one of these names.
fn named(row: &MySqlRow, names: &[&str]) -> Option<String> {
    let found = |column: &&sqlx::mysql::MySqlColumn| names.contains(&column.name());
    text(row, row.columns().iter().find(found)?.ordinal())
}

fn number(row: &MySqlRow, names: &[&str]) -> Option<f64> {
    named(row, names)?.parse().ok()
}
