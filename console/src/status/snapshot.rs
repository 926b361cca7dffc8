//! What is known at one moment, and what of it waits. The verdict that follows is in `verdict.rs`.

use serde::Serialize;
use serde_json::Value as Json;

use super::component::{Component, Condition, Part};
use crate::answer::Answer;

/// What waits for longer than this is delayed.
pub const DELAYED_AFTER_S: f64 = 60.0;

/// An object stays in S3 for a minute after Kafka has it, so the oldest of a healthy way is older
/// than that.
const PARKED_DELAYED_AFTER_S: f64 = 120.0;

/// Who sends every ten seconds, and has sent nothing for so long, is quiet.
pub const QUIET_AFTER_S: i64 = 60;

/// SQL: the batches of a group of rows of `spillway.gaps`. A row is a range, both ends included; a
/// tail whose end nobody knows counts as one.
pub const GAP_BATCHES: &str =
    "CAST(SUM(IF(last_seq IS NULL, 1, last_seq - first_seq + 1)) AS SIGNED)";

/// One look at everything.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Snapshot {
    /// Unix time in ms.
    pub at_ms: i64,
    /// In the order a batch meets them; empty before the first look.
    pub components: Vec<Component>,
    pub programs: Vec<ProgramState>,
    pub hops: Vec<Hop>,
    pub shards: Vec<ShardState>,
    pub environments: Vec<EnvironmentState>,
    /// Redis is no part of a batch's way: without it only last_seen stands still.
    pub redis_down: bool,
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
#[derive(Debug, Clone, Default, Serialize)]
pub struct Hop {
    /// Stable, for scripts.
    pub key: &'static str,
    pub name: &'static str,
    /// What is counted here.
    pub unit: &'static str,
    pub total: Option<f64>,
    pub per_second: Option<f64>,
    /// What waits here, and what is counted of it: batches, objects or records.
    pub held: Option<f64>,
    pub held_unit: Option<&'static str>,
    pub oldest_s: Option<f64>,
    /// Of what is held in S3, what Kafka does not have yet: the rest is there to be deleted.
    pub unsent: Option<f64>,
    /// Where only a part could be asked: it is at least this. Never nought.
    pub held_least: Option<f64>,
    pub oldest_least_s: Option<f64>,
}

/// An older measurement of a shard's lag says nothing of now.
const MEASURED_S_MAX: i64 = 60;

/// One shard's lag, as the keeper measured it.
#[derive(Debug, Clone, Default, Serialize)]
pub struct ShardState {
    pub shard: String,
    pub reachable: bool,
    /// How long its first answer took.
    pub answered_ms: Option<f64>,
    pub lag_records: Option<i64>,
    pub lag_s: Option<f64>,
    /// How old the measurement is.
    pub measured_s: Option<i64>,
}

impl ShardState {
    /// Records that wait for it and the age of the oldest, while that is known. The keeper asks the
    /// shard itself where it stands: of one that can't be asked its own metrics tell the past.
    pub fn lag(&self) -> Option<(i64, f64)> {
        let is_new = self.measured_s.is_some_and(|age| age <= MEASURED_S_MAX);
        (self.reachable && is_new).then_some((self.lag_records?, self.lag_s?))
    }
}

/// What a customer sees.
#[derive(Debug, Clone, Default, Serialize)]
pub struct EnvironmentState {
    pub environment: String,
    pub shard: String,
    pub hosts: i64,
    /// Seconds since the newest point of the freshest host and of the stalest of those that have
    /// one; none while no point of any is stored.
    pub freshest_s: Option<i64>,
    pub stalest_s: Option<i64>,
    /// Batches still on their way from spools and S3, as agents say.
    pub backlog_batches: i64,
    /// Batches in gaps, by what is known of them. Late ones may still come; lost ones will not.
    pub late: i64,
    /// Gaps without a known end: one batch each at least.
    pub unknown_tail: i64,
    pub quarantined: i64,
    pub declared: i64,
    pub lost: i64,
    /// Senders that did not say that they end; asked only of environments that are silent.
    pub open_epochs: Option<i64>,
    /// It was heard until the way was cut, and not since the way is whole again.
    pub awaited: bool,
    /// Unix ms of when its shard last told all this, where it can't be asked now.
    pub unseen_since_ms: Option<i64>,
}

impl EnvironmentState {
    /// Nothing new came for a while: what agents hold by now they could not tell.
    pub fn is_silent(&self) -> bool {
        self.freshest_s.is_some_and(|age| age > QUIET_AFTER_S)
    }

    /// All its senders said that they end, and all that they numbered is here.
    pub fn has_ended(&self) -> bool {
        self.open_epochs == Some(0) && self.on_the_way() == 0
    }

    /// Batches that wait in spools, and in gaps that may still close. More than this if there is an
    /// unknown tail.
    pub fn on_the_way(&self) -> i64 {
        self.backlog_batches + self.late + self.unknown_tail
    }

    /// Batches that agents gave up, or that lie in dead letters: their gaps stay open.
    pub fn given_up(&self) -> i64 {
        self.declared + self.quarantined
    }
}

/// How an environment does. A quiet one is not delayed: nothing of it is known to be on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arrival {
    Lost,
    Unseen,
    Delayed,
    /// Its hosts are known, and none of their points is stored.
    NoPoint,
    Ended,
    Quiet,
    Complete,
}

impl Arrival {
    pub fn words(self) -> &'static str {
        match self {
            Self::Lost => "lost data",
            Self::Unseen => "can’t be asked",
            Self::Delayed => "delayed",
            Self::NoPoint => "no data yet",
            Self::Ended => "ended",
            Self::Quiet => "quiet",
            Self::Complete => "complete",
        }
    }

    /// The CSS class.
    pub fn tone(self) -> &'static str {
        match self {
            Self::Lost => "down",
            Self::Delayed => "degraded",
            Self::Unseen | Self::NoPoint | Self::Ended | Self::Quiet => "unknown",
            Self::Complete => "up",
        }
    }
}

/// The parts that a batch passes: without one of them nothing arrives.
pub const WAY: [Part; 4] = [Part::Intake, Part::Log, Part::Storing, Part::Storage];

impl Snapshot {
    /// Batches that will not come, as far as shards can be asked.
    pub fn lost(&self) -> i64 {
        self.environments.iter().map(|e| e.lost).sum()
    }

    /// Whether data is lost, where that can be told.
    pub fn is_lost(&self) -> Option<bool> {
        let is_told = !self.environments.is_empty() && !self.is_unseen();
        (self.lost() > 0 || is_told).then_some(self.lost() > 0)
    }

    /// Batches that agents gave up, or that lie in dead letters.
    pub fn given_up(&self) -> i64 {
        self.environments.iter().map(EnvironmentState::given_up).sum()
    }

    /// Something is known to be on its way that should be here, or may be.
    pub fn is_delayed(&self) -> bool {
        let waits_long = |key| {
            let hop: Option<&Hop> = self.hop(key);
            hop.and_then(|hop| hop.oldest_s).is_some_and(|age| age > DELAYED_AFTER_S)
        };
        self.lag_s().is_some_and(|lag| lag > DELAYED_AFTER_S)
            || waits_long("measured")
            || self.is_parked_long()
            || self.environments.iter().any(|e| self.delays(e))
    }

    fn is_parked_long(&self) -> bool {
        self.hop("drained").is_some_and(|hop| {
            hop.unsent.is_some_and(|objects| objects > 0.0)
                && hop.oldest_s.is_some_and(|age| age > PARKED_DELAYED_AFTER_S)
        })
    }

    /// Whether this environment's data is on its way, or may be: silence alone is no sign of it,
    /// unless something stands between the agents and MySQL, or stood there a moment ago.
    pub fn delays(&self, e: &EnvironmentState) -> bool {
        let is_held_up = || e.awaited || self.may_hold_up(e);
        e.on_the_way() > 0 || (e.is_silent() && !e.has_ended() && is_held_up())
    }

    /// A part of this environment's way is down or impaired.
    pub fn may_hold_up(&self, e: &EnvironmentState) -> bool {
        let is_unwell = |one: &Component| match one.part {
            // Its shards fail one by one: which of them is this one's is known.
            Part::Storage => one.condition == Condition::Down,
            part => WAY.contains(&part) && one.condition > Condition::Up,
        };
        e.unseen_since_ms.is_some() || self.components.iter().any(is_unwell)
    }

    pub fn arrival(&self, e: &EnvironmentState) -> Arrival {
        match e.freshest_s {
            _ if e.lost > 0 => Arrival::Lost,
            _ if e.unseen_since_ms.is_some() => Arrival::Unseen,
            _ if self.delays(e) => Arrival::Delayed,
            None => Arrival::NoPoint,
            Some(_) if !e.is_silent() => Arrival::Complete,
            Some(_) if e.has_ended() => Arrival::Ended,
            Some(_) => Arrival::Quiet,
        }
    }

    /// Age of the newest data: of the stalest environment among those that send; where none does,
    /// of the freshest. One that ended long ago says nothing of today.
    pub fn newest_s(&self) -> Option<i64> {
        let seen = self.environments.iter().filter(|e| e.unseen_since_ms.is_none());
        let (silent, sending): (Vec<_>, Vec<_>) = seen.partition(|e| e.is_silent());
        let newest = sending.iter().filter_map(|e| e.freshest_s).max();
        newest.or_else(|| silent.iter().filter_map(|e| e.freshest_s).min())
    }

    /// Some environment sends now.
    pub fn is_sent_to(&self) -> bool {
        self.newest_s().is_some_and(|age| age <= QUIET_AFTER_S)
    }

    /// Whether all who would know of waiting data can be heard: then nothing known is nothing.
    pub fn hears_all(&self) -> bool {
        let watches = |one: &Component| [Part::Detour, Part::Keeping].contains(&one.part);
        let is_down = |one: &Component| watches(one) && one.condition == Condition::Down;
        let is_quiet = |e: &EnvironmentState| self.arrival(e) == Arrival::Quiet;
        !self.components.iter().any(is_down) && !self.environments.iter().any(is_quiet)
    }

    /// Nobody looked yet, or nobody could be asked.
    pub fn is_unknown(&self) -> bool {
        self.environments.is_empty() && self.worst() == Condition::Unknown
    }

    /// A part of the way is down: what is measured now waits before it.
    pub fn is_cut(&self) -> bool {
        self.is_unseen() || WAY.into_iter().any(|part| self.is_down(part))
    }

    pub fn is_down(&self, part: Part) -> bool {
        self.components.iter().any(|c| c.part == part && c.condition == Condition::Down)
    }

    /// A shard can't be asked: what lies there, and what is lost there, is not known now.
    pub fn is_unseen(&self) -> bool {
        self.shards.iter().any(|shard| !shard.reachable)
    }

    /// Some shards answer, and some don't.
    pub fn is_partly_unseen(&self) -> bool {
        self.is_unseen() && self.shards.iter().any(|shard| shard.reachable)
    }

    /// Whether agents' words of their spools come through: they travel with their batches.
    pub fn hears(&self, environment: &EnvironmentState) -> bool {
        environment.unseen_since_ms.is_none()
            && (!environment.is_silent() || environment.has_ended())
            && !WAY.into_iter().any(|part| self.is_down(part))
    }

    /// Batches in all spools, if all of them can tell.
    pub fn held_by_agents(&self) -> Option<i64> {
        let told = |e: &EnvironmentState| self.hears(e).then_some(e.backlog_batches);
        match self.environments.is_empty() {
            true => None,
            false => self.environments.iter().map(told).sum(),
        }
    }

    /// Age of the oldest record that no shard has yet; at least that while not all can be asked.
    pub fn lag_s(&self) -> Option<f64> {
        self.hop("applied").and_then(|hop| hop.oldest_s.or(hop.oldest_least_s))
    }

    pub fn hop(&self, key: &str) -> Option<&Hop> {
        self.hops.iter().find(|hop| hop.key == key)
    }

    pub fn worst(&self) -> Condition {
        self.components.iter().map(|one| one.condition).max().unwrap_or_default()
    }

    pub fn to_answer(&self) -> Answer {
        let mut answer = Answer::default();
        answer.worsen(self.verdict()).fact("headline", self.headline());
        let section =
            answer.section("components", &["component", "state", "response_ms", "errors"]);
        for c in &self.components {
            section.row([
                c.part.title().into(),
                c.condition.words().into(),
                c.response_ms.map(|ms| (ms * 10.0).round() / 10.0).into(),
                c.error_ratio.into(),
            ]);
        }
        let section = answer.section("programs", &["name", "state", "answered_ms"]);
        for p in &self.programs {
            section.row([p.name.clone().into(), p.state.into(), p.answered_ms.into()]);
        }
        let columns = ["hop", "unit", "total", "per_second", "held", "held_unit", "oldest_s"];
        let section = answer.section("hops", &columns);
        for hop in &self.hops {
            section.row([
                hop.name.into(),
                hop.unit.into(),
                hop.total.into(),
                hop.per_second.into(),
                hop.held.into(),
                hop.held_unit.into(),
                hop.oldest_s.into(),
            ]);
        }
        let columns = [
            "environment",
            "shard",
            "hosts",
            "freshest_s",
            "backlog_batches",
            "late",
            "lost",
            "state",
        ];
        let section = answer.section("environments", &columns);
        let seen = |e: &EnvironmentState, n: Option<i64>| match e.unseen_since_ms {
            None => Json::from(n),
            Some(_) => Json::Null,
        };
        for e in &self.environments {
            section.row([
                e.environment.clone().into(),
                e.shard.clone().into(),
                e.hosts.into(),
                seen(e, e.freshest_s),
                self.hears(e).then_some(e.backlog_batches).into(),
                seen(e, Some(e.late)),
                seen(e, Some(e.lost)),
                self.arrival(e).words().into(),
            ]);
        }
        for trouble in &self.troubles {
            answer.note(trouble.clone());
        }
        answer
    }
}
