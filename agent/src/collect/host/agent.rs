//! What the agent costs this host, and how it fares: as series like any other, so that a fleet's
//! agents can be watched with the same SQL as everything else.

use procfs::process::Process;

use super::super::{Input, InputError, Readings};
use crate::metrics::Metrics;

pub(super) struct Agent {
    metrics: Metrics,
}

impl Agent {
    pub(super) fn new(metrics: Metrics) -> Self {
        Self { metrics }
    }
}

impl Input for Agent {
    fn name(&self) -> &'static str {
        "agent"
    }

    fn read(&mut self, out: &mut Readings) -> Result<(), InputError> {
        let metrics = &self.metrics;
        let counters = [
            ("spillway.agent.batches_emitted", &metrics.batches_emitted),
            ("spillway.agent.points_emitted", &metrics.points_emitted),
            ("spillway.agent.batches_acked", &metrics.batches_acked),
            ("spillway.agent.batches_parked", &metrics.batches_parked),
            ("spillway.agent.statsd_lines", &metrics.statsd_lines),
            ("spillway.agent.statsd_malformed", &metrics.statsd_malformed),
            ("spillway.agent.statsd_lines_dropped", &metrics.statsd_lines_dropped),
        ];
        for (name, counter) in counters {
            out.counter(name, "1", counter.get() as f64);
        }
        out.gauge("spillway.agent.spool_batches", "1", metrics.spool_batches.get() as f64);
        out.gauge("spillway.agent.spool_bytes", "bytes", metrics.spool_bytes.get() as f64);
        out.gauge("spillway.agent.route", "1", metrics.route.get() as f64);
        let stat = Process::myself()?.stat()?;
        let ticks = procfs::ticks_per_second().max(1) as f64;
        let cpu = (stat.utime + stat.stime) as f64 / ticks;
        out.counter("spillway.agent.cpu_seconds", "seconds", cpu);
        let resident = stat.rss as f64 * procfs::page_size() as f64;
        out.gauge("spillway.agent.resident_bytes", "bytes", resident);
        Ok(())
    }
}
