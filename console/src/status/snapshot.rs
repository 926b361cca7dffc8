//! What is known at one moment, and the verdict that follows from it.

use serde::Serialize;

use crate::answer::{Answer, Verdict};

/// Data older than this is delayed.
pub const DELAYED_AFTER_S: f64 = 60.0;

/// One look at everything.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Snapshot {
    /// Unix time in ms.
    pub at_ms: i64,
    pub programs: Vec<ProgramState>,
    pub hops: Vec<Hop>,
    pub shards: Vec<ShardState>,
    pub environments: Vec<EnvironmentState>,
    /// What could not be asked.
    pub troubles: Vec<String>,
}

/// One program, as its admin page says.
#[derive(Debug, Clone, Serialize)]
pub struct ProgramState {
    pub name: String,
    /// `ready`, `not ready` or `down`.
    pub state: &'static str,
    pub answered_ms: Option<f64>,
}

/// One leg of a batch's way, over all programs that serve it.
#[derive(Debug, Clone, Serialize)]
pub struct Hop {
    pub name: &'static str,
    /// What is counted here.
    pub unit: &'static str,
    pub total: Option<f64>,
    pub per_second: Option<f64>,
    /// Batches, objects or records that wait here.
    pub held: Option<f64>,
    pub oldest_s: Option<f64>,
}

/// One shard's lag, as the keeper measured it.
#[derive(Debug, Clone, Serialize)]
pub struct ShardState {
    pub shard: String,
    pub reachable: bool,
    pub lag_records: Option<i64>,
    pub lag_s: Option<f64>,
    /// How old the measurement is.
    pub measured_s: Option<i64>,
}

/// What a customer sees.
#[derive(Debug, Clone, Default, Serialize)]
pub struct EnvironmentState {
    pub environment: String,
    pub shard: String,
    pub hosts: i64,
    /// Seconds since the newest point of the freshest host and of the stalest.
    pub freshest_s: i64,
    pub stalest_s: i64,
    /// Batches still on their way from spools and S3, as agents say.
    pub backlog_batches: i64,
    /// Gaps by what is known of them. Late ones may still come; lost ones will not.
    pub late: i64,
    pub unknown_tail: i64,
    pub quarantined: i64,
    pub declared: i64,
    pub lost: i64,
}

impl EnvironmentState {
    fn delayed(&self) -> bool {
        self.freshest_s as f64 > DELAYED_AFTER_S
            || self.backlog_batches > 0
            || self.late + self.unknown_tail > 0
    }
}

impl Snapshot {
    /// Lost data or an unreachable part is critical, delayed data a warning.
    pub fn verdict(&self) -> Verdict {
        let lost = self.environments.iter().any(|e| e.lost > 0);
        let down = self.programs.iter().any(|p| p.state == "down");
        let cut = self.shards.iter().any(|shard| !shard.reachable);
        if lost || down || cut {
            return Verdict::Critical;
        }
        let delayed = self.environments.iter().any(EnvironmentState::delayed);
        let behind = |shard: &ShardState| shard.lag_s.is_some_and(|lag| lag > DELAYED_AFTER_S);
        let unready = self.programs.iter().any(|p| p.state != "ready");
        let behind = self.shards.iter().any(behind);
        if delayed || behind || unready || !self.troubles.is_empty() {
            return Verdict::Warning;
        }
        Verdict::Ok
    }

    /// The verdict in words.
    pub fn headline(&self) -> &'static str {
        let lost = self.environments.iter().any(|e| e.lost > 0);
        match (self.verdict(), lost) {
            (Verdict::Ok, _) => "Everything arrives",
            (Verdict::Warning, _) => "Delayed: some data is still on its way",
            (Verdict::Critical, true) => "Some data is lost",
            (Verdict::Critical, false) => "A part is down; data is kept and delayed",
        }
    }

    pub fn to_answer(&self) -> Answer {
        let mut answer = Answer::default();
        answer.worsen(self.verdict()).fact("headline", self.headline());
        let section = answer.section("programs", &["name", "state", "answered_ms"]);
        for p in &self.programs {
            section.row([p.name.clone().into(), p.state.into(), p.answered_ms.into()]);
        }
        let columns = ["hop", "unit", "total", "per_second", "held", "oldest_s"];
        let section = answer.section("hops", &columns);
        for hop in &self.hops {
            section.row([
                hop.name.into(),
                hop.unit.into(),
                hop.total.into(),
                hop.per_second.into(),
                hop.held.into(),
                hop.oldest_s.into(),
            ]);
        }
        let columns =
            ["environment", "shard", "hosts", "freshest_s", "backlog_batches", "late", "lost"];
        let section = answer.section("environments", &columns);
        for e in &self.environments {
            section.row([
                e.environment.clone().into(),
                e.shard.clone().into(),
                e.hosts.into(),
                e.freshest_s.into(),
                e.backlog_batches.into(),
                e.late.into(),
                e.lost.into(),
            ]);
        }
        for trouble in &self.troubles {
            answer.note(trouble.clone());
        }
        answer
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(change: impl FnOnce(&mut EnvironmentState)) -> Snapshot {
        let mut environment = EnvironmentState::default();
        change(&mut environment);
        Snapshot { environments: vec![environment], ..Snapshot::default() }
    }

    #[test]
    fn delayed_and_lost_are_told_apart() {
        assert_eq!(with(|_| {}).headline(), "Everything arrives");
        let delayed = with(|e| e.late = 1);
        assert_eq!(delayed.verdict(), Verdict::Warning);
        assert!(delayed.headline().starts_with("Delayed"));
        let lost = with(|e| e.lost = 1);
        assert_eq!((lost.verdict(), lost.headline()), (Verdict::Critical, "Some data is lost"));
    }

    #[test]
    fn a_part_that_is_down_is_critical_but_says_that_data_is_kept() {
        let mut snapshot = with(|_| {});
        let (name, state) = ("consumer-0".to_owned(), "down");
        snapshot.programs.push(ProgramState { name, state, answered_ms: None });
        assert_eq!(snapshot.verdict(), Verdict::Critical);
        assert!(snapshot.headline().contains("data is kept"));
    }
}
