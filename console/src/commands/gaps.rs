//! `spillway gaps`: what did not arrive, by name and with its state.

use serde_json::Value as Json;
use spillway_runtime::mysql::text;
use sqlx::Row;
use sqlx::mysql::MySqlRow;

use super::views::{Found, Question, ask_all};
use crate::answer::{Answer, Verdict};
use crate::cli::Filter;
use crate::desk::Desk;
use crate::failure::Failure;

const COLUMNS: [&str; 9] = [
    "environment",
    "host",
    "agent_id",
    "epoch",
    "first_seq",
    "last_seq",
    "since",
    "state",
    "reason",
];

const STATE: usize = 7;
/// What nobody waits for any more comes last, what is lost first.
const WORST_FIRST: &str = "state = 'declared', state = 'lost' DESC, from_ts DESC";

/// `late` is a warning, `lost` is critical; what was declared is known and past.
pub async fn run(desk: &Desk, filter: &Filter) -> Result<Answer, Failure> {
    let map = desk.shards()?;
    let columns = "environment, host, agent_id, epoch, first_seq, last_seq, from_ts, state, reason";
    let question = Question::new(
        ("spillway.gaps", columns, "COUNT(*)"),
        &[("environment", filter.environment.as_deref()), ("host", filter.host.as_deref())],
        // The worst come first: `--limit` cuts what is shown, and not what the verdict is about.
        (WORST_FIRST, filter.limit),
    );
    let mut answer = Answer::default();
    let shards = (&map, filter.environment.as_deref());
    let Found { rows, sum } = ask_all(desk, shards, &question, row, &mut answer).await;
    for found in &rows {
        answer.worsen(severity(found.get(STATE).and_then(Json::as_str).unwrap_or_default()));
    }
    answer.fact("found", sum);
    answer.section("gaps", &COLUMNS).rows = rows;
    Ok(answer)
}

fn severity(state: &str) -> Verdict {
    match state {
        "lost" => Verdict::Critical,
        "late" | "unknown_tail" | "quarantined" => Verdict::Warning,
        _ => Verdict::Ok,
    }
}

fn row(_: &str, row: &MySqlRow) -> Result<Vec<Json>, sqlx::Error> {
    let text = |i: usize| text(row, i).map(Json::from);
    let since: Option<i64> = row.try_get(6)?;
    let since = since.and_then(|at| jiff::Timestamp::from_second(at).ok());
    Ok(vec![
        text(0)?,
        text(1)?,
        text(2)?,
        text(3)?,
        row.try_get::<u64, _>(4)?.into(),
        row.try_get::<Option<u64>, _>(5)?.into(),
        since.map(|at| at.to_string()).into(),
        text(7)?,
        text(8)?,
    ])
}
