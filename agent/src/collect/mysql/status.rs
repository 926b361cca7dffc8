//! Global status and variables, and what InnoDB counts beside them: a chosen list, each with its
//! kind and unit. docs/inputs.md lists the same; a test holds them together.

use spillway_proto::Kind;
use spillway_proto::Kind::{Cumulative, Gauge};
use sqlx::Executor as _;

use super::{AskError, Link, Readings, number, text};

/// Name in the server, kind, unit. The metric is `mysql.status.` and the name in small letters.
pub(super) const STATUS: &[(&str, Kind, &str)] = &[
    ("Aborted_clients", Cumulative, ""),
    ("Aborted_connects", Cumulative, ""),
    ("Binlog_cache_disk_use", Cumulative, ""),
    ("Bytes_received", Cumulative, "bytes"),
    ("Bytes_sent", Cumulative, "bytes"),
    ("Com_begin", Cumulative, ""),
    ("Com_commit", Cumulative, ""),
    ("Com_delete", Cumulative, ""),
    ("Com_insert", Cumulative, ""),
    ("Com_replace", Cumulative, ""),
    ("Com_rollback", Cumulative, ""),
    ("Com_select", Cumulative, ""),
    ("Com_update", Cumulative, ""),
    ("Connection_errors_max_connections", Cumulative, ""),
    ("Connections", Cumulative, ""),
    ("Created_tmp_disk_tables", Cumulative, ""),
    ("Created_tmp_files", Cumulative, ""),
    ("Created_tmp_tables", Cumulative, ""),
    ("Handler_read_first", Cumulative, ""),
    ("Handler_read_key", Cumulative, ""),
    ("Handler_read_next", Cumulative, ""),
    ("Handler_read_rnd", Cumulative, ""),
    ("Handler_read_rnd_next", Cumulative, ""),
    ("Handler_write", Cumulative, ""),
    ("Innodb_buffer_pool_bytes_data", Gauge, "bytes"),
    ("Innodb_buffer_pool_bytes_dirty", Gauge, "bytes"),
    ("Innodb_buffer_pool_pages_free", Gauge, ""),
    ("Innodb_buffer_pool_pages_total", Gauge, ""),
    ("Innodb_buffer_pool_read_requests", Cumulative, ""),
    ("Innodb_buffer_pool_reads", Cumulative, ""),
    ("Innodb_buffer_pool_wait_free", Cumulative, ""),
    ("Innodb_data_fsyncs", Cumulative, ""),
    ("Innodb_data_read", Cumulative, "bytes"),
    ("Innodb_data_written", Cumulative, "bytes"),
    ("Innodb_log_waits", Cumulative, ""),
    ("Innodb_os_log_written", Cumulative, "bytes"),
    ("Innodb_row_lock_current_waits", Gauge, ""),
    ("Innodb_row_lock_time", Cumulative, "ms"),
    ("Innodb_row_lock_waits", Cumulative, ""),
    ("Innodb_rows_deleted", Cumulative, ""),
    ("Innodb_rows_inserted", Cumulative, ""),
    ("Innodb_rows_read", Cumulative, ""),
    ("Innodb_rows_updated", Cumulative, ""),
    ("Max_used_connections", Gauge, ""),
    ("Open_files", Gauge, ""),
    ("Open_tables", Gauge, ""),
    ("Opened_tables", Cumulative, ""),
    ("Prepared_stmt_count", Gauge, ""),
    ("Queries", Cumulative, ""),
    ("Questions", Cumulative, ""),
    ("Select_full_join", Cumulative, ""),
    ("Select_scan", Cumulative, ""),
    ("Slow_queries", Cumulative, ""),
    ("Sort_merge_passes", Cumulative, ""),
    ("Sort_rows", Cumulative, ""),
    ("Table_locks_immediate", Cumulative, ""),
    ("Table_locks_waited", Cumulative, ""),
    ("Table_open_cache_misses", Cumulative, ""),
    ("Threads_cached", Gauge, ""),
    ("Threads_connected", Gauge, ""),
    ("Threads_created", Cumulative, ""),
    ("Threads_running", Gauge, ""),
    ("Uptime", Gauge, "seconds"),
];

/// What an operator compares the above with. The metric is `mysql.variables.` and the name.
pub(super) const VARIABLES: &[(&str, &str)] = &[
    ("binlog_expire_logs_seconds", "seconds"),
    ("innodb_buffer_pool_size", "bytes"),
    ("innodb_flush_log_at_trx_commit", ""),
    ("innodb_io_capacity", ""),
    ("long_query_time", "seconds"),
    ("max_allowed_packet", "bytes"),
    ("max_connections", ""),
    ("open_files_limit", ""),
    ("read_only", ""),
    ("super_read_only", ""),
    ("sync_binlog", ""),
    ("table_open_cache", ""),
    ("thread_cache_size", ""),
];

/// InnoDB's counters that status lacks. Those that the server has switched off are left out.
pub(super) const INNODB: &[(&str, Kind, &str)] = &[
    ("lock_deadlocks", Cumulative, ""),
    ("lock_timeouts", Cumulative, ""),
    ("log_lsn_checkpoint_age", Gauge, "bytes"),
    ("trx_rseg_history_len", Gauge, ""),
];

/// Global status and variables.
pub(super) async fn read(link: &mut Link, into: &mut Readings<'_>) -> Result<(), AskError> {
    for row in link.conn.fetch_all(sqlx::raw_sql("SHOW GLOBAL STATUS")).await? {
        let (Some(name), Some(value)) = (text(&row, 0), number(&row, 1)) else { continue };
        let known = STATUS.iter().find(|(known, ..)| known.eq_ignore_ascii_case(&name));
        if let Some((known, kind, unit)) = known {
            let metric = format!("mysql.status.{}", known.to_ascii_lowercase());
            into.push(&metric, *kind, unit, value)?;
        }
    }
    for row in link.conn.fetch_all(sqlx::raw_sql("SHOW GLOBAL VARIABLES")).await? {
        let (Some(name), Some(value)) = (text(&row, 0), text(&row, 1)) else { continue };
        let Some((known, unit)) = VARIABLES.iter().find(|(known, _)| *known == name) else {
            continue;
        };
        if let Some(value) = switch_or_number(&value) {
            into.push(&format!("mysql.variables.{known}"), Gauge, unit, value)?;
        }
    }
    Ok(())
}

/// InnoDB's own counters.
pub(super) async fn innodb(link: &mut Link, into: &mut Readings<'_>) -> Result<(), AskError> {
    let names: Vec<_> = INNODB.iter().map(|(name, ..)| format!("'{name}'")).collect();
    // MariaDB calls a counter that is on 1 where MySQL says 'enabled'.
    let on = if link.mariadb { "ENABLED = 1" } else { "STATUS = 'enabled'" };
    let query = format!(
        "SELECT NAME, COUNT FROM information_schema.INNODB_METRICS WHERE {on} AND NAME IN ({})",
        names.join(", ")
    );
    for row in link.conn.fetch_all(sqlx::raw_sql(&query)).await? {
        let (Some(name), Some(value)) = (text(&row, 0), number(&row, 1)) else { continue };
        if let Some((known, kind, unit)) = INNODB.iter().find(|(known, ..)| *known == name) {
            into.push(&format!("mysql.innodb.{known}"), *kind, unit, value)?;
        }
    }
    Ok(())
}

fn switch_or_number(value: &str) -> Option<f64> {
    match value {
        "ON" => Some(1.0),
        "OFF" => Some(0.0),
        text => text.parse().ok().filter(|value: &f64| value.is_finite()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = include_str!("../../../../docs/inputs.md");

    #[test]
    fn the_book_lists_every_name_with_its_kind_and_unit() {
        let row = |start: &str, name: &str| {
            let of = |line: &&str| line.starts_with(start) && line.contains(name);
            PAGE.lines().find(of).unwrap_or_else(|| panic!("{name} is not in docs/inputs.md"))
        };
        let kind_of = |kind: Kind| format!("{kind:?}").to_lowercase();
        for (name, kind, unit) in STATUS {
            let name = format!("`{}`", name.to_ascii_lowercase());
            let row = row("| `mysql.status.`", &name);
            assert!(row.ends_with(&format!("| {} | {unit} |", kind_of(*kind))), "{name}: {row}");
        }
        for (name, unit) in VARIABLES {
            let row = row("| `mysql.variables.`", &format!("`{name}`"));
            assert!(row.ends_with(&format!("| gauge | {unit} |")), "{name}: {row}");
        }
        for (name, kind, unit) in INNODB {
            let row = row(&format!("| `mysql.innodb.{name}`"), name);
            assert!(row.ends_with(&format!("| {} | {unit} |", kind_of(*kind))), "{name}: {row}");
        }
    }

    #[test]
    fn names_are_told_once_and_switches_are_numbers() {
        let names = STATUS.iter().map(|(name, ..)| name.to_ascii_lowercase());
        assert!(names.collect::<Vec<_>>().is_sorted_by(|a, b| a < b));
        assert_eq!(switch_or_number("ON"), Some(1.0));
        assert_eq!(switch_or_number("OFF"), Some(0.0));
        assert_eq!(switch_or_number("134217728"), Some(134_217_728.0));
        assert_eq!(switch_or_number("utf8mb4"), None);
    }
}
