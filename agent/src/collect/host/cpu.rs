//! CPU time per mode, usage since the previous sample, and what the scheduler counts.

use procfs::{CpuTime, CurrentSI, KernelStats};
use spillway_proto::Kind;

use super::super::{Input, InputError, Readings};

/// Labels for this many cores at most; hosts with more keep the totals.
const CORES_MAX: usize = 512;

pub(super) struct Cpu {
    per_core: bool,
    previous: Option<Busy>,
}

impl Cpu {
    pub(super) fn new(per_core: bool) -> Self {
        Self { per_core, previous: None }
    }
}

/// Milliseconds since boot, all cores together. Guest time is part of user time already.
#[derive(Clone, Copy)]
struct Busy {
    busy: u64,
    all: u64,
}

impl Busy {
    fn of(time: &CpuTime) -> Self {
        let idle = time.idle_ms() + time.iowait_ms().unwrap_or(0);
        let busy = time.user_ms()
            + time.nice_ms()
            + time.system_ms()
            + time.irq_ms().unwrap_or(0)
            + time.softirq_ms().unwrap_or(0)
            + time.steal_ms().unwrap_or(0);
        Self { busy, all: busy + idle }
    }

    /// Percent busy since `earlier`; none if no time passed or a counter fell (a core went off).
    fn usage_since(self, earlier: Self) -> Option<f64> {
        let all = self.all.checked_sub(earlier.all).filter(|all| *all > 0)?;
        let busy = self.busy.checked_sub(earlier.busy)?;
        Some(busy as f64 / all as f64 * 100.0)
    }
}

impl Input for Cpu {
    fn name(&self) -> &'static str {
        "cpu"
    }

    fn read(&mut self, out: &mut Readings) -> Result<(), InputError> {
        let stats = KernelStats::current()?;
        let now = Busy::of(&stats.total);
        let earlier = self.previous.replace(now);
        if let Some(usage) = earlier.and_then(|earlier| now.usage_since(earlier)) {
            out.gauge("cpu.usage", "%", usage);
        }
        modes(&stats.total, None, out);
        if self.per_core {
            for (core, time) in stats.cpu_time.iter().take(CORES_MAX).enumerate() {
                modes(time, Some(&core.to_string()), out);
            }
        }
        out.gauge("cpu.count", "1", stats.cpu_time.len() as f64);
        out.counter("cpu.context_switches", "1", stats.ctxt as f64);
        out.counter("cpu.forks", "1", stats.processes as f64);
        Ok(())
    }
}

fn modes(time: &CpuTime, core: Option<&str>, out: &mut Readings) {
    let modes = [
        ("user", Some(time.user_ms())),
        ("nice", Some(time.nice_ms())),
        ("system", Some(time.system_ms())),
        ("idle", Some(time.idle_ms())),
        ("iowait", time.iowait_ms()),
        ("irq", time.irq_ms()),
        ("softirq", time.softirq_ms()),
        ("steal", time.steal_ms()),
    ];
    for (mode, ms) in modes {
        let Some(ms) = ms else { continue };
        let seconds = ms as f64 / 1_000.0;
        match core {
            None => {
                let labels = [("mode", mode)];
                out.labelled("cpu.seconds", "seconds", Kind::Cumulative, &labels, seconds);
            }
            Some(core) => {
                let labels = [("core", core), ("mode", mode)];
                out.labelled("cpu.core_seconds", "seconds", Kind::Cumulative, &labels, seconds);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usage_is_the_busy_share_of_the_time_between_two_samples() {
        let earlier = Busy { busy: 100, all: 1_000 };
        let usage = Busy { busy: 175, all: 1_100 }.usage_since(earlier);
        assert_eq!(usage, Some(75.0));
    }

    #[test]
    fn a_counter_that_fell_gives_no_usage() {
        let earlier = Busy { busy: 100, all: 1_000 };
        assert_eq!(Busy { busy: 90, all: 1_100 }.usage_since(earlier), None);
        assert_eq!(Busy { busy: 100, all: 1_000 }.usage_since(earlier), None);
    }
}
