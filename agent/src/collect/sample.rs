//! Reads all host inputs at once, so that none waits for another: each on a thread of its own,
//! all until the same deadline. A read that hangs (a dead NFS mount) misses its samples until it
//! returns, is counted as late, and never holds more than its one thread.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};
use tracing::{info, warn};

use super::{Input, InputError, Reading, Readings};
use crate::metrics::{self, Metrics};

type Finished = (Box<dyn Input>, Readings, Result<(), InputError>);

/// Where one input is.
enum Slot {
    Idle(Box<dyn Input>),
    /// Its previous read has not come back.
    Running(JoinHandle<Finished>),
    /// It panicked and is gone; the others go on.
    Gone,
}

/// What is wrong with which input at this moment; all clones are one.
#[derive(Clone, Debug, Default)]
pub struct Troubles(Arc<Mutex<BTreeMap<String, String>>>);

impl Troubles {
    /// By input.
    #[must_use]
    pub fn now(&self) -> BTreeMap<String, String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Each trouble is logged once, and once when it ends.
    pub fn note(&self, name: &str, trouble: Option<String>) {
        let mut troubles = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match trouble {
            Some(text) => {
                if !troubles.contains_key(name) {
                    warn!(input = name, cause = %text, "an input has a trouble; the others go on");
                }
                troubles.insert(name.to_owned(), text);
            }
            None => {
                if troubles.remove(name).is_some() {
                    info!(input = name, "the input is well again");
                }
            }
        }
    }
}

/// All host inputs of this agent.
pub struct Sampler {
    slots: Vec<(&'static str, Slot)>,
    deadline: Duration,
    metrics: Metrics,
    troubles: Troubles,
}

impl Sampler {
    #[must_use]
    pub fn new(inputs: Vec<Box<dyn Input>>, deadline: Duration, metrics: Metrics) -> Self {
        let slots = inputs.into_iter().map(|input| (input.name(), Slot::Idle(input))).collect();
        Self { slots, deadline, metrics, troubles: Troubles::default() }
    }

    /// Reads every input once. Never fails and never takes longer than the deadline; an input
    /// that hangs since an earlier sample is not waited for at all.
    pub async fn sample(&mut self) -> Vec<Reading> {
        let deadline = Instant::now() + self.deadline;
        let mut started = Vec::with_capacity(self.slots.len());
        for (_, slot) in &mut self.slots {
            let (next, fresh) = start(std::mem::replace(slot, Slot::Gone)).await;
            *slot = next;
            started.push(fresh);
        }
        let mut readings = Vec::new();
        for ((name, slot), fresh) in self.slots.iter_mut().zip(started) {
            let trouble = match std::mem::replace(slot, Slot::Gone) {
                Slot::Running(mut read) => {
                    let until = if fresh { deadline } else { Instant::now() };
                    match timeout_at(until, &mut read).await {
                        Ok(Ok((input, out, result))) if fresh => {
                            readings.extend(out.into_list());
                            *slot = Slot::Idle(input);
                            result.err().map(|cause| cause.to_string())
                        }
                        // It came back this moment, with what was true long ago.
                        Ok(Ok((input, _, _))) => {
                            *slot = Slot::Idle(input);
                            None
                        }
                        Ok(Err(gone)) => Some(format!("the input failed for good: {gone}")),
                        Err(_) => {
                            *slot = Slot::Running(read);
                            let late = metrics::Input { input: name };
                            self.metrics.inputs_late.get_or_create(&late).inc();
                            Some(format!("no answer within {:?}", self.deadline))
                        }
                    }
                }
                other => {
                    *slot = other;
                    continue;
                }
            };
            if trouble.is_some() {
                self.metrics.inputs_failed.get_or_create(&metrics::Input { input: name }).inc();
            }
            self.troubles.note(name, trouble);
        }
        readings
    }

    /// What is wrong, also while the sampler itself is elsewhere.
    #[must_use]
    pub fn troubles(&self) -> Troubles {
        self.troubles.clone()
    }

    /// Names of its inputs.
    #[must_use]
    pub fn names(&self) -> Vec<&'static str> {
        self.slots.iter().map(|(name, _)| *name).collect()
    }
}

/// Starts reading, if the read before has come back. Whether this is a fresh read.
async fn start(slot: Slot) -> (Slot, bool) {
    let mut input = match slot {
        Slot::Idle(input) => input,
        // What a hung read brings back is old: only its input is wanted.
        Slot::Running(read) if read.is_finished() => match read.await {
            Ok((input, _, _)) => input,
            Err(_) => return (Slot::Gone, false),
        },
        other => return (other, false),
    };
    let read = tokio::task::spawn_blocking(move || {
        let mut out = Readings::default();
        let result = input.read(&mut out);
        (input, out, result)
    });
    (Slot::Running(read), true)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    struct Fails;
    impl Input for Fails {
        fn name(&self) -> &'static str {
            "fails"
        }
        fn read(&mut self, out: &mut Readings) -> Result<(), InputError> {
            out.gauge("before", "1", 1.0);
            Err(InputError::Io { what: "made up", cause: std::io::Error::other("no") })
        }
    }

    struct Panics;
    impl Input for Panics {
        fn name(&self) -> &'static str {
            "panics"
        }
        fn read(&mut self, _: &mut Readings) -> Result<(), InputError> {
            panic!("a bug in an input")
        }
    }

    struct Hangs(mpsc::Receiver<()>);
    impl Input for Hangs {
        fn name(&self) -> &'static str {
            "hangs"
        }
        fn read(&mut self, out: &mut Readings) -> Result<(), InputError> {
            // Ends when the test lets go of its half.
            let _ended = self.0.recv();
            out.gauge("late", "1", 1.0);
            Ok(())
        }
    }

    struct Works;
    impl Input for Works {
        fn name(&self) -> &'static str {
            "works"
        }
        fn read(&mut self, out: &mut Readings) -> Result<(), InputError> {
            out.gauge("good", "1", 1.0);
            Ok(())
        }
    }

    fn names(readings: &[Reading]) -> Vec<&str> {
        readings.iter().map(|reading| reading.metric.as_ref()).collect()
    }

    #[tokio::test]
    async fn an_input_that_fails_or_panics_does_not_disturb_the_others() {
        let metrics = Metrics::for_tests();
        let inputs: Vec<Box<dyn Input>> = vec![Box::new(Fails), Box::new(Panics), Box::new(Works)];
        let mut sampler = Sampler::new(inputs, Duration::from_secs(30), metrics.clone());
        for _ in 0..2 {
            assert_eq!(names(&sampler.sample().await), ["before", "good"]);
        }
        let failed = |input| metrics.inputs_failed.get_or_create(&metrics::Input { input }).get();
        assert_eq!((failed("fails"), failed("panics"), failed("works")), (2, 1, 0));
    }

    #[tokio::test]
    async fn an_input_that_hangs_misses_its_samples_and_comes_back() {
        let (let_go, hang) = mpsc::sync_channel(1);
        let metrics = Metrics::for_tests();
        let inputs: Vec<Box<dyn Input>> = vec![Box::new(Hangs(hang)), Box::new(Works)];
        // One deadline is for both: long enough for the good one on a busy machine.
        let mut sampler = Sampler::new(inputs, Duration::from_secs(2), metrics.clone());
        assert_eq!(names(&sampler.sample().await), ["good"]);
        // From now on it is not waited for, however long the deadline.
        sampler.deadline = Duration::from_secs(3_600);
        assert_eq!(names(&sampler.sample().await), ["good"]);
        let late = metrics.inputs_late.get_or_create(&metrics::Input { input: "hangs" }).get();
        assert_eq!(late, 2);
        drop(let_go);
        sampler.deadline = Duration::from_secs(30);
        while names(&sampler.sample().await) != ["late", "good"] {
            tokio::task::yield_now().await;
        }
        assert!(sampler.troubles().now().is_empty());
    }
}
