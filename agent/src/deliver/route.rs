//! Which way a batch goes: a pure state machine with the clock passed in.
//!
//! ```text
//!            accepted                     failing for park_after, or spool above park_fill
//!   Direct ◄────────── Direct, failing ──────────────────────────────► Park ◄──► Probe
//!     ▲                (Wait, doubling)                                            │
//!     └──────────────────────────── accepted ──────────────────────────────────────┘
//! ```
//!
//! - While the API takes batches, nothing is parked, however full the spool is.
//! - One error parks nothing.
//! - While parking, one batch at a time probes the API, at least every `probe_max` (or when the
//!   API asked to come back): a fallback that never ends is an outage of its own.
//! - A refused token (401, 403) parks up to a cap: the API may not know it yet, and the recovery
//!   worker does. After that the spool holds, and probes go on.
//! - A revoked one parks nothing: what is sealed with it from then on ends in quarantine. The spool
//!   holds until there is another token.

/// The rules, from the operator. Times in ms.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// Whether there is an S3 to park in.
    pub spill: bool,
    pub park_after_ms: i64,
    pub park_fill: f64,
    pub probe_min_ms: i64,
    pub probe_max_ms: i64,
    pub retry_min_ms: i64,
    pub retry_max_ms: i64,
    pub auth_park_bytes_max: u64,
}

/// No server may send us away for longer.
const RETRY_AFTER_MS_MAX: i64 = 600_000;
/// A probe of which nothing was heard for this long has got lost.
const PROBE_PATIENCE_MS: i64 = 120_000;

/// What was heard from the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// It took batches, or judged their content: it works.
    Answered,
    /// It did not, for now.
    Failed { retry_after_ms: Option<i64> },
    /// The token is refused; `revoked` is for good.
    Denied { revoked: bool },
}

/// What a lane is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Send to the API.
    Direct,
    /// Send one batch to the API, to see whether it is back.
    Probe,
    /// Send to S3.
    Park,
    /// Ask again then, or when something was heard.
    Wait { until_ms: i64 },
}

/// What the route knows of itself, for `status` and metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Direct,
    Park,
    Probe,
}

impl State {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Park => "park",
            Self::Probe => "probe",
        }
    }
}

/// What bears on the choice beside what was heard.
#[derive(Clone, Copy, Debug)]
pub struct Pressure {
    /// How full the spool is, 0 to 1.
    pub fill: f64,
    /// The agent stops, and these batches would not survive that.
    pub urgent: bool,
}

/// A doubling, bounded, jittered pause.
#[derive(Clone, Copy, Debug, Default)]
struct Pause {
    failures: u32,
    until_ms: i64,
}

impl Pause {
    /// `jitter` (0 to 1) takes away up to half, so that a fleet does not knock in step.
    fn lengthen(&mut self, now_ms: i64, min_ms: i64, max_ms: i64, jitter: f64) {
        let doubled = min_ms.saturating_mul(1_i64 << self.failures.min(20));
        let longest = doubled.clamp(1, max_ms.max(1)) as f64;
        let pause = (longest * (1.0 - jitter.clamp(0.0, 1.0) / 2.0)).ceil() as i64;
        self.failures = self.failures.saturating_add(1);
        self.until_ms = now_ms.saturating_add(pause.max(1));
    }
}

/// The route.
#[derive(Debug)]
pub struct Route {
    rules: Rules,
    failing_since_ms: Option<i64>,
    denied: bool,
    revoked: bool,
    parking: bool,
    retry: Pause,
    probe: Pause,
    probing_until_ms: Option<i64>,
    s3: Pause,
    parked_while_denied: u64,
}

impl Route {
    pub fn new(rules: Rules) -> Self {
        Self {
            rules,
            failing_since_ms: None,
            denied: false,
            revoked: false,
            parking: false,
            retry: Pause::default(),
            probe: Pause::default(),
            probing_until_ms: None,
            s3: Pause::default(),
            parked_while_denied: 0,
        }
    }

    /// What to do next. A `Probe` is given to one caller, who must tell what was heard of it
    /// ([`Self::heard`]) or that there was nothing to send ([`Self::not_probed`]).
    pub fn way(&mut self, now_ms: i64, pressure: Pressure) -> Way {
        let Some(since) = self.failing_since_ms else { return Way::Direct };
        if !self.parking && self.may_park(now_ms, since, pressure) {
            self.parking = true;
            self.probe = Pause { failures: 0, until_ms: self.retry.until_ms };
        }
        if !self.parking {
            return match self.retry.until_ms {
                until_ms if until_ms > now_ms => Way::Wait { until_ms },
                _ => Way::Direct,
            };
        }
        let probing = self.probing_until_ms.filter(|until_ms| *until_ms > now_ms);
        if probing.is_none() && self.probe.until_ms <= now_ms {
            self.probing_until_ms = Some(now_ms.saturating_add(PROBE_PATIENCE_MS));
            return Way::Probe;
        }
        let next_probe_ms = probing.unwrap_or(self.probe.until_ms);
        // What would not survive the stop is better in quarantine than gone.
        let in_vain = self.revoked && !pressure.urgent;
        let too_much = self.denied && self.parked_while_denied >= self.rules.auth_park_bytes_max;
        if in_vain || too_much {
            return Way::Wait { until_ms: next_probe_ms };
        }
        match self.s3.until_ms {
            until_ms if until_ms > now_ms => Way::Wait { until_ms: until_ms.min(next_probe_ms) },
            _ => Way::Park,
        }
    }

    fn may_park(&self, now_ms: i64, since_ms: i64, pressure: Pressure) -> bool {
        let long = now_ms.saturating_sub(since_ms) >= self.rules.park_after_ms;
        let full = pressure.fill >= self.rules.park_fill;
        self.rules.spill && (long || full || pressure.urgent)
    }

    /// What the API said, or that it said nothing.
    pub fn heard(&mut self, now_ms: i64, heard: Heard, jitter: f64) {
        let retry_after_ms = match heard {
            Heard::Answered => {
                *self = Self { s3: self.s3, ..Self::new(self.rules) };
                return;
            }
            Heard::Failed { retry_after_ms } => retry_after_ms.unwrap_or_default(),
            Heard::Denied { .. } => 0,
        };
        self.denied = matches!(heard, Heard::Denied { .. });
        self.revoked = heard == Heard::Denied { revoked: true };
        self.failing_since_ms.get_or_insert(now_ms);
        self.probing_until_ms = None;
        let rules = self.rules;
        let asked_ms = now_ms.saturating_add(retry_after_ms.clamp(0, RETRY_AFTER_MS_MAX));
        self.retry.lengthen(now_ms, rules.retry_min_ms, rules.retry_max_ms, jitter);
        self.retry.until_ms = self.retry.until_ms.max(asked_ms);
        if self.parking {
            self.probe.lengthen(now_ms, rules.probe_min_ms, rules.probe_max_ms, jitter);
            self.probe.until_ms = self.probe.until_ms.max(asked_ms);
        }
    }

    /// There is another token: what was said of the one before counts no more, and the API is asked
    /// at once.
    pub fn new_token(&mut self) {
        if self.denied {
            (self.denied, self.revoked, self.parked_while_denied) = (false, false, 0);
            (self.retry, self.probe) = (Pause::default(), Pause::default());
        }
    }

    /// There was nothing to probe with; the next one may.
    pub fn not_probed(&mut self) {
        self.probing_until_ms = None;
    }

    /// S3 has an object of so many bytes.
    pub fn parked(&mut self, bytes: u64) {
        self.s3 = Pause::default();
        if self.denied {
            self.parked_while_denied = self.parked_while_denied.saturating_add(bytes);
        }
    }

    /// S3 does not take objects, for now.
    pub fn park_failed(&mut self, now_ms: i64, retry_after_ms: Option<i64>, jitter: f64) {
        let asked_ms = retry_after_ms.unwrap_or_default().clamp(0, RETRY_AFTER_MS_MAX);
        self.s3.lengthen(now_ms, self.rules.retry_min_ms, self.rules.retry_max_ms, jitter);
        self.s3.until_ms = self.s3.until_ms.max(now_ms.saturating_add(asked_ms));
    }

    /// Failures in a row, for the API's own pacing.
    pub fn attempts(&self) -> u32 {
        self.retry.failures
    }

    pub fn denied(&self) -> bool {
        self.denied
    }

    pub fn state(&self) -> State {
        match (self.parking, self.probing_until_ms) {
            (false, _) => State::Direct,
            (true, None) => State::Park,
            (true, Some(_)) => State::Probe,
        }
    }
}

#[cfg(test)]
#[path = "route_tests.rs"]
mod tests;
