//! What the agent costs this host, and how it fares: as series like any other, so that a fleet's
//! agents can be watched with the same SQL as everything else.

use std::net::SocketAddr;

use procfs::process::Process;

use super::super::{Input, InputError, Readings};
use crate::metrics::Metrics;
use crate::settings::Settings;

pub(super) struct Agent {
    metrics: Metrics,
    /// Where StatsD is listened for on UDP.
    statsd: Option<SocketAddr>,
}

impl Agent {
    pub(super) fn new(settings: &Settings, metrics: Metrics) -> Self {
        let listen = Some(&settings.statsd).filter(|statsd| statsd.enabled);
        let statsd = listen.and_then(|statsd| statsd.listen.parse().ok());
        Self { metrics, statsd }
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
        if let Some(dropped) = self.statsd.and_then(kernel_drops) {
            out.counter("spillway.agent.statsd_kernel_drops", "1", dropped as f64);
        }
        let stat = Process::myself()?.stat()?;
        let ticks = procfs::ticks_per_second().max(1) as f64;
        let cpu = (stat.utime + stat.stime) as f64 / ticks;
        out.counter("spillway.agent.cpu_seconds", "seconds", cpu);
        let resident = stat.rss as f64 * procfs::page_size() as f64;
        out.gauge("spillway.agent.resident_bytes", "bytes", resident);
        Ok(())
    }
}

/// Datagrams that came faster than they were read, as the kernel counts them for this socket.
fn kernel_drops(address: SocketAddr) -> Option<u64> {
    let table = if address.is_ipv4() { "/proc/net/udp" } else { "/proc/net/udp6" };
    drops_of_port(&std::fs::read_to_string(table).ok()?, address.port())
}

/// The last column (proc(5), net/udp) of the sockets bound to `port`, added up.
fn drops_of_port(table: &str, port: u16) -> Option<u64> {
    let bound = format!(":{port:04X}");
    let drops = table.lines().filter_map(|line| {
        let mut columns = line.split_ascii_whitespace();
        columns.nth(1).filter(|local| local.ends_with(&bound))?;
        columns.next_back()?.parse::<u64>().ok()
    });
    drops.reduce(u64::saturating_add)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_dropped_is_read_for_our_port_only() {
        let table = "  sl  local_address rem_address  st tx_queue rx_queue tr tm->when retrnsmt   \
                     uid  timeout inode ref pointer drops\n  \
                     441: 0100007F:1FBD 00000000:0000 07 00000000:00000000 00:00000000 00000000  \
                     0        0 15087 2 0000000000000000 17\n  \
                     442: 0100007F:1FBE 00000000:0000 07 00000000:00000000 00:00000000 00000000  \
                     0        0 15088 2 0000000000000000 99\n";
        assert_eq!(drops_of_port(table, 8125), Some(17));
        assert_eq!(drops_of_port(table, 8127), None);
    }
}
