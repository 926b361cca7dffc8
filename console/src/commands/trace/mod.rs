//! `spillway ledger BATCH`: one batch through every hop, in the order it travels.
//!
//! Each hop says what is known there now, and where nothing can be known, why. MySQL's ledger is
//! asked first, since it tells where to look in Kafka; a hop that can't be asked does not hide the
//! others.

mod agent;
mod kafka;
mod mysql;
mod parked;

use std::path::Path;

use serde_json::Value as Json;
use spillway_proto::BatchId;
use spillway_runtime::program::chain;
use spillway_runtime::shards::ShardMap;
use uuid::Uuid;

pub use self::mysql::time;

use self::mysql::Stored;
use crate::answer::{Answer, Verdict};
use crate::desk::Desk;
use crate::failure::{Failure, UsageError};

/// What a hop says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hop {
    pub hop: &'static str,
    /// One word: `applied`, `here`, `passed`, `absent`, `unknown`…
    pub state: &'static str,
    pub detail: String,
}

impl Hop {
    fn new(hop: &'static str, state: &'static str, detail: impl Into<String>) -> Self {
        Self { hop, state, detail: detail.into() }
    }
}

/// Follows the batch that `text` names.
pub async fn run(desk: &Desk, text: &str, agent_status: Option<&Path>) -> Result<Answer, Failure> {
    let page = agent_status.map(agent::page).transpose()?;
    let id = parse(text).ok_or_else(|| {
        let text = format!(
            "{text:?} names no batch: AGENT/EPOCH/SEQ (two UUIDs and a number), or \
                            content/HASH (32 hexadecimal digits)"
        );
        UsageError(text)
    })?;
    let map = desk.shards()?;
    let mut answer = Answer::default();
    let stored = stored(desk, &map, &id, &mut answer).await;
    let mut hops = Vec::new();
    hops.push(agent::look(&id, stored.as_ref(), page.as_ref()));
    hops.push(parked::look(desk, &id, stored.as_ref()).await);
    hops.push(kafka::look(desk, &map, &id, stored.as_ref()).await);
    hops.extend(mysql::hops(&id, stored.as_ref()));
    let (verdict, sentence) = conclude(&id, stored.as_ref(), &hops);
    answer.fact("batch", id.to_string());
    if let Some(place) = stored.as_ref().and_then(|stored| stored.epoch.as_ref()) {
        answer.fact("environment", place.environment.clone()).fact("host", place.host.clone());
    }
    answer.fact("conclusion", sentence).worsen(verdict);
    let section = answer.section("hops", &["hop", "state", "detail"]);
    for hop in hops {
        section.row([hop.hop.into(), hop.state.into(), Json::from(hop.detail)]);
    }
    Ok(answer)
}

/// Asks each shard until one knows the batch or its epoch.
async fn stored(desk: &Desk, map: &ShardMap, id: &BatchId, answer: &mut Answer) -> Option<Stored> {
    let mut best: Option<Stored> = None;
    for shard in &map.shards {
        match mysql::read(desk, shard, id).await {
            Ok(found) if found.audit.is_some() => return Some(found),
            Ok(found) if found.knows_anything() => best = Some(found),
            Ok(_) => {}
            Err(fault) => {
                let text = format!("{}; what it knows of the batch is not in this", chain(&fault));
                answer.trouble(Verdict::Critical, text);
            }
        }
    }
    best
}

/// `AGENT/EPOCH/SEQ` or `content/HASH`, as programs print them.
pub fn parse(text: &str) -> Option<BatchId> {
    if let Some(hash) = text.strip_prefix("content/") {
        let hash = u128::from_str_radix(hash, 16).ok().filter(|_| hash.len() == 32)?;
        return Some(BatchId::Content { hash });
    }
    let mut parts = text.split('/');
    let agent_id = Uuid::parse_str(parts.next()?).ok()?;
    let epoch = Uuid::parse_str(parts.next()?).ok()?;
    let seq = parts.next()?.parse().ok().filter(|seq| *seq > 0)?;
    parts.next().is_none().then_some(BatchId::Sequenced { agent_id, epoch, seq })
}

fn conclude(id: &BatchId, stored: Option<&Stored>, hops: &[Hop]) -> (Verdict, String) {
    let here = |name: &str| hops.iter().any(|hop| hop.hop == name && hop.state == "here");
    let said = |verdict, text: &str| (verdict, text.to_owned());
    if stored.is_some_and(Stored::is_applied) {
        return said(Verdict::Ok, "applied: its points are in MySQL, once");
    }
    if let Some(reason) = stored.and_then(|stored| stored.quarantined.as_ref()) {
        let text = format!("in dead letters, because: {}", reason.reason);
        return (Verdict::Warning, text);
    }
    if here("kafka") {
        return said(Verdict::Warning, "on its way: in Kafka, not applied yet (`spillway lag`)");
    }
    if hops.iter().any(parked::is_aside) {
        let text = "in quarantine in S3: nothing fetches it from there by itself \
            (`spillway spill replay --dry-run` tells why)";
        return said(Verdict::Warning, text);
    }
    if here("s3") {
        return said(Verdict::Warning, "on its way: parked in S3 (`spillway spill ls`)");
    }
    // A gap that is settled says more than a spool that may hold anything.
    let gap = stored.and_then(|stored| stored.gap.as_ref());
    let is_open = gap.is_none_or(|gap| !["declared", "lost"].contains(&gap.state.as_str()));
    if is_open && hops.iter().any(|hop| hop.hop == "agent" && hop.state == agent::LIKELY) {
        return said(Verdict::Warning, "most likely in its agent's spool: no later hop has it");
    }
    if let Some(gap) = gap {
        return match gap.state.as_str() {
            "declared" => {
                (Verdict::Warning, format!("the agent gave it up, and said why: {}", gap.reason))
            }
            "lost" => said(Verdict::Critical, "lost: no hop can still have it"),
            state => {
                (Verdict::Warning, format!("{state}: not seen at any hop; its agent may have it"))
            }
        };
    }
    match (id, stored.and_then(|stored| stored.epoch.as_ref())) {
        (BatchId::Sequenced { seq, .. }, Some(epoch)) if *seq > epoch.highest_seq => {
            let text = format!(
                "not here yet: the highest seq that arrived of this epoch is {}",
                epoch.highest_seq
            );
            (Verdict::Warning, text)
        }
        _ => said(Verdict::Warning, "nobody here has ever heard of it"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_is_named_as_programs_print_it() {
        let id =
            BatchId::Sequenced { agent_id: Uuid::from_u128(7), epoch: Uuid::from_u128(8), seq: 42 };
        assert_eq!(parse(&id.to_string()), Some(id));
        let content = BatchId::Content { hash: 12 };
        assert_eq!(parse(&content.to_string()), Some(content));
        let (agent, epoch) = (Uuid::from_u128(7), Uuid::from_u128(8));
        for wrong in [
            String::new(),
            "content/12".to_owned(),
            format!("{agent}/{epoch}"),
            format!("{agent}/{epoch}/0"),
            format!("{agent}/{epoch}/1/2"),
            format!("{agent}/nonsense/1"),
        ] {
            assert_eq!(parse(&wrong), None, "{wrong}");
        }
    }

    #[test]
    fn what_waits_somewhere_is_said_to_wait_there_and_not_to_be_lost() {
        let id = BatchId::Content { hash: 12 };
        let hops = [Hop::new("s3", "here", ""), Hop::new("kafka", "absent", "")];
        let (verdict, sentence) = conclude(&id, None, &hops);
        assert_eq!(verdict, Verdict::Warning);
        assert!(sentence.contains("parked in S3"), "{sentence}");
        let aside = Hop::new("s3", "here", "in quarantine/00000000000000000000000000000001");
        let (verdict, sentence) = conclude(&id, None, &[aside]);
        assert_eq!(verdict, Verdict::Warning);
        assert!(sentence.starts_with("in quarantine in S3"), "{sentence}");
        assert!(sentence.contains("`spillway spill replay --dry-run`"), "{sentence}");
        assert!(!sentence.contains("on its way"), "nothing fetches it: {sentence}");
        let (_, sentence) = conclude(&id, None, &[]);
        assert!(sentence.contains("nobody here"), "{sentence}");
    }
}
