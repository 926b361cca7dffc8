//! The agent: it is asked nothing about single batches, but what it told of its spool, and its own
//! page where spillway.toml names it, say whether the batch may be there.

use jiff::Timestamp;
use serde_json::Value as Json;
use spillway_proto::BatchId;

use super::Hop;
use super::mysql::{Stored, time};
use crate::answer::duration;
use crate::desk::Desk;
use crate::reach::http::{Http, join};

const HOP: &str = "agent";

pub async fn look(desk: &Desk, id: &BatchId, stored: Option<&Stored>) -> Hop {
    let BatchId::Sequenced { agent_id, epoch, seq } = id else {
        return Hop::new(
            HOP,
            "passed",
            "its sender does not count; what it still holds is not told",
        );
    };
    if stored.is_some_and(Stored::is_applied) {
        return Hop::new(HOP, "passed", format!("gave it the seq {seq}, and handed it over"));
    }
    if let Some(page) = own_page(desk, &agent_id.to_string()).await {
        let number = |path: &str| page.pointer(path).and_then(Json::as_u64);
        let same_epoch =
            page.get("epoch").and_then(Json::as_str) == Some(epoch.to_string().as_str());
        if let Some(last) = number("/last_seq").filter(|last| same_epoch && seq > last) {
            let text = format!("has not made it yet: its last seq is {last}");
            return Hop::new(HOP, "absent", text);
        }
        return match number("/spool/batches") {
            None => Hop::new(HOP, "unknown", "its page does not tell what its spool holds"),
            Some(0) => Hop::new(HOP, "absent", "its spool is empty"),
            Some(held) => {
                Hop::new(HOP, "unknown", format!("its spool holds {held} batches; this may be one"))
            }
        };
    }
    let Some(epoch) = stored.and_then(|stored| stored.epoch.as_ref()) else {
        return Hop::new(HOP, "unknown", "no agent of this id was ever heard here");
    };
    let now_ms = Timestamp::now().as_millisecond();
    let silent_s = (now_ms - epoch.last_applied_at).max(0) as f64 / 1e3;
    let text = format!(
        "host {} of {}: last heard {} ago ({}); on that host `spillway-agent status` tells \
         its spool",
        epoch.host,
        epoch.environment,
        duration(silent_s),
        time(epoch.last_applied_at)
    );
    Hop::new(HOP, "unknown", text)
}

/// Programs are asked one after another, and one that is frozen must not hold up the answer.
const PAGE_WITHIN: std::time::Duration = std::time::Duration::from_secs(2);

/// The page of an agent that spillway.toml lists among the programs.
async fn own_page(desk: &Desk, agent_id: &str) -> Option<Json> {
    let http = Http::new(desk.settings.remote_deadline.get().min(PAGE_WITHIN)).ok()?;
    for program in &desk.settings.status.programs {
        let Ok(answer) = http.get(&join(&program.admin, "/status")).await else { continue };
        let page: Option<Json> = serde_json::from_slice(&answer.body).ok();
        let page =
            page.filter(|page| page.get("agent_id").and_then(Json::as_str) == Some(agent_id));
        if page.is_some() {
            return page;
        }
    }
    None
}
