//! The frame of every duty: a round, a deadline, a pause, until shutdown. A failing round is
//! counted, logged when it starts to fail and when it works again, and tried after the same pause:
//! the pauses are long enough that nothing is hammered.

use std::fmt::Display;
use std::future::Future;
use std::time::{Duration, Instant};

use spillway_runtime::admin::DependencyProbe;
use spillway_runtime::deadline::within;
use spillway_runtime::shutdown::Shutdown;
use tracing::{info, warn};

use crate::metrics::{Metrics, OfDuty};

/// Something the keeper does again and again for one shard.
pub trait Duty: Send + 'static {
    /// In metrics, logs and `/deepz`.
    const NAME: &'static str;
    type Error: Display + Send;

    /// The pause between rounds.
    fn interval(&self) -> Duration;
    /// A round that takes longer is dropped, wherever it stands.
    fn deadline(&self) -> Duration;
    /// One round. It may be dropped at any await, and must be fine to run again.
    fn round(&mut self) -> impl Future<Output = Result<(), Self::Error>> + Send;
    /// What a round that was done found wrong: `/deepz` says it, and the round counts as done.
    fn trouble(&self) -> Option<String> {
        None
    }
}

/// How a round went.
#[derive(Default, PartialEq)]
struct Went {
    failure: Option<String>,
    trouble: Option<String>,
}

/// What surrounds a duty.
#[derive(Clone)]
pub struct Frame {
    pub shard: String,
    pub metrics: Metrics,
    pub probe: DependencyProbe,
    pub shutdown: Shutdown,
}

impl Frame {
    /// Runs the duty until shutdown.
    pub async fn attend<D: Duty>(self, mut duty: D) {
        let label = OfDuty { duty: D::NAME, shard: self.shard.clone() };
        let mut before = Went::default();
        while !self.shutdown.requested() {
            self.metrics.duty_runs.get_or_create(&label).inc();
            let began = Instant::now();
            let round = within(duty.deadline(), duty.round());
            let done = tokio::select! {
                () = self.shutdown.wait() => return,
                done = round => done,
            };
            let failure = match done {
                Ok(Ok(())) => None,
                Ok(Err(error)) => Some(error.to_string()),
                Err(late) => Some(late.to_string()),
            };
            let trouble = if failure.is_none() { duty.trouble() } else { None };
            let went = Went { failure, trouble };
            self.note(&label, began.elapsed(), &before, &went);
            before = went;
            tokio::select! {
                () = self.shutdown.wait() => return,
                () = tokio::time::sleep(duty.interval()) => {}
            }
        }
    }

    fn note(&self, label: &OfDuty, took: Duration, before: &Went, went: &Went) {
        let OfDuty { duty, shard } = label;
        if let Some(error) = &went.failure {
            self.metrics.duty_errors.get_or_create(label).inc();
            self.probe.failed(format_args!("{duty}: {error}"));
            if before.failure.is_none() {
                warn!(duty, shard, error, "a duty fails and is tried on");
            }
            return;
        }
        let now = jiff::Timestamp::now().as_second();
        self.metrics.duty_succeeded_at.get_or_create(label).set(now);
        match &went.trouble {
            Some(trouble) => {
                self.probe.failed(format_args!("{duty}: {trouble}"));
                if before.trouble != went.trouble {
                    warn!(duty, shard, trouble, "a duty found what somebody must look at");
                }
            }
            None => self.probe.ok(took),
        }
        if before.failure.is_some() {
            info!(duty, shard, "a duty works again");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    use spillway_runtime::program::Context;

    use super::*;

    struct Failing(Arc<AtomicU32>);

    impl Duty for Failing {
        const NAME: &'static str = "failing";
        type Error = &'static str;

        fn interval(&self) -> Duration {
            Duration::from_secs(1)
        }

        fn deadline(&self) -> Duration {
            Duration::from_secs(5)
        }

        async fn round(&mut self) -> Result<(), &'static str> {
            match self.0.fetch_add(1, Ordering::Relaxed) {
                0 => Err("no"),
                1 => std::future::pending().await,
                _ => Ok(()),
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_round_that_fails_or_never_ends_is_counted_and_followed_by_the_next() {
        let context = Context::for_test("keeper");
        let frame = Frame {
            shard: "s0".to_owned(),
            metrics: Metrics::default(),
            probe: context.health.register("mysql-s0"),
            shutdown: context.shutdown.clone(),
        };
        let (metrics, rounds) = (frame.metrics.clone(), Arc::new(AtomicU32::new(0)));
        let attended = tokio::spawn(frame.attend(Failing(Arc::clone(&rounds))));
        tokio::time::sleep(Duration::from_secs(20)).await;
        context.shutdown.trigger();
        attended.await.expect("the loop ends by itself");
        let label = OfDuty { duty: "failing", shard: "s0".to_owned() };
        assert_eq!(metrics.duty_errors.get_or_create(&label).get(), 2);
        assert!(rounds.load(Ordering::Relaxed) > 3);
    }

    struct Finding;

    impl Duty for Finding {
        const NAME: &'static str = "finding";
        type Error = &'static str;

        fn interval(&self) -> Duration {
            Duration::from_secs(1)
        }

        fn deadline(&self) -> Duration {
            Duration::from_secs(5)
        }

        async fn round(&mut self) -> Result<(), &'static str> {
            Ok(())
        }

        fn trouble(&self) -> Option<String> {
            Some("no position of partition 3".to_owned())
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_round_that_finds_trouble_is_done_and_looks_wrong_all_the_same() {
        let context = Context::for_test("keeper");
        let frame = Frame {
            shard: "s0".to_owned(),
            metrics: Metrics::default(),
            probe: context.health.register("lag-s0"),
            shutdown: context.shutdown.clone(),
        };
        let metrics = frame.metrics.clone();
        let attended = tokio::spawn(frame.attend(Finding));
        tokio::time::sleep(Duration::from_secs(3)).await;
        context.shutdown.trigger();
        attended.await.expect("the loop ends by itself");
        let label = OfDuty { duty: "finding", shard: "s0".to_owned() };
        assert_eq!(metrics.duty_errors.get_or_create(&label).get(), 0);
        assert!(metrics.duty_succeeded_at.get_or_create(&label).get() > 0);
        let deep = context.health.report();
        let told = deep.dependencies.get("lag-s0").and_then(|lag| lag.error.as_deref());
        assert_eq!(told, Some("finding: no position of partition 3"));
    }
}
