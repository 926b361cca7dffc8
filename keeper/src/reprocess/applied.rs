//! Which records the ledger says were applied: those that `audit` names by topic, partition and
//! offset, under the batch's own id or, for a clone's, under its content's.

use std::collections::{BTreeMap, BTreeSet};

use spillway_consumer::receive::{Appended, Record};
use spillway_consumer::store::draft::Draft;
use spillway_consumer::store::statement::{Sql, get, get_id, run};
use spillway_consumer::store::{StoreError, statement::Answer};
use spillway_proto::BatchId;
use spillway_proto::kafka_record::Lane;
use spillway_runtime::mysql::Session;

use super::STATEMENT_DEADLINE;

/// How far the consumer's clock, by which `audit` is partitioned, may lie before the broker's.
const SKEW_MAX_S: i64 = 86_400;

/// A record's place in its partition.
pub type At = (Lane, i64);

/// What the ledger says of some records.
#[derive(Debug, Default)]
pub struct Applied {
    /// When each was applied (ms), by the consumer's clock.
    pub at: BTreeMap<At, i64>,
    /// Of the others, those that nothing explains: no duplicate, and not in dead letters.
    pub unexplained: u64,
}

/// Looks these batches up; `records` are all of one partition.
pub async fn applied(
    session: &mut Session,
    records: &[Record],
    batches: &[&Draft],
) -> Result<Applied, StoreError> {
    let of = |batch: &Draft| records.get(batch.index);
    let mut ids = BTreeSet::new();
    for batch in batches {
        let frame = of(batch).and_then(|record| record.value.as_deref()).unwrap_or_default();
        ids.insert(batch.id.columns());
        ids.insert(BatchId::content_of(&batch.environment, frame).columns());
    }
    let appended = records.iter().filter_map(|record| match record.appended {
        Appended::At(ms) => Some(ms / 1_000),
        Appended::Unknown => None,
    });
    let since = appended.min().unwrap_or(0).saturating_sub(SKEW_MAX_S).max(0);
    let mut found = Applied::default();
    let (mut known, partition) = (BTreeSet::new(), records.first().map(|record| record.partition));
    let Some(partition) = partition.filter(|_| !ids.is_empty()) else { return Ok(found) };
    let mut sql = Sql::new(
        "SELECT agent_id, epoch, seq, topic, partition_id, record_offset, applied_at \
         FROM spillway_store.audit WHERE applied_ts >= ",
    );
    sql.number(since).words(" AND (agent_id, epoch, seq) IN (");
    sql.rows(&ids, |sql, (agent_id, epoch, seq)| {
        sql.bytes(agent_id).comma().bytes(epoch).comma().number(*seq);
    });
    sql.words(")");
    for row in rows(&run(session, STATEMENT_DEADLINE, &sql).await?) {
        known.insert((get_id(row, 0)?, get_id(row, 1)?, get::<u64>(row, 2)?));
        let lane = match get::<u8>(row, 3)? {
            0 => Lane::Live,
            _ => Lane::Backlog,
        };
        if get::<u32>(row, 4)? == u32::from(partition) {
            found.at.insert((lane, get(row, 5)?), get(row, 6)?);
        }
    }
    let odd: Vec<At> = batches
        .iter()
        .filter(|batch| !known.contains(&batch.id.columns()))
        .filter_map(|batch| of(batch).map(|record| (record.lane, record.offset)))
        .filter(|at| !found.at.contains_key(at))
        .collect();
    found.unexplained = unexplained(session, partition, &odd).await?;
    Ok(found)
}

/// How many of these records are not in dead letters either.
async fn unexplained(session: &mut Session, partition: u16, odd: &[At]) -> Result<u64, StoreError> {
    if odd.is_empty() {
        return Ok(0);
    }
    let mut sql = Sql::new(
        "SELECT COUNT(*) FROM spillway_store.quarantined \
         WHERE (topic, partition_id, record_offset) IN (",
    );
    sql.rows(odd, |sql, (lane, offset)| {
        sql.text(lane.topic()).comma().number(partition).comma().number(*offset);
    });
    sql.words(")");
    let answers = run(session, STATEMENT_DEADLINE, &sql).await?;
    let letters: i64 = rows(&answers).next().map_or(Ok(0), |row| get(row, 0))?;
    Ok((odd.len() as u64).saturating_sub(u64::try_from(letters).unwrap_or(0)))
}

fn rows(answers: &[Answer]) -> impl Iterator<Item = &sqlx::mysql::MySqlRow> {
    answers.iter().flat_map(|answer| &answer.rows)
}
