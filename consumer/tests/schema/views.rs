//! What a dashboard sees: times, summaries, gap states, pruning, and nobody else's rows.

use sqlx::{Column as _, Row as _};

use crate::server::{Name, Server, column, number, run, text};

/// Two environments with one host each, three windows of points, and every state of a gap.
/// Times hang on @w, the current window.
const ROWS: &str = r#"
SET @w := UNIX_TIMESTAMP() DIV 10 * 10, @old := (UNIX_TIMESTAMP() - 500000) * 1000;
INSERT INTO spillway_store.series VALUES
  (1, 'demo', 'h1', 'cpu', '{"core":"0","mo.de":"a\\"b"}', 1, '%', REPEAT('a', 16), @w-60, @w),
  (2, 'acme', 'h2', 'requests', '{}', 3, '', REPEAT('b', 16), @w-60, @w);
INSERT INTO spillway_store.points VALUES
  (1, @w-20, 2, 3.5, 1.5, 2, 1.5, 2, '[[0,1.5],[9999,"2"]]'),
  (1, @w-10, 4, 10, 1, 4, 1, 4, '[1,2,"3e0",4]'),
  (1, @w, NULL, NULL, NULL, NULL, NULL, NULL, '[[7,"0.1"]]'),
  (2, @w-10, 1, 5, 5, 5, 5, 5, '[[1,null],[2,5]]'),
  (2, @w, NULL, NULL, NULL, NULL, NULL, NULL, '[[7,null]]');
INSERT INTO spillway_store.rollup_1m VALUES
  (1, @w DIV 60 * 60, 3, 6, 1, 3, 1, 3, NULL, NULL),
  (2, @w DIV 60 * 60, 0, NULL, NULL, NULL, NULL, NULL, 0, 0);
INSERT INTO spillway_store.rollup_1h VALUES
  (1, @w DIV 3600 * 3600, 3, 6, 1, 3, 1, 3, NULL), (2, @w DIV 3600 * 3600, 2, 6, 1, 5, 1, 5, 4);
INSERT INTO spillway_store.hosts VALUES
  (11, 'demo', 'h1', UNHEX('0123456789abcdef0123456789abcdef'), '1', @w-60, @w, @w, 5, '{}', 2),
  (12, 'acme', 'h2', NULL, '', @w-60, @w, @w-100, NULL, NULL, NULL);
INSERT INTO spillway_store.ledger_epochs (agent_id, epoch, environment, host, partition_id,
  highest_seq, applied_batches, declared_batches, quarantined_batches, expected_last_seq,
  successor_epoch, successor_at, first_applied_at, last_applied_at) VALUES
  (REPEAT('a', 16), REPEAT('1', 16), 'demo', 'h1', 3, 10, 6, 2, 1, 12, REPEAT('2', 16),
   @old, @old, @old),
  (REPEAT('a', 16), REPEAT('2', 16), 'demo', 'h1', 3, 10, 9, 0, 0, NULL, NULL, NULL, @old, @w*1000),
  (REPEAT('a', 16), REPEAT('3', 16), 'demo', 'h1', 3, 10, 10, 0, 0, NULL, NULL, NULL, @old, @old),
  (REPEAT('b', 16), REPEAT('4', 16), 'acme', 'h2', 4, 5, 9, 0, 0, NULL, NULL, NULL, @old, @w*1000);
INSERT INTO spillway_store.ledger_gaps VALUES
  (REPEAT('a', 16), REPEAT('1', 16), 3, 3, 'missing', '', @w-600000, @w-599990, 0),
  (REPEAT('a', 16), REPEAT('1', 16), 4, 4, 'quarantined', 'crc', NULL, NULL, 0),
  (REPEAT('a', 16), REPEAT('1', 16), 11, 12, 'declared', 'spool full', NULL, NULL, 0),
  (REPEAT('a', 16), REPEAT('2', 16), 7, 7, 'missing', '', @w-60, @w-50, 0),
  (REPEAT('b', 16), REPEAT('4', 16), 2, 2, 'missing', '', @w-60, @w-50, 0);
INSERT INTO spillway_store.events (time_at, timeend_at, environment, kind, text) VALUES
  (@w*1000+7, @w*1000+1007, 'demo', 'deploy', 'x'), (@w*1000, NULL, 'acme', 'deploy', 'y'),
  (@w*1000, NULL, NULL, 'failover', 'z');
INSERT INTO spillway_store.shard_meta (shard) VALUES ('s0');
INSERT INTO spillway_store.lag_measurements VALUES
  ('spillway.live', 3, 5, 10, 5, 0.5, 'OK', @w*1000),
  ('spillway.live', 4, 5, 10, 5, 0.5, 'OK', @w*1000);
"#;

async fn filled() -> Server {
    let mut server = Server::migrated().await;
    server.run(ROWS).await;
    server
}

#[tokio::test]
async fn pairs_and_plain_arrays_unpack_to_single_points_with_their_times() {
    let mut server = filled().await;
    let sql = "SELECT CAST(ROUND((ts - window_ts) * 1000) AS SIGNED), value FROM spillway.metrics
               WHERE series_id = 1 ORDER BY ts";
    let points: Vec<(i64, f64)> = sqlx::query_as(sql).fetch_all(&mut server.conn).await.unwrap();
    let plain = [(0, 1.0), (2500, 2.0), (5000, 3.0), (7500, 4.0)];
    assert_eq!(points[..2], [(0, 1.5), (9999, 2.0)]);
    assert_eq!(points[2..6], plain);
    assert_eq!(points[6..], [(7, 0.1)]);
}

#[tokio::test]
async fn a_null_sample_is_a_point_without_a_value_and_is_not_counted_in_summaries() {
    let mut server = filled().await;
    let sql = "SELECT value FROM spillway.metrics WHERE environment = 'acme' ORDER BY ts";
    let values: Vec<Option<f64>> =
        sqlx::query_scalar(sql).fetch_all(&mut server.conn).await.unwrap();
    assert_eq!(values, [None, Some(5.0), None]);
    let sql = "SELECT cnt, `avg` FROM spillway.metrics_10s WHERE environment = 'acme' ORDER BY ts";
    let rows: Vec<(i64, Option<f64>)> =
        sqlx::query_as(sql).fetch_all(&mut server.conn).await.unwrap();
    assert_eq!(rows, [(1, Some(5.0)), (0, None)]);
}

#[tokio::test]
async fn time_is_utc_with_milliseconds_whatever_the_sessions_zone() {
    let mut server = filled().await;
    for zone in ["+00:00", "-07:00", "+12:45"] {
        server.run(&format!("SET time_zone = '{zone}'")).await;
        for sql in [
            "SELECT COUNT(*) FROM spillway.metrics WHERE ABS(TIMESTAMPDIFF(MICROSECOND,
               '1970-01-01', `time`) - ts * 1e6) >= 1",
            "SELECT COUNT(*) FROM spillway.metrics_10s
             WHERE TIMESTAMPDIFF(SECOND, '1970-01-01', `time`) <> ts",
            "SELECT COUNT(*) FROM spillway.metrics_1m
             WHERE TIMESTAMPDIFF(SECOND, '1970-01-01', `time`) <> ts",
            "SELECT COUNT(*) FROM spillway.hosts
             WHERE TIMESTAMPDIFF(SECOND, '1970-01-01', last_seen) <> last_seen_ts",
            "SELECT COUNT(*) FROM spillway.events WHERE kind = 'deploy' AND environment = 'demo'
               AND TIMESTAMPDIFF(MICROSECOND, '1970-01-01', `time`) % 1000000 <> 7000",
        ] {
            assert_eq!(number(&mut server.conn, sql).await, 0, "{zone}: {sql}");
        }
    }
}

#[tokio::test]
async fn a_filter_on_window_ts_or_on_ts_of_metrics_10s_reads_its_partitions_only() {
    let mut server = filled().await;
    let hour = number(&mut server.conn, "SELECT UNIX_TIMESTAMP() DIV 3600 * 3600").await;
    for sql in [
        format!(
            "SELECT value FROM spillway.metrics
             WHERE window_ts >= {hour} - 3600 AND window_ts < {hour}"
        ),
        format!("SELECT `avg` FROM spillway.metrics_10s WHERE ts >= {hour} - 3600 AND ts < {hour}"),
        format!(
            "SELECT value FROM spillway.metrics WHERE environment = 'demo' AND metric = 'cpu'
             AND host = 'h1' AND window_ts BETWEEN {hour} - 3600 AND {hour} - 10"
        ),
    ] {
        let plan = server.plan(&sql).await;
        let read: Vec<_> = plan.iter().map(|step| column(step, "partitions")).collect();
        let read = read.iter().find(|partitions| !partitions.is_empty());
        assert_eq!(read, Some(&format!("p{hour}")), "{sql}");
        let tables: Vec<_> = plan.iter().map(|step| column(step, "table")).collect();
        assert_eq!(tables[..3], ["r", "s", "p"], "series first, then its points: {sql}");
    }
}

#[tokio::test]
async fn gaps_are_late_lost_declared_quarantined_or_of_unknown_length() {
    let mut server = filled().await;
    let sql = "SELECT epoch, first_seq, last_seq, state, from_ts <= to_ts FROM spillway.gaps
               WHERE environment = 'demo' ORDER BY epoch, first_seq";
    let gaps: Vec<(Name, u64, Option<u64>, Name, i64)> =
        sqlx::query_as(sql).fetch_all(&mut server.conn).await.unwrap();
    let uuid = |digit: char| {
        let hex = format!("{:02x}", u32::from(digit)).repeat(16);
        uuid::Uuid::parse_str(&hex).unwrap().to_string()
    };
    let gap =
        |epoch, first, last, state: &str| (Name(uuid(epoch)), first, last, Name::from(state), 1);
    let expected = [
        gap('1', 3, Some(3), "lost"),
        gap('1', 4, Some(4), "quarantined"),
        gap('1', 11, Some(12), "declared"),
        gap('2', 7, Some(7), "late"),
        gap('3', 11, None, "unknown_tail"),
    ];
    assert_eq!(gaps, expected);
}

#[tokio::test]
async fn a_gap_lies_beside_what_came_after_it_and_never_the_wrong_way_round() {
    let mut server = filled().await;
    // Windows may be older than the first arrival, as they are after an outage.
    for (side, times) in [
        ("from_ts = NULL, to_ts = 1000, last_seq = first_seq + 7", (910, 1_000)),
        ("from_ts = NULL, to_ts = 60, last_seq = first_seq + 4611686018427387000", (0, 60)),
        ("from_ts = 30, to_ts = 60", (30, 60)),
    ] {
        let known = format!("UPDATE spillway_store.ledger_gaps SET {side}");
        sqlx::raw_sql(&known).execute(&mut server.conn).await.unwrap();
        let told = "SELECT MIN(from_ts), MAX(to_ts) FROM spillway.gaps WHERE last_seq IS NOT NULL";
        let told: (i64, i64) = sqlx::query_as(told).fetch_one(&mut server.conn).await.unwrap();
        assert_eq!(told, times, "{side}");
    }
    let known = "UPDATE spillway_store.ledger_gaps SET from_ts = 4294967295, to_ts = NULL";
    sqlx::raw_sql(known).execute(&mut server.conn).await.unwrap();
    let turned = "SELECT COUNT(*) FROM spillway.gaps WHERE from_ts > to_ts";
    let turned: i64 = sqlx::query_scalar(turned).fetch_one(&mut server.conn).await.unwrap();
    assert_eq!(turned, 0);
}

#[tokio::test]
async fn a_host_without_a_stored_point_has_neither_a_newest_time_nor_an_age() {
    let mut server = filled().await;
    server.run("UPDATE spillway_store.hosts SET newest_ts = 0 WHERE host = 'h2'").await;
    let sql = "SELECT host, newest_ts, age_s FROM spillway.freshness ORDER BY host";
    let rows: Vec<(Name, Option<u32>, Option<i64>)> =
        sqlx::query_as(sql).fetch_all(&mut server.conn).await.unwrap();
    assert!(rows[0].1.is_some() && rows[0].2.is_some_and(|age| age < 60), "{rows:?}");
    assert_eq!(rows[1], (Name::from("h2"), None, None));
    let ages = "SELECT COUNT(*) FROM spillway.freshness WHERE environment = 'acme'
                AND (age_s >= 0 OR newest_ts >= 0)";
    assert_eq!(number(&mut server.conn, ages).await, 0, "no filter takes it for a number");
}

#[tokio::test]
async fn missing_batches_are_what_is_neither_applied_nor_declared_nor_quarantined() {
    let mut server = filled().await;
    let sql = "SELECT CAST(missing_batches AS SIGNED) FROM spillway.ledger_totals ORDER BY epoch";
    let missing: Vec<i64> = sqlx::query_scalar(sql).fetch_all(&mut server.conn).await.unwrap();
    assert_eq!(missing, [3, 1, 0, 0], "up to the expected last, and never below zero");
}

#[tokio::test]
async fn a_lag_that_nobody_measures_is_unknown_and_never_ok_or_zero() {
    let mut server = filled().await;
    let sql = "SELECT state, lag_records, lag_s, end_offset,
               TIMESTAMPDIFF(SECOND, measured_at, UTC_TIMESTAMP())
               FROM spillway.consumer_lag WHERE `partition` = 3";
    let known = (Name::from("OK"), Some(5), Some(0.5), 10);
    let unknown = (Name::from("UNKNOWN"), None, None, 10);
    for (age_s, expected) in [(0, &known), (50, &known), (70, &unknown), (-70, &unknown)] {
        let measured = "UPDATE spillway_store.lag_measurements SET state = 'OK', measured_at";
        server.run(&format!("{measured} = (UNIX_TIMESTAMP() - {age_s}) * 1000")).await;
        type Row = (Name, Option<i64>, Option<f64>, i64, i64);
        let (state, records, seconds, end, age): Row =
            sqlx::query_as(sql).fetch_one(&mut server.conn).await.unwrap();
        assert_eq!(&(state, records, seconds, end), expected, "measured {age_s} s ago");
        assert!((age_s..age_s + 5).contains(&age), "when it was measured stays: {age}");
    }
    // As the keeper writes of a partition without a position, of which nothing waits yet.
    let told = "UPDATE spillway_store.lag_measurements SET state = 'UNKNOWN', lag_records = 0";
    server.run(&format!("{told}, lag_s = 0, measured_at = UNIX_TIMESTAMP() * 1000")).await;
    let of_now = "SELECT state, lag_records, lag_s FROM spillway.consumer_lag LIMIT 1";
    let found: (Name, Option<i64>, Option<f64>) =
        sqlx::query_as(of_now).fetch_one(&mut server.conn).await.unwrap();
    assert_eq!(found, (Name::from("UNKNOWN"), None, None));
}

#[tokio::test]
async fn dimensions_list_names_and_labels_without_touching_points() {
    let mut server = filled().await;
    let sql = "SELECT name, value FROM spillway.dimensions WHERE environment = 'demo'
               ORDER BY name";
    let found: Vec<(Name, Name)> = sqlx::query_as(sql).fetch_all(&mut server.conn).await.unwrap();
    let expected = [
        ("core", "0"),
        ("environment", "demo"),
        ("host", "h1"),
        ("metric", "cpu"),
        ("mo.de", "a\"b"),
    ];
    assert_eq!(found, expected.map(|(n, v)| (Name::from(n), Name::from(v))));
}

/// The contract: columns are only ever added behind these.
const COLUMNS: [(&str, &str); 12] = [
    ("metrics", "environment host metric labels window_ts ts time value series_id"),
    (
        "metrics_10s",
        "environment host metric labels ts time cnt sum min max avg first last series_id",
    ),
    (
        "metrics_1m",
        "environment host metric labels ts time cnt sum min max avg first last series_id increase",
    ),
    (
        "metrics_1h",
        "environment host metric labels ts time cnt sum min max avg first last series_id increase",
    ),
    ("hosts", "environment host agent_id version first_seen last_seen clock_skew_ms labels"),
    ("series", "environment host metric labels kind unit first_seen last_seen series_id"),
    ("freshness", "environment host newest_ts age_s backlog_batches"),
    ("gaps", "environment host agent_id epoch first_seq last_seq from_ts to_ts state reason"),
    (
        "consumer_lag",
        "topic partition shard next_offset end_offset lag_records lag_s state measured_at",
    ),
    ("events", "time timeend environment host kind text tags"),
    (
        "ledger_totals",
        "environment host agent_id epoch highest_seq applied_batches applied_points \
         duplicate_batches declared_batches quarantined_batches missing_batches",
    ),
    ("dimensions", "environment name value"),
];

#[tokio::test]
async fn every_view_has_the_columns_of_the_contract_in_their_order() {
    let mut server = filled().await;
    for (view, columns) in COLUMNS {
        let rows = sqlx::query(&format!("SELECT * FROM spillway.{view} LIMIT 1"))
            .fetch_all(&mut server.conn)
            .await
            .unwrap();
        let names: Vec<&str> = rows[0].columns().iter().map(|c| c.name()).collect();
        let wanted: Vec<&str> = columns.split_whitespace().collect();
        assert_eq!(names[..wanted.len()], wanted, "{view}");
    }
}

#[tokio::test]
async fn a_reader_of_one_environment_sees_that_one_in_every_view_and_no_table() {
    let mut server = filled().await;
    server.run("DROP USER IF EXISTS 'schema_demo'@'%', 'schema_stranger'@'%'").await;
    for user in ["schema_demo", "schema_stranger"] {
        server.run(&format!("CREATE USER '{user}'@'%' IDENTIFIED BY 'x-{user}-1'")).await;
        server.run(&format!("GRANT SELECT ON spillway.* TO '{user}'@'%'")).await;
    }
    server.run("INSERT INTO spillway_store.readers VALUES ('schema_demo', 'demo', 60, 0)").await;
    let mut demo = server.connect_as("schema_demo", "x-schema_demo-1").await;
    let mut stranger = server.connect_as("schema_stranger", "x-schema_stranger-1").await;
    for (view, columns) in COLUMNS {
        let all = number(&mut stranger, &format!("SELECT COUNT(*) FROM spillway.{view}")).await;
        assert_eq!(all, 0, "someone who is no reader sees nothing: {view}");
        let seen = number(&mut demo, &format!("SELECT COUNT(*) FROM spillway.{view}")).await;
        assert!(seen > 0, "{view}");
        if columns.contains("environment") {
            let others =
                format!("SELECT COUNT(*) FROM spillway.{view} WHERE NOT environment <=> 'demo'");
            assert_eq!(number(&mut demo, &others).await, 0, "{view}");
        }
    }
    let lag = text(&mut demo, "SELECT GROUP_CONCAT(`partition`) FROM spillway.consumer_lag").await;
    assert_eq!(lag, "3", "only partitions that carried its batches");
    for table in ["points", "rollup_1m", "series", "readers", "ledger_epochs", "audit"] {
        let sql = format!("SELECT * FROM spillway_store.{table} LIMIT 1");
        assert!(sqlx::raw_sql(&sql).fetch_all(&mut demo).await.is_err(), "{table} must be closed");
    }
    run(&mut server.conn, "DROP USER 'schema_demo'@'%', 'schema_stranger'@'%'").await;
}
