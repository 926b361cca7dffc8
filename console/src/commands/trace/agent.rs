//! The agent: it is asked nothing about single batches, and mostly stands where no console reaches.
//! What it told of itself with its batches, and its own page if the operator brings it, say whether
//! the batch may be there.

use std::io::Read;
use std::path::Path;

use jiff::Timestamp;
use serde_json::Value as Json;
use spillway_proto::BatchId;

use super::Hop;
use super::mysql::{Stored, time};
use crate::answer::duration;
use crate::failure::UsageError;

const HOP: &str = "agent";
/// It made the batch, and its spool is not empty.
pub const LIKELY: &str = "likely";
/// The page is some KiB.
const PAGE_BYTES_MAX: u64 = 1 << 20;

/// What `spillway-agent status --json` printed.
pub fn page(path: &Path) -> Result<Json, UsageError> {
    let wrong = |why: String| UsageError(format!("--agent-status {}: {why}", path.display()));
    let source: Box<dyn Read> = match path.as_os_str() == "-" {
        true => Box::new(std::io::stdin()),
        false => Box::new(std::fs::File::open(path).map_err(|cause| wrong(cause.to_string()))?),
    };
    let page: Result<Json, _> = serde_json::from_reader(source.take(PAGE_BYTES_MAX));
    let page = page.map_err(|cause| wrong(cause.to_string()))?;
    match page.get("agent_id").is_some_and(Json::is_string) {
        true => Ok(page),
        false => Err(wrong("this is not what `spillway-agent status --json` prints".to_owned())),
    }
}

pub fn look(id: &BatchId, stored: Option<&Stored>, page: Option<&Json>) -> Hop {
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
    if let Some(page) = page {
        return by_page(page, (&agent_id.to_string(), &epoch.to_string(), *seq));
    }
    const HOW: &str = "`spillway-agent status --json` on its host tells: pass it as --agent-status";
    let Some(epoch) = stored.and_then(|stored| stored.epoch.as_ref()) else {
        let text = format!("nothing of this epoch was ever heard here; {HOW}");
        return Hop::new(HOP, "unknown", text);
    };
    let now_ms = Timestamp::now().as_millisecond();
    let silent_s = (now_ms - epoch.last_applied_at).max(0) as f64 / 1e3;
    let text = format!(
        "host {} of {}: last heard {} ago ({}); {HOW}",
        epoch.host,
        epoch.environment,
        duration(silent_s),
        time(epoch.last_applied_at)
    );
    Hop::new(HOP, "unknown", text)
}

fn by_page(page: &Json, (agent_id, epoch, seq): (&str, &str, u64)) -> Hop {
    let word = |name: &str| page.get(name).and_then(Json::as_str);
    let number = |path: &str| page.pointer(path).and_then(Json::as_u64);
    if word("agent_id") != Some(agent_id) {
        let text = format!("the page is of another agent, {}", word("agent_id").unwrap_or("?"));
        return Hop::new(HOP, "unknown", text);
    }
    if let Some(last) =
        number("/last_seq").filter(|last| word("epoch") == Some(epoch) && seq > *last)
    {
        return Hop::new(HOP, "absent", format!("has not made it yet: its last seq is {last}"));
    }
    match number("/spool/batches") {
        None => Hop::new(HOP, "unknown", "its page does not tell what its spool holds"),
        Some(0) => Hop::new(HOP, "absent", "its spool is empty"),
        Some(held) => {
            let text = format!("made it, and its spool holds {held} batches: this may be one");
            Hop::new(HOP, LIKELY, text)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_tells_what_may_be_in_the_spool_and_never_takes_silence_for_nothing() {
        let page = |spool: &str| {
            let text = format!(r#"{{"agent_id":"a","epoch":"e","last_seq":7,"spool":{spool}}}"#);
            serde_json::from_str::<Json>(&text).unwrap()
        };
        let said = |spool: &str, of: (&str, &str, u64)| by_page(&page(spool), of).state;
        assert_eq!(said(r#"{"batches":3}"#, ("a", "e", 7)), LIKELY);
        assert_eq!(said(r#"{"batches":3}"#, ("a", "older", 9)), LIKELY);
        assert_eq!(said(r#"{"batches":3}"#, ("a", "e", 8)), "absent");
        assert_eq!(said(r#"{"batches":0}"#, ("a", "e", 7)), "absent");
        assert_eq!(said("{}", ("a", "e", 7)), "unknown");
        assert_eq!(said(r#"{"batches":3}"#, ("b", "e", 7)), "unknown");
    }
}
