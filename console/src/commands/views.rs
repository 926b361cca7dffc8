//! Rows from the views of several shards, as tables show them.
//!
//! The views are empty to a user without a row in `readers`, which would read like "all is well":
//! so that is asked first. A shard that is down is told, and does not hide the others.

use serde_json::Value as Json;
use spillway_runtime::mysql::text;
use spillway_runtime::program::chain;
use spillway_runtime::shards::{Shard, ShardMap};
use sqlx::mysql::MySqlRow;
use sqlx::{MySqlConnection, Row};

use crate::answer::{Answer, Verdict};
use crate::desk::Desk;
use crate::reach::mysql::{MysqlFault, Server};

/// Why a shard's views were not read.
#[derive(Debug, thiserror::Error)]
pub enum ViewFault {
    #[error(transparent)]
    Server(#[from] MysqlFault),
    #[error(
        "shard {0}: this MySQL user sees nothing through the views; run `spillway topics create`, \
         which lets the operators' user look, or log in as a reader of all environments"
    )]
    Blind(String),
}

/// One question to a view: SQL with `?` for each of `values`.
#[derive(Debug, Clone)]
pub struct Question {
    sql: String,
    /// The same rows, whatever the limit: an environment and its sum each.
    sums: String,
    values: Vec<String>,
    /// Rows of each shard at most.
    limit: usize,
}

/// What the shards answered.
#[derive(Debug, Default)]
pub struct Found {
    pub rows: Vec<Vec<Json>>,
    /// Over all rows, also those beyond the limit.
    pub sum: i64,
}

impl Question {
    /// Columns of a view, of which the environment is the first, and the sum that is wanted over
    /// all its rows; with a condition per filter that is set.
    pub fn new(
        (view, columns, sum): (&str, &str, &str),
        filters: &[(&str, Option<&str>)],
        (order, limit): (&str, u32),
    ) -> Self {
        let mut conditions = String::new();
        let mut values = Vec::new();
        for (column, value) in filters {
            if let Some(value) = value {
                conditions.push_str(if values.is_empty() { " WHERE " } else { " AND " });
                conditions.push_str(&format!("{column} = ?"));
                values.push((*value).to_owned());
            }
        }
        let sql =
            format!("SELECT {columns} FROM {view}{conditions} ORDER BY {order} LIMIT {limit}");
        let sums = format!(
            "SELECT environment, CAST({sum} AS SIGNED) FROM {view}{conditions} GROUP BY environment"
        );
        Self { sql, sums, values, limit: limit as usize }
    }
}

/// Asks every shard; what one of them can't answer becomes a note.
pub async fn ask_all(
    desk: &Desk,
    (map, environment): (&ShardMap, Option<&str>),
    question: &Question,
    row: impl Fn(&str, &MySqlRow) -> Result<Vec<Json>, sqlx::Error>,
    answer: &mut Answer,
) -> Found {
    let shards = desk.shards_of(map, environment);
    let mut all = Found::default();
    let mut complete = true;
    for shard in shards {
        match ask(desk, shard, question, &row).await {
            Ok((rows, sums)) => {
                if rows.len() >= question.limit {
                    let limit = question.limit;
                    answer.note(format!("There may be more than {limit}: raise --limit."));
                }
                // What a move left behind at an environment's old shard lives at its new one.
                all.rows.extend(rows.into_iter().filter(|row| is_at_home(map, shard, row)));
                let sums = sums.iter().filter(|row| is_at_home(map, shard, row));
                all.sum += sums.filter_map(|row| row.get(1)?.as_i64()).sum::<i64>();
            }
            Err(fault) => {
                complete = false;
                answer.trouble(Verdict::Critical, chain(&fault));
            }
        }
    }
    // "None" from the shards that answered is not "none".
    answer.fact("complete", complete);
    all
}

/// Whether the row's environment, its first column, lives on this shard.
fn is_at_home(map: &ShardMap, shard: &Shard, row: &[Json]) -> bool {
    let environment = row.first().and_then(Json::as_str).unwrap_or_default();
    map.shard_of_environment(environment).is_none_or(|home| home.name == shard.name)
}

async fn ask(
    desk: &Desk,
    shard: &Shard,
    question: &Question,
    row: impl Fn(&str, &MySqlRow) -> Result<Vec<Json>, sqlx::Error>,
) -> Result<(Vec<Vec<Json>>, Vec<Vec<Json>>), ViewFault> {
    let mut server = Server::connect(&desk.settings, shard).await?;
    if !sees_all(&mut server).await? {
        return Err(ViewFault::Blind(shard.name.clone()));
    }
    let answered = server.ask(async |conn| {
        let asked = |sql| question.values.iter().fold(sqlx::query(sql), sqlx::query::Query::bind);
        let rows = asked(&question.sql).fetch_all(&mut *conn).await?;
        let sums = asked(&question.sums).fetch_all(conn).await?;
        let rows = rows.iter().map(|found| row(&shard.name, found)).collect::<Result<_, _>>()?;
        let sums = sums.iter().map(sum_of).collect::<Result<_, _>>()?;
        Ok((rows, sums))
    });
    Ok(answered.await?)
}

fn sum_of(row: &MySqlRow) -> Result<Vec<Json>, sqlx::Error> {
    Ok(vec![text(row, 0)?.into(), row.try_get::<i64, _>(1)?.into()])
}

/// Lets this user look through the views, at all environments: done wherever the operators' user
/// prepares a shard, since without it the views are empty to it.
pub async fn admit_self(conn: &mut MySqlConnection, now: i64) -> Result<(), sqlx::Error> {
    let sql = "INSERT IGNORE INTO spillway_store.readers
               (name, environment, statement_limit_s, created_at)
               VALUES (SUBSTRING_INDEX(USER(), '@', 1), NULL, 600, ?)";
    sqlx::query(sql).bind(now).execute(conn).await.map(drop)
}

/// Whether the views show this user anything.
pub async fn sees_all(server: &mut Server) -> Result<bool, MysqlFault> {
    server
        .ask(async |conn| {
            let sql = "SELECT COUNT(*) FROM spillway_store.readers
                       WHERE name = SUBSTRING_INDEX(USER(), '@', 1) AND environment IS NULL";
            let found: i64 = sqlx::query_scalar(sql).fetch_one(conn).await?;
            Ok(found > 0)
        })
        .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_filters_that_are_set_become_conditions() {
        let question = Question::new(
            ("v", "a", "COUNT(*)"),
            &[("environment", Some("acme")), ("host", None), ("kind", Some("x"))],
            ("a", 5),
        );
        let sql = "SELECT a FROM v WHERE environment = ? AND kind = ? ORDER BY a LIMIT 5";
        assert_eq!(question.sql, sql);
        assert_eq!(question.values, ["acme", "x"]);
        let sums = "SELECT environment, CAST(COUNT(*) AS SIGNED) FROM v \
                    WHERE environment = ? AND kind = ? GROUP BY environment";
        assert_eq!(question.sums, sums);
    }
}
