//! What is known at one moment, and the verdict that follows from it.

use serde::Serialize;
use serde_json::Value as Json;

use super::component::{Component, Condition, Part};
use crate::answer::{Answer, Verdict};

/// Data older than this is delayed.
pub const DELAYED_AFTER_S: f64 = 60.0;

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
    /// Seconds since the newest point of the freshest host and of the stalest.
    pub freshest_s: i64,
    pub stalest_s: i64,
    /// Batches still on their way from spools and S3, as agents say.
    pub backlog_batches: i64,
    /// Batches in gaps, by what is known of them. Late ones may still come; lost ones will not.
    pub late: i64,
    /// Gaps without a known end: one batch each at least.
    pub unknown_tail: i64,
    pub quarantined: i64,
    pub declared: i64,
    pub lost: i64,
    /// Unix ms of when its shard last told all this, where it can't be asked now.
    pub unseen_since_ms: Option<i64>,
}

impl EnvironmentState {
    /// Something is on its way that should be here.
    pub fn is_delayed(&self) -> bool {
        self.is_silent() || self.on_the_way() > 0
    }

    /// Nothing new came for a while: what agents hold by now they could not tell.
    pub fn is_silent(&self) -> bool {
        self.freshest_s as f64 > DELAYED_AFTER_S
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

impl Snapshot {
    /// Lost data or a part that is down is critical, delayed data a warning.
    pub fn verdict(&self) -> Verdict {
        if self.lost() > 0 || self.is_cut() {
            return Verdict::Critical;
        }
        // An agent that is gone is its customer's, and shows as data that does not come.
        let unready = self.programs.iter().any(|program| program.state != "ready");
        let impaired = self.worst() == Condition::Degraded || self.is_unknown();
        if self.is_delayed() || unready || impaired || !self.troubles.is_empty() {
            return Verdict::Warning;
        }
        Verdict::Ok
    }

    /// The verdict in words. They name no customer: the public page says the same.
    pub fn headline(&self) -> String {
        let down = self.which_are(Condition::Down);
        let impaired = self.which_are(Condition::Degraded);
        match self.verdict() {
            _ if self.is_unknown() => "Nothing is known yet".to_owned(),
            Verdict::Ok if self.environments.is_empty() => {
                "Ready; no data has arrived yet".to_owned()
            }
            Verdict::Ok => "Everything arrives".to_owned(),
            _ if self.lost() > 0 => "Some data is lost".to_owned(),
            // Some of MySQL's shards: together they are only impaired.
            Verdict::Critical if down.is_empty() => {
                format!("{} is partly down; data is kept and delayed", Part::Storage.title())
            }
            Verdict::Critical if self.is_partly_unseen() => {
                let storage = Part::Storage.title();
                format!("{down} down, {storage} partly; data is kept and delayed")
            }
            Verdict::Critical => format!("{down} down; data is kept and delayed"),
            Verdict::Warning if self.is_delayed() => {
                "Delayed: some data is still on its way".to_owned()
            }
            Verdict::Warning if impaired.is_empty() => {
                "Data arrives; not all can be seen".to_owned()
            }
            Verdict::Warning => format!("Data arrives; {impaired} impaired"),
        }
    }

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

    /// Something is on its way that should be here.
    pub fn is_delayed(&self) -> bool {
        self.lag_s().is_some_and(|lag| lag > DELAYED_AFTER_S)
            || self.environments.iter().any(EnvironmentState::is_delayed)
    }

    /// Nobody looked yet, or nobody could be asked.
    fn is_unknown(&self) -> bool {
        self.environments.is_empty() && self.worst() == Condition::Unknown
    }

    /// A part of the way is down: what is measured now waits before it.
    pub fn is_cut(&self) -> bool {
        self.worst() == Condition::Down || self.is_unseen()
    }

    /// A shard can't be asked: what lies there, and what is lost there, is not known now.
    pub fn is_unseen(&self) -> bool {
        self.shards.iter().any(|shard| !shard.reachable)
    }

    /// Some shards answer, and some don't.
    fn is_partly_unseen(&self) -> bool {
        self.is_unseen() && self.shards.iter().any(|shard| shard.reachable)
    }

    /// Whether agents' words of their spools come through: they travel with their batches.
    pub fn hears(&self, environment: &EnvironmentState) -> bool {
        const WAY: [Part; 4] = [Part::Intake, Part::Log, Part::Storing, Part::Storage];
        let cut = |one: &Component| WAY.contains(&one.part) && one.condition == Condition::Down;
        environment.unseen_since_ms.is_none()
            && !environment.is_silent()
            && !self.components.iter().any(cut)
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

    fn worst(&self) -> Condition {
        self.components.iter().map(|one| one.condition).max().unwrap_or_default()
    }

    /// "Kafka is", "Ingest API and Keeper are"; empty if none is in this condition.
    fn which_are(&self, condition: Condition) -> String {
        let them = self.components.iter().filter(|one| one.condition == condition);
        let titles: Vec<_> = them.map(|one| one.part.title()).collect();
        match titles.as_slice() {
            [] => String::new(),
            [one] => format!("{one} is"),
            [others @ .., last] => format!("{} and {last} are", others.join(", ")),
        }
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
        let columns =
            ["environment", "shard", "hosts", "freshest_s", "backlog_batches", "late", "lost"];
        let section = answer.section("environments", &columns);
        let seen = |e: &EnvironmentState, n: i64| match e.unseen_since_ms {
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
                seen(e, e.late),
                seen(e, e.lost),
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
        assert_eq!(
            (lost.verdict(), lost.headline().as_str()),
            (Verdict::Critical, "Some data is lost")
        );
    }

    #[test]
    fn a_part_that_is_down_is_critical_and_named_and_says_that_data_is_kept() {
        let mut snapshot = with(|_| {});
        let down = Component { condition: Condition::Down, ..Component::unknown(Part::Log) };
        snapshot.components.push(down);
        assert_eq!(snapshot.verdict(), Verdict::Critical);
        assert_eq!(snapshot.headline(), "Kafka is down; data is kept and delayed");
        for part in [Part::Intake, Part::Storing] {
            let down = Component { condition: Condition::Down, ..Component::unknown(part) };
            snapshot.components.push(down);
        }
        assert!(snapshot.headline().starts_with("Kafka, Ingest API and Consumer are down;"));
    }

    #[test]
    fn what_agents_hold_is_not_known_while_their_words_do_not_come_through() {
        let mut snapshot = with(|e| e.backlog_batches = 3);
        assert_eq!(snapshot.held_by_agents(), Some(3));
        let down = Component { condition: Condition::Down, ..Component::unknown(Part::Log) };
        snapshot.components.push(down);
        assert_eq!(snapshot.held_by_agents(), None, "Kafka is cut");
        let unseen = with(|e| e.unseen_since_ms = Some(1));
        assert_eq!(unseen.held_by_agents(), None);
        assert!(unseen.to_answer().to_json()["environments"][0]["lost"].is_null());
        assert_eq!(Snapshot::default().held_by_agents(), None);
    }

    #[test]
    fn a_new_installation_does_not_say_that_everything_arrives() {
        let mut snapshot = Snapshot::default();
        assert_eq!(snapshot.headline(), "Nothing is known yet");
        let up = Component { condition: Condition::Up, ..Component::unknown(Part::Log) };
        snapshot.components.push(up);
        assert_eq!(snapshot.verdict(), Verdict::Ok);
        assert_eq!(snapshot.headline(), "Ready; no data has arrived yet");
    }

    #[test]
    fn an_agent_that_is_gone_is_no_outage_of_ours() {
        let mut snapshot = with(|_| {});
        let (name, state) = ("agent".to_owned(), "down");
        snapshot.programs.push(ProgramState { name, state, answered_ms: None });
        assert_eq!(snapshot.verdict(), Verdict::Warning);
    }
}
