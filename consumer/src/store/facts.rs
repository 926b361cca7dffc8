//! The small rows of a transaction: hosts, audit, declarations, rollup marks, quarantined records
//! and events. All of them go out in the last packet before the positions.

use std::collections::BTreeMap;

use spillway_proto::BatchId;

use super::decide::Fate;
use super::draft::{Draft, json_object};
use super::statement::Sql;
use super::{Packets, Trial, Work};

/// Rows in one statement.
const ROWS_PER_STATEMENT: usize = 500;

/// Something an operator should see on a dashboard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    pub environment: Option<String>,
    pub host: Option<String>,
    pub kind: &'static str,
    pub text: String,
}

/// Adds all small rows of the transaction.
pub fn write(trial: &Trial<'_>, events: &[Event], packets: &mut Packets) {
    let work = trial.work;
    write_hosts(trial, packets);
    write_audit(trial, packets);
    write_declarations(trial, packets);
    write_marks(trial, packets);
    write_quarantined(work, packets);
    write_events(events, work.now_ms, packets);
}

/// One row per host: the newest point of the transaction, and what its agent said of itself last.
fn write_hosts(trial: &Trial<'_>, packets: &mut Packets) {
    struct Host<'a> {
        batch: &'a Draft,
        newest_ts: u32,
        told: Option<&'a Draft>,
    }
    let mut hosts: BTreeMap<u64, Host<'_>> = BTreeMap::new();
    for batch in trial.to_apply() {
        let host = hosts.entry(batch.host_id);
        let host = host.or_insert(Host { batch, newest_ts: 0, told: None });
        host.newest_ts = host.newest_ts.max(batch.newest_ts);
        if batch.host_info.is_some() {
            host.told = Some(batch);
        }
    }
    let now_ts = trial.now_ts();
    let hosts: Vec<(u64, Host<'_>)> = hosts.into_iter().collect();
    for hosts in hosts.chunks(ROWS_PER_STATEMENT) {
        let mut sql = Sql::new(
            "INSERT INTO spillway_store.hosts (host_id, environment, host, first_seen_ts, \
             last_seen_ts, newest_ts, agent_id, version, clock_skew_ms, labels, backlog_batches) \
             VALUES ",
        );
        sql.rows(hosts, |sql, (host_id, host)| {
            sql.number(*host_id).comma().text(&host.batch.environment).comma();
            sql.text(&host.batch.host).comma().number(now_ts).comma().number(now_ts);
            sql.comma().number(host.newest_ts).comma();
            host_info(sql, host.told);
        });
        sql.words(
            " ON DUPLICATE KEY UPDATE newest_ts = GREATEST(newest_ts, VALUES(newest_ts)), \
             agent_id = COALESCE(VALUES(agent_id), agent_id), \
             version = IF(VALUES(agent_id) IS NULL, version, VALUES(version)), \
             clock_skew_ms = IF(VALUES(agent_id) IS NULL, clock_skew_ms, VALUES(clock_skew_ms)), \
             labels = IF(VALUES(agent_id) IS NULL, labels, VALUES(labels)), backlog_batches = \
             IF(VALUES(agent_id) IS NULL, backlog_batches, VALUES(backlog_batches))",
        );
        packets.add(&sql);
    }
}

fn host_info(sql: &mut Sql, told: Option<&Draft>) {
    let Some((batch, info)) = told.and_then(|batch| Some((batch, batch.host_info.as_ref()?)))
    else {
        sql.words("NULL, '', NULL, NULL, NULL");
        return;
    };
    match batch.id {
        BatchId::Sequenced { agent_id, .. } => sql.bytes(agent_id.as_bytes()),
        BatchId::Content { .. } => sql.words("NULL"),
    };
    let labels = json_object(info.labels.iter().map(|(name, value)| (&**name, &**value)));
    let backlog = info.backlog_batches.map(|batches| u32::try_from(batches).unwrap_or(u32::MAX));
    sql.comma().text(&info.agent_version).comma().number_or_null(info.clock_skew_ms);
    sql.comma().text(&labels).comma().number_or_null(backlog);
}

/// One row per applied batch, under the id it was applied by.
fn write_audit(trial: &Trial<'_>, packets: &mut Packets) {
    let work = trial.work;
    let applied = work.drafts.batches.iter().zip(trial.fates);
    let applied = applied.filter_map(|(batch, fate)| match fate {
        Fate::Duplicate => None,
        Fate::Apply { id, .. } => Some((batch, id, work.records.get(batch.index)?)),
    });
    let applied: Vec<_> = applied.collect();
    for applied in applied.chunks(ROWS_PER_STATEMENT) {
        let mut sql = Sql::new(
            "INSERT INTO spillway_store.audit (agent_id, epoch, seq, applied_ts, applied_at, crc, \
             points, window_ts, topic, partition_id, record_offset) VALUES ",
        );
        sql.rows(applied, |sql, (batch, id, record)| {
            let (agent_id, epoch, seq) = id.columns();
            sql.bytes(&agent_id).comma().bytes(&epoch).comma().number(seq).comma();
            sql.number(trial.now_ts()).comma().number(trial.work.now_ms).comma();
            sql.number(batch.crc).comma().number(batch.points).comma();
            sql.number(batch.window_ts).comma().number(record.lane as u8).comma();
            sql.number(record.partition).comma().number(record.offset);
        });
        packets.add(&sql);
    }
}

fn write_declarations(trial: &Trial<'_>, packets: &mut Packets) {
    let declared = trial.to_apply().filter_map(|batch| match batch.id {
        BatchId::Sequenced { agent_id, .. } => Some((agent_id, &batch.declarations)),
        BatchId::Content { .. } => None,
    });
    let declared: Vec<_> =
        declared.flat_map(|(agent_id, all)| all.iter().map(move |one| (agent_id, one))).collect();
    for declared in declared.chunks(ROWS_PER_STATEMENT) {
        let mut sql = Sql::new(
            "INSERT INTO spillway_store.declarations (agent_id, epoch, first_seq, last_seq, \
             reason, declared_at) VALUES ",
        );
        sql.rows(declared, |sql, (agent_id, declaration)| {
            sql.bytes(agent_id.as_bytes()).comma().bytes(declaration.epoch.as_bytes()).comma();
            sql.number(declaration.first_seq).comma().number(declaration.last_seq).comma();
            sql.text(&declaration.reason).comma().number(trial.work.now_ms);
        });
        // Carried until one carrier was accepted, so it comes again.
        sql.words(" ON DUPLICATE KEY UPDATE declared_at = declared_at");
        packets.add(&sql);
    }
}

/// Minutes whose rollups must be made again. The version is the clock, or one more than it was:
/// it never comes back to a value that the keeper may have seen and cleared.
fn write_marks(trial: &Trial<'_>, packets: &mut Packets) {
    let minutes = |batch: &Draft| {
        let host_id = batch.host_id;
        batch.minutes.clone().into_iter().map(move |minute| (host_id, minute))
    };
    let mut marks: Vec<(u64, u32)> = trial.to_apply().flat_map(minutes).collect();
    marks.sort_unstable();
    marks.dedup();
    for marks in marks.chunks(ROWS_PER_STATEMENT) {
        let mut sql = Sql::new(
            "INSERT INTO spillway_store.rollup_marks (host_id, minute_ts, version) VALUES ",
        );
        sql.rows(marks, |sql, (host_id, minute)| {
            sql.number(*host_id).comma().number(*minute).comma().number(trial.work.now_ms);
        });
        sql.words(" ON DUPLICATE KEY UPDATE version = GREATEST(version + 1, VALUES(version))");
        packets.add(&sql);
    }
}

fn write_quarantined(work: &Work<'_>, packets: &mut Packets) {
    for letters in work.quarantined.chunks(ROWS_PER_STATEMENT) {
        let mut sql = Sql::new(
            "INSERT INTO spillway_store.quarantined (topic, partition_id, record_offset, agent_id, \
             epoch, seq, environment, host, points, reason, quarantined_at) VALUES ",
        );
        sql.rows(letters, |sql, letter| {
            sql.text(letter.lane.topic()).comma().number(letter.partition).comma();
            sql.number(letter.offset).comma();
            match &letter.refused.batch {
                Some(named) => {
                    let (agent_id, epoch, seq) = named.id.columns();
                    sql.bytes(&agent_id).comma().bytes(&epoch).comma().number(seq).comma();
                    sql.text(&named.environment).comma().text(&named.host).comma();
                    sql.number(named.points);
                }
                None => {
                    sql.words("NULL, NULL, NULL, ").text_or_null(letter.environment.as_deref());
                    sql.words(", NULL, NULL");
                }
            }
            sql.comma().text(letter.refused.reason.word()).comma().number(work.now_ms);
        });
        // A replay after going back meets its own letters.
        sql.words(" ON DUPLICATE KEY UPDATE quarantined_at = VALUES(quarantined_at)");
        packets.add(&sql);
    }
}

fn write_events(events: &[Event], now_ms: i64, packets: &mut Packets) {
    for events in events.chunks(ROWS_PER_STATEMENT) {
        let mut sql = Sql::new(
            "INSERT INTO spillway_store.events (time_at, environment, host, kind, text) VALUES ",
        );
        sql.rows(events, |sql, event| {
            sql.number(now_ms).comma().text_or_null(event.environment.as_deref()).comma();
            sql.text_or_null(event.host.as_deref()).comma().text(event.kind).comma();
            sql.text(&event.text);
        });
        packets.add(&sql);
    }
}
