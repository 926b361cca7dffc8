//! `spillway ledger`: what arrived, per agent and epoch; nothing missing is an answer too.

use serde_json::Value as Json;
use spillway_runtime::mysql::text;
use sqlx::Row;
use sqlx::mysql::MySqlRow;

use super::trace;
use super::views::{Found, Question, ask_all};
use crate::answer::{Answer, Verdict};
use crate::cli::{Filter, Ledger};
use crate::desk::Desk;
use crate::failure::Failure;

const COLUMNS: [&str; 10] = [
    "environment",
    "host",
    "agent_id",
    "epoch",
    "highest_seq",
    "applied_batches",
    "applied_points",
    "duplicate_batches",
    "declared_batches",
    "missing_batches",
];

const MISSING: usize = 9;

pub async fn run(desk: &Desk, options: &Ledger) -> Result<Answer, Failure> {
    match &options.batch {
        Some(batch) => trace::run(desk, batch, options.agent_status.as_deref()).await,
        None => totals(desk, &options.filter).await,
    }
}

async fn totals(desk: &Desk, filter: &Filter) -> Result<Answer, Failure> {
    let map = desk.shards()?;
    let question = Question::new(
        ("spillway.ledger_totals", COLUMNS.join(", ").as_str(), "SUM(missing_batches)"),
        &[("environment", filter.environment.as_deref()), ("host", filter.host.as_deref())],
        // What is missing comes first: `--limit` cuts what is shown, and hides nothing of that.
        ("missing_batches > 0 DESC, environment, host, epoch DESC", filter.limit),
    );
    let mut answer = Answer::default();
    let shards = (&map, filter.environment.as_deref());
    let Found { rows, sum: total } = ask_all(desk, shards, &question, row, &mut answer).await;
    answer.fact("missing_batches", total);
    if total > 0 {
        answer.trouble(Verdict::Warning, "`spillway gaps` names what is missing, and its state");
    }
    answer.section("epochs", &COLUMNS).rows = rows;
    Ok(answer)
}

fn row(_: &str, row: &MySqlRow) -> Result<Vec<Json>, sqlx::Error> {
    let text = |i: usize| text(row, i).map(Json::from);
    let number = |i: usize| row.try_get::<u64, _>(i).map(Json::from);
    Ok(vec![
        text(0)?,
        text(1)?,
        text(2)?,
        text(3)?,
        number(4)?,
        number(5)?,
        number(6)?,
        number(7)?,
        number(8)?,
        row.try_get::<i64, _>(MISSING)?.into(),
    ])
}
