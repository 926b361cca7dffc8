//! What an error of MySQL means for the transaction in hand.
//!
//! Promise: only what the server says about a row's own content can send a record to dead letters.
//! Everything transient, and everything unknown, is tried again.

use spillway_runtime::mysql::CheckoutError;

use super::StoreError;

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// The same transaction again, soon, on the same connection once it is rolled back.
    Retry,
    /// The connection is gone or of no use: a new one, then the same again.
    Reconnect,
    /// Too much at once: the same with half of the records.
    Split,
    /// An operator or time must mend something: the same again, with long pauses.
    Wait(Trouble),
    /// The rows exist: merge with them.
    Duplicate,
    /// One record's content is refused: find out which, then dead letters.
    Poison(u16),
}

/// What stands in the way, for logs, metrics and runbooks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Trouble {
    /// 1129: the server blocks this host after broken handshakes.
    HostBlocked,
    TooManyConnections,
    /// Not a primary any more, or not yet.
    ReadOnly,
    /// No partition for a window: the keeper is behind.
    NoPartition,
    DiskFull,
    /// The server takes no packet of the size that a statement of ours may have.
    SmallPackets,
    /// Login, rights or schema are not as they must be.
    Setup,
    /// An error this table does not know.
    Unknown,
}

impl Verdict {
    /// The word for metrics.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Retry => "retry",
            Self::Reconnect => "reconnect",
            Self::Split => "split",
            Self::Wait(trouble) => trouble.word(),
            Self::Duplicate => "duplicate",
            Self::Poison(_) => "poison",
        }
    }
}

impl Trouble {
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::HostBlocked => "host-blocked",
            Self::TooManyConnections => "too-many-connections",
            Self::ReadOnly => "read-only",
            Self::NoPartition => "no-partition",
            Self::DiskFull => "disk-full",
            Self::SmallPackets => "small-packets",
            Self::Setup => "setup",
            Self::Unknown => "unknown",
        }
    }

    /// What an operator does about it.
    #[must_use]
    pub fn remedy(self) -> &'static str {
        match self {
            Self::HostBlocked => "run FLUSH HOSTS on the shard (or `spillway doctor`)",
            Self::TooManyConnections => "find who holds them: SHOW PROCESSLIST",
            Self::ReadOnly => "finish the switchover: shards.toml must name the writable primary",
            Self::NoPartition => "see why the keeper makes no partitions",
            Self::SmallPackets => "raise max_allowed_packet; MySQL's default of 64M is right",
            Self::DiskFull => "free disk space on the shard",
            Self::Setup => "check user, grants and `spillway migrate` on the shard",
            Self::Unknown => "read the shard's error log",
        }
    }
}

/// The verdict on any failure of the store.
#[must_use]
pub fn classify(error: &StoreError) -> Verdict {
    match error {
        StoreError::Sql(error) => of_sqlx(error),
        StoreError::Late(_) => Verdict::Reconnect,
        StoreError::Refused { .. } => Verdict::Retry,
        StoreError::Shape(_) | StoreError::Vals(_) => Verdict::Wait(Trouble::Setup),
    }
}

/// The verdict on a connection that could not be made.
#[must_use]
pub fn of_checkout(error: &CheckoutError) -> Verdict {
    match error {
        CheckoutError::Late(_) => Verdict::Reconnect,
        CheckoutError::Sql(error) => of_sqlx(error),
    }
}

/// The verdict on an error of the client library.
#[must_use]
pub fn of_sqlx(error: &sqlx::Error) -> Verdict {
    match error {
        sqlx::Error::Database(database) => {
            let mysql = database.try_downcast_ref::<sqlx::mysql::MySqlDatabaseError>();
            mysql.map_or(Verdict::Wait(Trouble::Unknown), |error| of_number(error.number()))
        }
        sqlx::Error::Io(_)
        | sqlx::Error::Tls(_)
        | sqlx::Error::Protocol(_)
        | sqlx::Error::PoolTimedOut
        | sqlx::Error::PoolClosed
        | sqlx::Error::WorkerCrashed => Verdict::Reconnect,
        sqlx::Error::Configuration(_)
        | sqlx::Error::ColumnNotFound(_)
        | sqlx::Error::ColumnIndexOutOfBounds { .. }
        | sqlx::Error::ColumnDecode { .. }
        | sqlx::Error::TypeNotFound { .. }
        | sqlx::Error::RowNotFound => Verdict::Wait(Trouble::Setup),
        _ => Verdict::Wait(Trouble::Unknown),
    }
}

/// The verdict on an error number of the server; names as in MySQL's reference.
#[must_use]
pub fn of_number(number: u16) -> Verdict {
    match number {
        // ER_LOCK_WAIT_TIMEOUT, ER_LOCK_DEADLOCK, ER_QUERY_INTERRUPTED, ER_QUERY_TIMEOUT,
        // ER_NEED_REPREPARE, MariaDB's ER_STATEMENT_TIMEOUT and ER_CHECKREAD.
        1205 | 1213 | 1317 | 3024 | 1615 | 1969 | 1020 => Verdict::Retry,
        // ER_SERVER_SHUTDOWN, ER_NORMAL_SHUTDOWN, ER_NEW_ABORTING_CONNECTION and the ER_NET ones,
        // CR_SERVER_GONE_ERROR, CR_SERVER_LOST, ER_CLIENT_INTERACTION_TIMEOUT, MariaDB's
        // ER_CONNECTION_KILLED, ER_UNKNOWN_STMT_HANDLER.
        1053 | 1077 | 1184 | 1158..=1161 | 2006 | 2013 | 4031 | 1927 | 1243 => Verdict::Reconnect,
        // ER_NET_PACKET_TOO_LARGE, ER_TRANS_CACHE_FULL, ER_LOCK_TABLE_FULL, ER_OUT_OF_RESOURCES
        // and ER_OUTOFMEMORY.
        1153 | 1197 | 1206 | 1037 | 1038 | 1041 => Verdict::Split,
        // ER_HOST_IS_BLOCKED
        1129 => Verdict::Wait(Trouble::HostBlocked),
        // ER_CON_COUNT_ERROR, ER_TOO_MANY_USER_CONNECTIONS, ER_USER_LIMIT_REACHED
        1040 | 1203 | 1226 => Verdict::Wait(Trouble::TooManyConnections),
        // ER_OPTION_PREVENTS_STATEMENT, ER_READ_ONLY_MODE, ER_CANT_EXECUTE_IN_READ_ONLY_TRANSACTION
        1290 | 1836 | 1792 => Verdict::Wait(Trouble::ReadOnly),
        // ER_NO_PARTITION_FOR_GIVEN_VALUE
        1526 => Verdict::Wait(Trouble::NoPartition),
        // ER_RECORD_FILE_FULL, ER_DISK_FULL, ER_ERROR_ON_WRITE
        1114 | 1021 | 1026 => Verdict::Wait(Trouble::DiskFull),
        // ER_ACCESS_DENIED_ERROR, ER_DBACCESS_DENIED_ERROR, ER_TABLEACCESS_DENIED_ERROR,
        // ER_COLUMNACCESS_DENIED_ERROR, ER_SPECIFIC_ACCESS_DENIED_ERROR, ER_NO_SUCH_TABLE,
        // ER_BAD_DB_ERROR, ER_BAD_FIELD_ERROR, ER_PARSE_ERROR, ER_MUST_CHANGE_PASSWORD_LOGIN,
        // ER_ACCOUNT_HAS_BEEN_LOCKED, ER_HOST_NOT_PRIVILEGED.
        1045 | 1044 | 1142 | 1143 | 1227 | 1146 | 1049 | 1054 | 1064 | 1862 | 3118 | 1130 => {
            Verdict::Wait(Trouble::Setup)
        }
        // ER_DUP_ENTRY
        1062 => Verdict::Duplicate,
        // ER_WARN_DATA_OUT_OF_RANGE, ER_DATA_TOO_LONG, ER_TRUNCATED_WRONG_VALUE_FOR_FIELD,
        // WARN_DATA_TRUNCATED, ER_BAD_NULL_ERROR, ER_INVALID_CHARACTER_STRING,
        // ER_ILLEGAL_VALUE_FOR_TYPE, ER_TRUNCATED_WRONG_VALUE, ER_CANNOT_CONVERT_STRING.
        1264 | 1406 | 1366 | 1265 | 1048 | 1300 | 1367 | 1292 | 3854 => Verdict::Poison(number),
        _ => Verdict::Wait(Trouble::Unknown),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use spillway_runtime::deadline::DeadlineExceeded;

    use super::*;

    #[test]
    fn every_error_of_the_design_has_its_class() {
        use Trouble::*;
        use Verdict::*;
        let expected = [
            (1129, Wait(HostBlocked)),
            (1040, Wait(TooManyConnections)),
            (1205, Retry),
            (1213, Retry),
            (1264, Poison(1264)),
            (1290, Wait(ReadOnly)),
            (1526, Wait(NoPartition)),
            (2006, Reconnect),
            (2013, Reconnect),
            (1114, Wait(DiskFull)),
            (1153, Split),
            (1062, Duplicate),
            (1045, Wait(Setup)),
            (1044, Wait(Setup)),
            (1142, Wait(Setup)),
            (1146, Wait(Setup)),
            (1053, Reconnect),
            (1197, Split),
            (1836, Wait(ReadOnly)),
            (1406, Poison(1406)),
            (1366, Poison(1366)),
            (1317, Retry),
        ];
        for (number, verdict) in expected {
            assert_eq!(of_number(number), verdict, "{number}");
        }
    }

    #[test]
    fn only_errors_about_a_rows_content_can_lead_to_dead_letters() {
        let content = [1048, 1264, 1265, 1292, 1300, 1366, 1367, 1406, 3854];
        for number in 0..=u16::MAX {
            let poison = matches!(of_number(number), Verdict::Poison(_));
            assert_eq!(poison, content.contains(&number), "{number}");
        }
    }

    #[test]
    fn silence_and_broken_connections_ask_for_a_new_connection() {
        let broken = std::io::Error::from(std::io::ErrorKind::ConnectionReset);
        let errors = [
            StoreError::Late(DeadlineExceeded { after: Duration::from_secs(1) }),
            StoreError::Sql(sqlx::Error::Io(broken)),
            StoreError::Sql(sqlx::Error::PoolTimedOut),
            StoreError::Sql(sqlx::Error::WorkerCrashed),
            StoreError::Sql(sqlx::Error::Protocol("cut off".into())),
        ];
        for error in errors {
            assert_eq!(classify(&error), Verdict::Reconnect, "{error}");
        }
    }

    #[test]
    fn an_unexpected_answer_waits_for_an_operator() {
        for error in [StoreError::Shape("x"), StoreError::Sql(sqlx::Error::RowNotFound)] {
            assert_eq!(classify(&error), Verdict::Wait(Trouble::Setup));
        }
    }
}
