//! A random mix of faults, made from a seed alone: two or three at a time, healed, and again.

use std::fmt;
use std::time::Duration;

use spillway_testkit::proxy::{Mode, Way};
use spillway_testkit::stack::End;

use crate::recipe::mix as scramble;

/// Processes of the mix' stack that may die or freeze.
pub const PROCESSES: [&str; 14] = [
    "kafka-0",
    "ingest-api-0",
    "ingest-api-1",
    "consumer-0",
    "consumer-1",
    "recovery-worker-0",
    "recovery-worker-1",
    "keeper",
    "mysql-s0",
    "mysql-s1",
    "redis",
    "s3",
    "mix-agent-demo",
    "mix-agent-globex",
];

/// Wires that may misbehave.
pub const WIRES: [(End, End); 8] = [
    (End::Agent, End::IngestApi),
    (End::Agent, End::S3),
    (End::IngestApi, End::Kafka),
    (End::RecoveryWorker, End::S3),
    (End::RecoveryWorker, End::Kafka),
    (End::Consumer, End::Kafka),
    (End::Consumer, End::Mysql),
    (End::Consumer, End::Redis),
];

/// A COMMIT, as MySQL's protocol carries it.
const COMMIT: &[u8] = b"\x03COMMIT";
/// What a wire may do; the last one means something between consumer and MySQL only.
const TROUBLES: [Mode; 8] = [
    Mode::Delay(Duration::from_millis(300)),
    Mode::BlackHole,
    Mode::Reset,
    Mode::HalfOpen(Way::ToServer),
    Mode::HalfOpen(Way::ToClient),
    Mode::SwallowAnswers,
    Mode::Bandwidth(20_000),
    Mode::LoseAnswerTo(COMMIT),
];

/// Faults of one burst begin within this time.
const BEGIN_WITHIN_MS: u64 = 3_000;
const LASTS_MS: std::ops::Range<u64> = 1_000..14_000;
const PAUSE_MS: std::ops::Range<u64> = 2_000..7_000;

/// What breaks.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fault {
    /// SIGKILL, and a start when it is over.
    Kill(&'static str),
    /// SIGSTOP, and SIGCONT when it is over.
    Freeze(&'static str),
    /// A wire between two kinds of programs.
    Wire { from: End, to: End, mode: Mode },
}

impl Fault {
    /// Whether both touch the same thing.
    fn meets(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Wire { from, to, .. }, Self::Wire { from: f, to: t, .. }) => {
                from == f && to == t
            }
            (Self::Kill(a) | Self::Freeze(a), Self::Kill(b) | Self::Freeze(b)) => a == b,
            _ => false,
        }
    }
}

/// A fault and its time, counted from the beginning of its burst.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Injection {
    pub fault: Fault,
    pub begins: Duration,
    pub lasts: Duration,
}

/// Faults that overlap, and the rest before the next ones.
#[derive(Clone, Debug, PartialEq)]
pub struct Burst {
    pub injections: Vec<Injection>,
    pub pause: Duration,
}

impl Burst {
    fn length(&self) -> Duration {
        let ends = self.injections.iter().map(|one| one.begins + one.lasts);
        ends.max().unwrap_or_default() + self.pause
    }
}

/// Bursts that take about as long as was asked for. The same seed gives the same mix.
#[derive(Clone, Debug, PartialEq)]
pub struct Mix {
    pub seed: u64,
    pub bursts: Vec<Burst>,
}

impl Mix {
    #[must_use]
    pub fn of(seed: u64, length: Duration) -> Self {
        let mut dice = Dice(seed);
        let mut bursts = Vec::new();
        let mut planned = Duration::ZERO;
        while planned < length {
            let burst = dice.burst();
            planned += burst.length();
            bursts.push(burst);
        }
        Self { seed, bursts }
    }

    #[must_use]
    pub fn faults(&self) -> usize {
        self.bursts.iter().map(|burst| burst.injections.len()).sum()
    }
}

impl fmt::Display for Mix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "seed {}: {} faults", self.seed, self.faults())?;
        for (number, burst) in self.bursts.iter().enumerate() {
            for Injection { fault, begins, lasts } in &burst.injections {
                let (begins, lasts) = (begins.as_secs_f64(), lasts.as_secs_f64());
                writeln!(f, "  burst {number}, after {begins:.1} s for {lasts:.1} s: {fault:?}")?;
            }
        }
        Ok(())
    }
}

/// Random numbers from a seed, the same on every machine.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, range: std::ops::Range<u64>) -> u64 {
        self.0 = scramble(self.0);
        range.start + self.0 % (range.end - range.start)
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> Option<T> {
        let at = self.roll(0..from.len().max(1) as u64);
        usize::try_from(at).ok().and_then(|at| from.get(at)).copied()
    }

    fn burst(&mut self) -> Burst {
        let wanted = self.roll(2..4) as usize;
        let mut injections: Vec<Injection> = Vec::new();
        while injections.len() < wanted {
            let Some(fault) = self.fault() else { continue };
            if injections.iter().any(|other| other.fault.meets(&fault)) {
                continue;
            }
            let begins = Duration::from_millis(self.roll(0..BEGIN_WITHIN_MS));
            let lasts = Duration::from_millis(self.roll(LASTS_MS));
            injections.push(Injection { fault, begins, lasts });
        }
        Burst { injections, pause: Duration::from_millis(self.roll(PAUSE_MS)) }
    }

    fn fault(&mut self) -> Option<Fault> {
        match self.roll(0..4) {
            0 => self.pick(&PROCESSES).map(Fault::Freeze),
            1 => {
                let (from, to) = self.pick(&WIRES)?;
                let mode = self.pick(&TROUBLES)?;
                let of_commits = matches!(mode, Mode::LoseAnswerTo(_));
                (to == End::Mysql || !of_commits).then_some(Fault::Wire { from, to, mode })
            }
            _ => self.pick(&PROCESSES).map(Fault::Kill),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn the_seed_reproduces_the_mix() {
        assert_eq!(Mix::of(7, MINUTE), Mix::of(7, MINUTE));
        assert_ne!(Mix::of(7, MINUTE).bursts, Mix::of(8, MINUTE).bursts);
    }

    #[test]
    fn each_burst_breaks_two_or_three_different_things() {
        for seed in 0..200 {
            for burst in Mix::of(seed, MINUTE).bursts {
                assert!((2..=3).contains(&burst.injections.len()));
                for (at, one) in burst.injections.iter().enumerate() {
                    let mut later = burst.injections.iter().skip(at + 1);
                    assert!(!later.any(|other| other.fault.meets(&one.fault)));
                }
            }
        }
    }

    #[test]
    fn a_hundred_seeds_break_everything_that_can_break() {
        let all: Vec<Injection> = (0..100)
            .flat_map(|seed| Mix::of(seed, MINUTE).bursts)
            .flat_map(|burst| burst.injections)
            .collect();
        for name in PROCESSES {
            assert!(all.iter().any(|one| one.fault == Fault::Kill(name)), "{name} never dies");
            assert!(all.iter().any(|one| one.fault == Fault::Freeze(name)), "{name} never freezes");
        }
        for wire in WIRES {
            let hit = |one: &Injection| match one.fault {
                Fault::Wire { from, to, .. } => (from, to) == wire,
                _ => false,
            };
            assert!(all.iter().any(hit), "{wire:?} is never cut");
        }
    }
}
