//! The queries of docs/dashboards.md: each runs, and its plan reads the partitions it names and
//! finds series and rows by key.

use std::time::Duration;

use spillway_consumer::migrations::{Options, migrate};

use crate::server::{Server, column};

const PAGE: &str = include_str!("../../../docs/dashboards.md");
/// Long enough for yesterday, and for partitions that no query may read.
const RETENTION: Duration = Duration::from_secs(4 * 86_400);
/// Hosts in each environment, and what each of them measures that no query asks for.
const HOSTS: u32 = 40;
const OTHERS: u32 = 100;

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
    server.run(&series()).await;
    server
        .run(
            "CREATE TEMPORARY TABLE spillway_store.asked AS
               SELECT series_id FROM spillway_store.series WHERE metric NOT LIKE 'other%';
             INSERT INTO spillway_store.rollup_1m
             SELECT series_id, @now - 60, 1, 1, 1, 1, 1, 1, 0, 5 FROM spillway_store.asked;
             INSERT INTO spillway_store.rollup_1m
             SELECT series_id, @now - 90000, 1, 1, 1, 1, 1, 1, 0, 5 FROM spillway_store.asked;
             INSERT INTO spillway_store.rollup_1h
             SELECT series_id, @now DIV 3600 * 3600 - 3600, 1, 1, 1, 1, 1, 1, 5
               FROM spillway_store.asked",
        )
        .await;
    // Also some time ahead: a query for the last minute finds one however long this takes.
    for ahead in (0..1_800).step_by(60) {
        server
            .run(&format!(
                "INSERT INTO spillway_store.points (series_id, window_ts, vals)
                 SELECT series_id, @now + {ahead}, '[1]' FROM spillway_store.asked"
            ))
            .await;
    }
    server
        .run(
            "DROP TEMPORARY TABLE spillway_store.asked;
             ANALYZE TABLE spillway_store.series, spillway_store.points,
               spillway_store.rollup_1m, spillway_store.rollup_1h",
        )
        .await;
    server
}

/// The series the page asks for among many that it does not: on a small table a server would rather
/// read all of it.
fn series() -> String {
    let asked = ["cpu.usage", "disk.used_bytes", "net.recv_bytes"].map(str::to_owned);
    let others = (0..OTHERS).map(|other| format!("other.{other}"));
    let metrics: Vec<String> = asked.into_iter().chain(others).collect();
    let mut rows = Vec::new();
    for environment in ["demo", "acme"] {
        for host in 0..HOSTS {
            for metric in &metrics {
                let (id, kind) = (rows.len() + 1, if metric.starts_with("net") { 3 } else { 1 });
                rows.push(format!(
                    "({id}, '{environment}', 'web-{host}', '{metric}', '{{\"device\":\"sda\"}}', \
                     {kind}, '', REPEAT('x', 16), 1, 1)"
                ));
            }
        }
    }
    format!("INSERT INTO spillway_store.series VALUES {}", rows.join(","))
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
    let points = oldest(&mut server, "points").await;
    let minutes = oldest(&mut server, "rollup_1m").await;
    let queries = queries();
    assert!(queries.len() >= 12, "the page has its queries: {}", queries.len());
    let mut of_points = 0;
    for sql in queries {
        let rows = sqlx::raw_sql(&sql).fetch_all(&mut server.conn).await;
        let rows = rows.unwrap_or_else(|error| panic!("{error}\n{sql}"));
        let plan = server.plan(&sql).await;
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
                    // Partitions are called after their end, and tables of hours, days and months
                    // have ends in common: each is held against its own.
                    let reads_oldest = match table.as_str() {
                        "p" => read(&points),
                        // Of hours the page asks for all there are.
                        _ => read(&minutes) && !sql.contains("spillway.metrics_1h"),
                    };
                    assert!(!reads_oldest, "{sql}\n{seen:#?}");
                    assert!(!rows.is_empty(), "it finds what is there: {sql}");
                }
                // A drop-down list may read all series, but no points.
                "s" if plan.iter().any(|step| ["p", "m"].contains(&&*column(step, "table"))) => {
                    let by_key = key == "by_metric" || key == "by_host";
                    let part = ["ref", "range"].contains(&column(step, "type").as_str());
                    assert!(by_key && part, "{sql}\n{seen:#?}");
                }
                _ => {}
            }
        }
    }
    assert!(of_points >= 10, "{of_points}");
}

#[tokio::test]
async fn a_query_without_a_filter_on_time_or_name_would_be_noticed() {
    let mut server = filled().await;
    let points = oldest(&mut server, "points").await;
    let sql = "SELECT AVG(`avg`) FROM spillway.metrics_10s WHERE time > NOW() - INTERVAL 1 HOUR";
    let plan = server.plan(sql).await;
    let step = |table: &str| plan.iter().find(|step| column(step, "table") == table).unwrap();
    assert!(column(step("p"), "partitions").split(',').any(|name| name == points));
    assert!(!["ref", "range"].contains(&column(step("s"), "type").as_str()), "all series are read");
}
