//! The verdict on a look, and the sentence that tells it: which part is down, and what that means
//! for data. What delays no data is no outage.

use super::component::{Condition, Part};
use super::snapshot::{Snapshot, WAY};
use crate::answer::Verdict;

impl Snapshot {
    /// Lost data or a cut in the way is critical; delayed data, and whatever else is not well, a
    /// warning.
    pub fn verdict(&self) -> Verdict {
        if self.lost() > 0 || self.is_cut() {
            return Verdict::Critical;
        }
        // An agent that is gone is its customer's, and shows as data that does not come.
        let unready = self.programs.iter().any(|program| program.state != "ready");
        let unwell = self.worst() >= Condition::Degraded || self.is_unknown() || self.redis_down;
        if self.is_delayed() || unready || unwell || !self.troubles.is_empty() {
            return Verdict::Warning;
        }
        Verdict::Ok
    }

    /// The verdict in words. They name no customer: the public page says the same.
    pub fn headline(&self) -> String {
        let impaired = which_are(&self.in_condition(Condition::Degraded));
        let arrives = if self.is_sent_to() { "Data arrives" } else { "What comes is stored" };
        match self.verdict() {
            _ if self.is_unknown() => "Nothing is known yet".to_owned(),
            Verdict::Ok => self.all_is_well().to_owned(),
            _ if self.lost() > 0 => "Some data is lost".to_owned(),
            Verdict::Critical => self.cut(),
            Verdict::Warning if self.is_delayed() => {
                self.and_beside("Delayed: some data is still on its way")
            }
            Verdict::Warning if !self.beside().is_empty() => {
                let (names, means): (Vec<_>, Vec<_>) = self.beside().into_iter().unzip();
                let arrives = arrives.to_lowercase();
                format!("{} down; {arrives}, {}", which_are(&names), means.join(", "))
            }
            Verdict::Warning if impaired.is_empty() => format!("{arrives}; not all can be seen"),
            Verdict::Warning => format!("{arrives}; {impaired} impaired"),
        }
    }

    fn all_is_well(&self) -> &'static str {
        match self.newest_s() {
            None if self.environments.is_empty() => "Ready; no data has arrived yet",
            None => "Ready; no point is stored yet",
            Some(_) if self.is_sent_to() => "Everything arrives",
            // Whether nobody has anything to send or can't, only the senders know.
            Some(_) => "Ready; nothing new arrives",
        }
    }

    fn cut(&self) -> String {
        let down = self.in_condition(Condition::Down);
        let storage = Part::Storage.title();
        // Some of MySQL's shards: together they are only impaired.
        if !WAY.into_iter().any(|part| self.is_down(part)) {
            let partly =
                format!("{storage} is partly down; data for that part is kept and delayed");
            return self.and_beside(&partly);
        }
        let partly =
            if self.is_partly_unseen() { format!(", {storage} partly") } else { String::new() };
        format!("{} down{partly}; data is kept and delayed", which_are(&down))
    }

    /// What is down beside the way of a batch, and what stands still without it.
    fn beside(&self) -> Vec<(&'static str, &'static str)> {
        let mut beside = Vec::new();
        if self.is_down(Part::Detour) && self.is_recovery_down() {
            beside.push(("Recovery worker", "what is parked in S3 waits"));
        } else if self.is_down(Part::Detour) {
            beside.push((Part::Detour.title(), "agents keep it should the API fail"));
        }
        if self.is_down(Part::Keeping) {
            let means = "rollups and the measurement of lag stand still";
            beside.push((Part::Keeping.title(), means));
        }
        if self.redis_down {
            beside.push(("Redis", "last_seen stands still"));
        }
        beside
    }

    fn and_beside(&self, sentence: &str) -> String {
        let names: Vec<_> = self.beside().into_iter().map(|(name, _)| name).collect();
        match which_are(&names) {
            none if none.is_empty() => sentence.to_owned(),
            they => format!("{sentence}; {they} down"),
        }
    }

    /// The detour is two: the worker, and the S3 that it tells of.
    fn is_recovery_down(&self) -> bool {
        let is_worker = |name: &str| Part::of_program(name) == Some(Part::Detour);
        let mut workers =
            self.programs.iter().filter(|program| is_worker(&program.name)).peekable();
        workers.peek().is_some() && workers.all(|worker| worker.state == "down")
    }

    fn in_condition(&self, condition: Condition) -> Vec<&'static str> {
        let them = self.components.iter().filter(|one| one.condition == condition);
        them.map(|one| one.part.title()).collect()
    }
}

/// "Kafka is", "Ingest API and Keeper are"; empty if there is none.
fn which_are(names: &[&str]) -> String {
    match names {
        [] => String::new(),
        [one] => format!("{one} is"),
        [others @ .., last] => format!("{} and {last} are", others.join(", ")),
    }
}

#[cfg(test)]
#[path = "verdict_tests.rs"]
mod tests;
