//! The page's first line: is all well with this agent, and if not, what it is and what to do.

use super::{Status, number, text};

/// A live agent hears an answer every window; six windows without one are an outage.
const ACK_AGE_MS_MAX: i64 = 60_000;
/// Fuller than this, the spool will soon give up the oldest it holds.
const FULL_PERCENT: i64 = 80;

/// How bad it is; also the exit code.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Mood {
    Well,
    Warning,
    Broken,
}

impl Mood {
    #[must_use]
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Well => 0,
            Self::Warning => 1,
            Self::Broken => 2,
        }
    }
}

/// The worst that the page tells, as one sentence with its fix.
#[must_use]
pub fn of(status: &Status) -> (Mood, String) {
    let said = |mood, sentence: &str| (mood, sentence.to_owned());
    let (delivery, spool) = (&status.delivery, &status.spool);
    if delivery.get("auth_refused").and_then(serde_json::Value::as_bool) == Some(true) {
        return said(
            Mood::Broken,
            "the API refuses this agent's token; what is measured waits here.\n  fix: make a new \
             one with `spillway token create` and put it into agent.token_file; under systemd, \
             which hands over a copy at the start, then restart the agent",
        );
    }
    let percent = fill_percent(status);
    if percent >= FULL_PERCENT {
        let sentence = format!(
            "the spool is {percent} % full; when it is, the oldest is given up and declared.\n  \
             fix: see below why batches do not leave, or raise spool.bytes_max"
        );
        return (Mood::Broken, sentence);
    }
    if spool.get("disk_refuses").and_then(serde_json::Value::as_bool) == Some(true) {
        return said(
            Mood::Warning,
            "the spool's disk takes nothing: batches are in memory only, and a crash loses what \
             was not sent.\n  fix: `spillway-agent doctor` tells what the disk lacks",
        );
    }
    let parked = text(delivery, "route") == Some("park");
    let acked = number(delivery, "last_ack_ms");
    let silent = acked.is_none_or(|at| status.now_ms - at > ACK_AGE_MS_MAX);
    let young = status.now_ms - status.started_ms < ACK_AGE_MS_MAX;
    match (parked, silent) {
        (true, _) => said(
            Mood::Warning,
            "the API can't be reached; batches go to S3 and nothing is lost.\n  fix: \
             `spillway-agent doctor` tells which part of the way is broken",
        ),
        (false, true) if !young && status.spill.is_none() => said(
            Mood::Warning,
            "no answer from the API for over a minute; batches wait in the spool.\n  fix: \
             `spillway-agent doctor`; with [spill] they would go round it",
        ),
        (false, true) if !young => said(
            Mood::Warning,
            "no answer from the API for over a minute; batches wait in the spool.\n  fix: \
             `spillway-agent doctor`",
        ),
        _ if !status.troubles.is_empty() => {
            let inputs: Vec<&str> = status.troubles.keys().map(String::as_str).collect();
            let sentence = format!(
                "delivery is well, but not every input can be read: {}.\n  fix: see its line below",
                inputs.join(", ")
            );
            (Mood::Warning, sentence)
        }
        _ if number(spool, "volatile_batches").is_some_and(|batches| batches > 0) => said(
            Mood::Warning,
            "some batches are in memory only: a crash would lose them.\n  \
             fix: nothing, if spool.kind = \"memory\" is meant",
        ),
        (_, true) => said(Mood::Well, "starting; nothing was answered yet"),
        _ => said(Mood::Well, "all is well: what is measured arrives"),
    }
}

/// How full the spool is, 0 to 100.
pub fn fill_percent(status: &Status) -> i64 {
    let value = |key| number(&status.spool, key).unwrap_or(0);
    match value("bytes_max") {
        0 => 0,
        most => value("bytes").saturating_mul(100) / most,
    }
}

/// `[####······]`, ten steps.
pub fn bar(percent: i64) -> String {
    let full = usize::try_from(percent.clamp(0, 100)).unwrap_or(0).div_ceil(10);
    format!("[{}{}]", "#".repeat(full), "·".repeat(10 - full))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(delivery: &str, spool: &str) -> Status {
        let page = format!(
            r#"{{"now_ms": 700000, "started_ms": 1000, "delivery": {delivery}, "spool": {spool}}}"#
        );
        serde_json::from_str(&page).unwrap()
    }

    #[test]
    fn the_worst_comes_first_and_has_its_fix() {
        let well = r#"{"route": "direct", "last_ack_ms": 695000}"#;
        let empty = r#"{"bytes": 10, "bytes_max": 100}"#;
        assert_eq!(of(&status(well, empty)).0, Mood::Well);
        let refused = r#"{"route": "park", "auth_refused": true, "last_ack_ms": 1}"#;
        for (delivery, spool, mood, expected) in [
            (refused, empty, Mood::Broken, "token"),
            (well, r#"{"bytes": 85, "bytes_max": 100}"#, Mood::Broken, "85 % full"),
            (r#"{"route": "park", "last_ack_ms": 690000}"#, empty, Mood::Warning, "go to S3"),
            (
                r#"{"route": "direct", "last_ack_ms": 600000}"#,
                empty,
                Mood::Warning,
                "over a minute",
            ),
            (well, r#"{"volatile_batches": 3}"#, Mood::Warning, "memory only"),
            (well, r#"{"disk_refuses": true}"#, Mood::Warning, "doctor"),
        ] {
            let (found, sentence) = of(&status(delivery, spool));
            assert_eq!(found, mood, "{sentence}");
            assert!(sentence.contains(expected) && sentence.contains("fix: "), "{sentence}");
        }
    }

    #[test]
    fn a_young_agent_without_an_answer_is_starting() {
        let page = r#"{"now_ms": 20000, "started_ms": 1000, "delivery": {"route": "direct"}}"#;
        let (mood, sentence) = of(&serde_json::from_str(page).unwrap());
        assert_eq!(mood, Mood::Well);
        assert!(sentence.contains("starting"), "{sentence}");
    }

    #[test]
    fn the_bar_shows_even_a_little() {
        assert_eq!((bar(0).as_str(), bar(1).as_str()), ("[··········]", "[#·········]"));
        assert_eq!(bar(100), "[##########]");
    }
}
