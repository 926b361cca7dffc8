//! L7 from the programs' own `/metrics`: nothing comes out of a stage that did not go in, and at
//! the end all of it has.
//!
//! A program that was killed takes with it what it counted since it was last asked. So between
//! stages an inequality holds always, read from the far end of the pipeline to the near one; the
//! equation holds at the end, for programs that lived through all of it.

use std::collections::BTreeMap;

use spillway_testkit::metrics::Metrics;
use spillway_testkit::stack::ProcessEntry;

use super::site::Site;
use crate::verdict::Findings;

/// What is added up of each kind of program; reads like the way of a batch.
const COUNTERS: [(&str, &[&str]); 5] = [
    ("agent", &["spillway_agent_batches_emitted_total"]),
    ("ingest-api", &["spillway_ingest_records_published_total", "spillway_ingest_joins_total"]),
    (
        "recovery-worker",
        &["spillway_recovery_records_published_total", "spillway_recovery_batches_drained_total"],
    ),
    (
        "consumer",
        &[
            "spillway_consumer_batches_applied_total",
            "spillway_consumer_batches_duplicate_total",
            "spillway_consumer_batches_quarantined_total",
            "spillway_consumer_points_applied_total",
        ],
    ),
    ("keeper", &[]),
];

/// One program's counters over all its lives.
#[derive(Clone, Debug, Default)]
struct Tally {
    pid: Option<i32>,
    lives: u32,
    before: BTreeMap<&'static str, f64>,
    now: BTreeMap<&'static str, f64>,
}

/// All programs' counters, added up over restarts.
#[derive(Clone, Debug, Default)]
pub struct Tallies {
    programs: BTreeMap<String, Tally>,
}

impl Tallies {
    /// Takes in one program's page.
    pub fn take(&mut self, process: &ProcessEntry, metrics: &Metrics) {
        let Some((_, names)) = COUNTERS.iter().find(|(kind, _)| is_of(&process.name, kind)) else {
            return;
        };
        let tally = self.programs.entry(process.name.clone()).or_default();
        if tally.pid != process.pid {
            for (name, value) in std::mem::take(&mut tally.now) {
                *tally.before.entry(name).or_default() += value;
            }
            tally.pid = process.pid;
            tally.lives += 1;
        }
        tally.now = names.iter().map(|name| (*name, metrics.sum(name))).collect();
    }

    /// The sum of a counter over all programs and lives.
    #[must_use]
    pub fn sum(&self, counter: &str) -> u64 {
        let of = |counts: &BTreeMap<&'static str, f64>| counts.get(counter).copied().unwrap_or(0.0);
        let sum: f64 = self.programs.values().map(|tally| of(&tally.before) + of(&tally.now)).sum();
        sum as u64
    }

    /// Records that any program knows to be in Kafka.
    #[must_use]
    pub fn published(&self) -> u64 {
        self.sum("spillway_ingest_records_published_total")
            + self.sum("spillway_recovery_records_published_total")
    }

    /// Records that consumers say they are done with.
    #[must_use]
    pub fn consumed(&self) -> u64 {
        self.sum("spillway_consumer_batches_applied_total")
            + self.sum("spillway_consumer_batches_duplicate_total")
            + self.sum("spillway_consumer_batches_quarantined_total")
    }

    /// Whether a kind of program was never started again: then its numbers are whole.
    #[must_use]
    pub fn is_whole(&self, kind: &str) -> bool {
        let mut of_kind = self.programs.iter().filter(|(name, _)| is_of(name, kind));
        of_kind.all(|(_, tally)| tally.lives == 1)
    }
}

fn is_of(process: &str, kind: &str) -> bool {
    match process.strip_prefix(kind) {
        // Agents of a trial have names of their own.
        None => kind == "agent" && process.starts_with("oracle-agent"),
        Some(rest) => rest.is_empty() || rest.starts_with('-'),
    }
}

/// Reads every program's counters, from the far end of the pipeline to the near one: what is read
/// later has had more time to grow.
pub async fn read_all(site: &Site, tallies: &mut Tallies) {
    let processes = site.processes();
    for (kind, _) in COUNTERS.iter().rev() {
        for process in processes.iter().filter(|process| is_of(&process.name, kind)) {
            if let Some(metrics) = site.metrics(process).await {
                tallies.take(process, &metrics);
            }
        }
    }
}

/// What came into a program, and what it tells of that, in a unit.
pub type Balance = fn(&Metrics, &str) -> (f64, f64);

/// What is counted in each.
pub const UNITS: [&str; 2] = ["batches", "points"];

/// One agent's own equation: emitted + found at its start = acked + parked + given up + in the
/// spool + in quarantine. What an earlier life numbered and lost is given up by this one as well.
#[must_use]
pub fn agent_balance(metrics: &Metrics, unit: &str) -> (f64, f64) {
    let sum = |name: String| metrics.sum(&format!("spillway_agent_{name}"));
    let gone = ["acked", "parked", "declared"].map(|fate| sum(format!("{unit}_{fate}_total")));
    let kept = ["spool", "quarantine"].map(|place| sum(format!("{place}_{unit}")));
    let came = ["emitted", "found"].map(|source| sum(format!("{unit}_{source}_total")));
    (came.iter().sum(), gone.iter().chain(&kept).sum())
}

/// One consumer's own equation: received = applied + duplicate + quarantined + dropped + in flight,
/// and of points also expired.
#[must_use]
pub fn consumer_balance(metrics: &Metrics, unit: &str) -> (f64, f64) {
    let sum = |name: String| metrics.sum(&format!("spillway_consumer_{unit}_{name}"));
    let fates = ["applied", "duplicate", "quarantined", "dropped", "expired"];
    let gone = fates.iter().filter(|fate| unit == "points" || **fate != "expired");
    let gone: f64 = gone.map(|fate| sum(format!("{fate}_total"))).sum();
    (sum("received_total".into()), gone + sum("in_flight".into()))
}

/// One ingest-api's own equation: received = accepted + rejected + not taken + in flight.
#[must_use]
pub fn ingest_balance(metrics: &Metrics, unit: &str) -> (f64, f64) {
    let sum = |name: String| metrics.sum(&format!("spillway_ingest_{unit}_{name}"));
    let gone = ["accepted", "rejected", "not_taken"].map(|fate| sum(format!("{fate}_total")));
    (sum("received_total".into()), gone.iter().sum::<f64>() + sum("in_flight".into()))
}

/// The equation at the end, all drained: published = in Kafka = applied + duplicates + quarantined.
#[must_use]
pub fn judge_end(tallies: &Tallies, records: u64) -> Findings {
    let mut found = Findings::default();
    let (published, consumed) = (tallies.published(), tallies.consumed());
    let mut hold = |what: &str, number: u64, whole: bool| {
        let wrong = if whole { number != records } else { number > records };
        if wrong {
            let sign = if whole { "=" } else { "≤" };
            found.push(None, || format!("{what} {number} {sign} {records} in Kafka does not hold"));
        }
    };
    // A record whose report never came may be in Kafka all the same.
    hold("records published", published, false);
    hold("records consumed", consumed, tallies.is_whole("consumer"));
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(pid: i32) -> ProcessEntry {
        ProcessEntry {
            name: "consumer-0".into(),
            pid: Some(pid),
            log: "log".into(),
            admin: None,
            restart: vec![],
        }
    }

    fn page(applied: u32) -> Metrics {
        Metrics::parse(&format!("spillway_consumer_batches_applied_total {applied}\n"))
    }

    #[test]
    fn a_program_s_lives_are_added_up() {
        let mut tallies = Tallies::default();
        for (pid, applied) in [(1, 5), (1, 9), (2, 1), (2, 4)] {
            tallies.take(&process(pid), &page(applied));
        }
        assert_eq!(tallies.consumed(), 13);
        assert!(!tallies.is_whole("consumer"));
        assert!(judge_end(&tallies, 14).is_empty());
        assert!(!judge_end(&tallies, 12).is_empty());
    }

    #[test]
    fn of_a_program_that_lived_through_it_all_the_equation_holds_exactly() {
        let mut tallies = Tallies::default();
        tallies.take(&process(1), &page(9));
        assert!(judge_end(&tallies, 9).is_empty());
        assert!(!judge_end(&tallies, 10).is_empty());
    }
}
