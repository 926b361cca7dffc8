//! The command line of the simulation.

use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use crate::mutant::Mutant;
use crate::run::{Outcome, run};

/// Failing seeds told in full; of the others the number.
const FAILURES_TOLD_MAX: usize = 3;
/// Lines of a failing seed's history.
const LINES_TOLD: usize = 60;

/// Runs agent, ingest-api and recovery-worker in simulated time, seed after seed
#[derive(Debug, clap::Parser)]
pub struct Args {
    /// So many seeds, from `--first` on
    #[arg(long, default_value_t = 1_000)]
    pub seeds: u64,
    /// The first seed
    #[arg(long, default_value_t = 0)]
    pub first: u64,
    /// This seed alone, told in full
    #[arg(long)]
    pub seed: Option<u64>,
    /// Threads; each simulation has one of its own
    #[arg(long, default_value_t = 2)]
    pub jobs: u64,
    /// With the log of the programs themselves
    #[arg(long)]
    pub log: bool,
    /// Every mutant, each until a seed finds it (at most `--seeds`)
    #[arg(long)]
    pub mutants: bool,
}

/// Runs, prints, and gives the exit code.
#[must_use]
pub fn run_command(args: &Args) -> ExitCode {
    if args.log {
        let log = tracing_subscriber::fmt().without_time().with_ansi(false);
        log.with_max_level(tracing::Level::INFO).init();
    }
    let well = match (args.seed, args.mutants) {
        (Some(seed), _) => one(seed),
        (None, true) => Mutant::ALL.iter().all(|mutant| is_found(*mutant, args)),
        (None, false) => many(args),
    };
    if well { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn one(seed: u64) -> bool {
    let outcome = run(seed, None);
    tell(&outcome, usize::MAX);
    outcome.violations.is_empty()
}

/// The first seed that finds a mutant.
#[must_use]
pub fn finds(mutant: Mutant, seeds: std::ops::Range<u64>) -> Option<Outcome> {
    seeds.map(|seed| run(seed, Some(mutant))).find(|outcome| !outcome.violations.is_empty())
}

fn is_found(mutant: Mutant, args: &Args) -> bool {
    let found = finds(mutant, args.first..args.first + args.seeds);
    match &found {
        Some(outcome) => {
            let what = outcome.violations.first().map(String::as_str).unwrap_or_default();
            println!("{mutant:?}: found by seed {}: {what}", outcome.seed);
        }
        None => println!("{mutant:?}: SURVIVED {} seeds", args.seeds),
    }
    found.is_some()
}

fn many(args: &Args) -> bool {
    let began = Instant::now();
    let next = AtomicU64::new(args.first);
    let sums = Mutex::new(Sums::default());
    std::thread::scope(|scope| {
        for _ in 0..args.jobs.max(1) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= args.first + args.seeds {
                        return;
                    }
                    let outcome = run(seed, None);
                    sums.lock().unwrap_or_else(PoisonError::into_inner).add(outcome);
                }
            });
        }
    });
    let sums = sums.into_inner().unwrap_or_else(PoisonError::into_inner);
    sums.tell(began.elapsed().as_secs_f64())
}

#[derive(Default)]
struct Sums {
    seeds: u64,
    events: u64,
    seconds: u64,
    batches: (u64, u64, u64, u64),
    failed: Vec<u64>,
}

impl Sums {
    fn add(&mut self, outcome: Outcome) {
        self.seeds += 1;
        self.events += outcome.events;
        self.seconds += outcome.seconds;
        let ((a, b, c, d), (e, f, g, h)) = (self.batches, outcome.batches);
        self.batches = (a + e, b + f, c + g, d + h);
        if !outcome.violations.is_empty() {
            if self.failed.len() < FAILURES_TOLD_MAX {
                tell(&outcome, LINES_TOLD);
            } else {
                let what = outcome.violations.first().map(String::as_str).unwrap_or_default();
                println!("seed {}: BROKEN: {what}", outcome.seed);
            }
            self.failed.push(outcome.seed);
        }
    }

    fn tell(mut self, took: f64) -> bool {
        self.failed.sort_unstable();
        let (kept, applied, declared, again) = self.batches;
        let hours = self.seconds as f64 / 3_600.0;
        println!(
            "{} seeds in {took:.1} s: {hours:.1} simulated hours, {} events; {kept} batches \
             spooled, {applied} applied, {declared} declared, {again} repetitions recognised",
            self.seeds, self.events
        );
        if !self.failed.is_empty() {
            println!("{} seeds FAILED: {:?}", self.failed.len(), self.failed);
        }
        self.failed.is_empty()
    }
}

fn tell(outcome: &Outcome, lines: usize) {
    let skipped = outcome.tail.len().saturating_sub(lines);
    println!("--- seed {}: the last events", outcome.seed);
    outcome.tail.iter().skip(skipped).for_each(|line| println!("{line}"));
    outcome.violations.iter().take(20).for_each(|what| println!("BROKEN: {what}"));
    println!(
        "--- seed {}: {} events, history {:016x}; again: cargo xtask drill simulate --seed {}",
        outcome.seed, outcome.events, outcome.digest, outcome.seed
    );
}
