//! Running the migration: again, half-way, twice at once, and against a changed text.

use spillway_consumer::migrations::{MigrateError, migrate, pending};

use crate::server::{Server, number, options_now};

#[tokio::test]
async fn migrating_again_changes_nothing() {
    let mut server = Server::empty().await;
    assert_eq!(pending(&mut server.conn).await.unwrap(), ["store", "partitioned", "views"]);
    let first = server.migrate().await;
    assert_eq!(first.applied, ["store", "partitioned", "views"]);
    assert!(pending(&mut server.conn).await.unwrap().is_empty());
    let second = server.migrate().await;
    assert!(second.applied.is_empty(), "{second:?}");
    assert_eq!((second.unchanged.len(), second.partitions_added), (3, 0));
}

#[tokio::test]
async fn a_half_finished_migration_is_finished_by_running_it_again() {
    let mut server = Server::migrated().await;
    server.run("DELETE FROM spillway_store.schema_migrations WHERE version <> 2").await;
    server.run("DROP TABLE spillway_store.positions, spillway_store.events").await;
    server.run("DROP VIEW spillway.gaps").await;
    let report = server.migrate().await;
    assert_eq!(report.applied, ["store", "views"]);
    number(&mut server.conn, "SELECT COUNT(*) FROM spillway.gaps").await;
    number(&mut server.conn, "SELECT COUNT(*) FROM spillway_store.positions").await;
}

#[tokio::test]
async fn a_table_step_that_ran_with_another_text_is_refused_and_views_are_replaced() {
    let mut server = Server::migrated().await;
    server
        .run("UPDATE spillway_store.schema_migrations SET checksum = 'x' WHERE version = 1000")
        .await;
    assert_eq!(pending(&mut server.conn).await.unwrap(), ["views"]);
    assert_eq!(server.migrate().await.applied, ["views"]);
    server
        .run("UPDATE spillway_store.schema_migrations SET checksum = 'x' WHERE version = 1")
        .await;
    let refused = migrate(&mut server.conn, &options_now()).await;
    assert!(matches!(refused, Err(MigrateError::Changed { version: 1, .. })), "{refused:?}");
}

#[tokio::test]
async fn while_one_migration_runs_another_gives_up_after_a_bounded_wait() {
    let mut server = Server::empty().await;
    let mut other = server.second_connection().await;
    number(&mut other, "SELECT GET_LOCK('spillway_migrate', 0)").await;
    let refused = migrate(&mut server.conn, &options_now()).await;
    assert!(matches!(refused, Err(MigrateError::Locked)), "{refused:?}");
}

#[tokio::test]
async fn partitions_reach_from_the_oldest_kept_hour_to_two_days_ahead() {
    let mut server = Server::migrated().await;
    let partitions = "SELECT COUNT(*) FROM information_schema.partitions
                      WHERE table_schema = 'spillway_store' AND table_name = ";
    let hours = number(&mut server.conn, &format!("{partitions} 'points'")).await;
    assert!((2 + 48..=2 + 48 + 2).contains(&hours), "{hours}");
    let days = number(&mut server.conn, &format!("{partitions} 'audit'")).await;
    assert!((8..=9).contains(&days), "{days}");
    let days = number(&mut server.conn, &format!("{partitions} 'rollup_1m'")).await;
    assert!((8..=9).contains(&days), "{days}");
    let months = number(&mut server.conn, &format!("{partitions} 'rollup_1h'")).await;
    assert!((2..=3).contains(&months), "{months}");
}

#[tokio::test]
async fn partitions_that_have_gone_missing_ahead_are_made_again() {
    let mut server = Server::migrated().await;
    let newest: String = crate::server::text(
        &mut server.conn,
        "SELECT partition_name FROM information_schema.partitions
         WHERE table_schema = 'spillway_store' AND table_name = 'points'
         ORDER BY partition_ordinal_position DESC LIMIT 1",
    )
    .await;
    server.run(&format!("ALTER TABLE spillway_store.points DROP PARTITION {newest}")).await;
    assert_eq!(server.migrate().await.partitions_added, 1);
}

#[tokio::test]
async fn a_point_too_far_in_the_future_has_no_partition_to_fall_into() {
    let mut server = Server::migrated().await;
    let insert = "INSERT INTO spillway_store.points (series_id, window_ts, vals)
                  VALUES (1, UNIX_TIMESTAMP() + 4 * 86400, '[1]')";
    let refused = sqlx::raw_sql(insert).execute(&mut server.conn).await.unwrap_err();
    let number = refused
        .as_database_error()
        .and_then(|e| e.try_downcast_ref::<sqlx::mysql::MySqlDatabaseError>())
        .map(sqlx::mysql::MySqlDatabaseError::number);
    assert_eq!(number, Some(1526), "{refused}");
}
