//! The queries of docs/dashboards.md: each runs, and its plan reads the partitions it names and
//! finds series and rows by key.

use std::time::Duration;

use spillway_consumer::migrations::{Options, migrate};
use sqlx::Row as _;
use sqlx::mysql::MySqlRow;

use crate::server::Server;

const PAGE: &str = include_str!("../../../docs/dashboards.md");
/// Long enough for yesterday, and for partitions that no query may read.
const RETENTION: Duration = Duration::from_secs(4 * 86_400);
/// Hosts with one series of each metric the page asks for.
const HOSTS: u32 = 40;

/// The page's SQL, with Grafana's macros filled in.
fn queries() -> Vec<String> {
    let now = jiff::Timestamp::now().as_second();
    let blocks = PAGE.split("```sql\n").skip(1).filter_map(|block| block.split_once("```"));
    let statements = blocks.flat_map(|(sql, _)| sql.split(';'));
    let filled = |sql: &str| {
        sql.trim()
            .replace("$environment", "demo")
            .replace("$__unixEpochFrom()", &(now - 3_600).to_string())
            .replace("$__unixEpochTo()", &now.to_string())
    };
    statements.map(filled).filter(|sql| !sql.is_empty()).collect()
}

async fn filled() -> Server {
    let mut server = Server::empty().await;
    let options = Options { raw_retention: RETENTION, now: jiff::Timestamp::now() };
    migrate(&mut server.conn, &options).await.unwrap();
    server.run("SET @now := UNIX_TIMESTAMP() DIV 60 * 60").await;
    server
        .run(
            "INSERT INTO spillway_store.readers (name, environment, created_at)
             VALUES (SUBSTRING_INDEX(USER(), '@', 1), NULL, 0)",
        )
        .await;
    let mut id = 0;
    for environment in ["demo", "acme"] {
        for host in 0..HOSTS {
            for (metric, kind) in [("cpu.usage", 1), ("disk.used_bytes", 1), ("net.recv_bytes", 3)]
            {
                id += 1;
                server
                    .run(&format!(
                        "INSERT INTO spillway_store.series VALUES ({id}, '{environment}',
                           'web-{host}', '{metric}', '{{\"device\":\"sda\"}}', {kind}, '',
                           REPEAT('x', 16), @now, @now)"
                    ))
                    .await;
            }
        }
    }
    server
        .run(
            "INSERT INTO spillway_store.points (series_id, window_ts, vals)
             SELECT series_id, @now - 30, '[1]' FROM spillway_store.series;
             INSERT INTO spillway_store.rollup_1m
             SELECT series_id, @now - 60, 1, 1, 1, 1, 1, 1, 0, 5 FROM spillway_store.series;
             INSERT INTO spillway_store.rollup_1m
             SELECT series_id, @now - 90000, 1, 1, 1, 1, 1, 1, 0, 5 FROM spillway_store.series;
             INSERT INTO spillway_store.rollup_1h
             SELECT series_id, @now DIV 3600 * 3600 - 3600, 1, 1, 1, 1, 1, 1, 5
             FROM spillway_store.series;
             ANALYZE TABLE spillway_store.series, spillway_store.points,
               spillway_store.rollup_1m, spillway_store.rollup_1h",
        )
        .await;
    server
}

/// A column of a plan, which MySQL and MariaDB give in other types.
fn column(row: &MySqlRow, name: &str) -> String {
    row.try_get_unchecked::<Option<String>, _>(name).ok().flatten().unwrap_or_default()
}

/// The partition of the oldest rows, which no query of the page asks for.
async fn oldest(server: &mut Server, table: &str) -> String {
    let sql = format!(
        "SELECT partition_name FROM information_schema.partitions
         WHERE table_schema = 'spillway_store' AND table_name = '{table}'
         ORDER BY partition_ordinal_position LIMIT 1"
    );
    crate::server::text(&mut server.conn, &sql).await
}

#[tokio::test]
async fn every_query_of_the_page_runs_and_reads_the_partitions_it_names_by_key() {
    let mut server = filled().await;
    let explain = if server.is_mariadb().await { "EXPLAIN PARTITIONS" } else { "EXPLAIN" };
    let points = oldest(&mut server, "points").await;
    let minutes = oldest(&mut server, "rollup_1m").await;
    let queries = queries();
    assert!(queries.len() >= 12, "the page has its queries: {}", queries.len());
    let mut of_points = 0;
    for sql in queries {
        let rows = sqlx::raw_sql(&sql).fetch_all(&mut server.conn).await;
        let rows = rows.unwrap_or_else(|error| panic!("{error}\n{sql}"));
        let plan = sqlx::raw_sql(&format!("{explain} {sql}")).fetch_all(&mut server.conn).await;
        let plan = plan.unwrap_or_else(|error| panic!("{error}\n{sql}"));
        let mut seen = Vec::new();
        for step in &plan {
            let (table, key) = (column(step, "table"), column(step, "key"));
            let partitions = column(step, "partitions");
            seen.push(format!("{table} {key} {} {partitions}", column(step, "type")));
            let read = |name: &str| partitions.split(',').any(|partition| partition == name);
            match table.as_str() {
                "p" | "m" => {
                    of_points += 1;
                    assert_eq!(key, "PRIMARY", "{sql}\n{seen:#?}");
                    assert!(!read(&points) && !read(&minutes), "{sql}\n{seen:#?}");
                    assert!(!rows.is_empty(), "it finds what is there: {sql}");
                }
                "s" => assert!(key == "by_metric" || key == "by_host", "{sql}\n{seen:#?}"),
                _ => {}
            }
        }
    }
    assert!(of_points >= 10, "{of_points}");
}

#[tokio::test]
async fn a_query_without_a_filter_on_time_or_name_would_be_noticed() {
    let mut server = filled().await;
    let explain = if server.is_mariadb().await { "EXPLAIN PARTITIONS" } else { "EXPLAIN" };
    let points = oldest(&mut server, "points").await;
    let sql = "SELECT AVG(`avg`) FROM spillway.metrics_10s WHERE time > NOW() - INTERVAL 1 HOUR";
    let plan = sqlx::raw_sql(&format!("{explain} {sql}")).fetch_all(&mut server.conn).await;
    let plan = plan.unwrap();
    let step = |table: &str| plan.iter().find(|step| column(step, "table") == table).unwrap();
    assert!(column(step("p"), "partitions").split(',').any(|name| name == points));
    assert_ne!(column(step("s"), "key"), "by_metric");
}
