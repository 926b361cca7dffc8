//! Network counters per interface.

use procfs::Current;
use procfs::net::InterfaceDeviceStatus;
use spillway_proto::Kind;

use super::super::{Input, InputError, Readings};
use super::if_present;
use crate::settings::CollectSettings;

/// Interfaces read at most: a container host makes one per container.
const INTERFACES_MAX: usize = 128;

pub(super) struct Network {
    settings: CollectSettings,
}

impl Network {
    pub(super) fn new(settings: &CollectSettings) -> Self {
        Self { settings: settings.clone() }
    }
}

impl Input for Network {
    fn name(&self) -> &'static str {
        "network"
    }

    fn read(&mut self, out: &mut Readings) -> Result<(), InputError> {
        let Some(InterfaceDeviceStatus(interfaces)) = if_present(InterfaceDeviceStatus::current())?
        else {
            return Ok(());
        };
        let mut kept: Vec<_> =
            interfaces.values().filter(|one| !self.settings.ignores_device(&one.name)).collect();
        // Sorted, so that a host with too many always shows the same ones.
        kept.sort_by(|a, b| a.name.cmp(&b.name));
        for one in kept.into_iter().take(INTERFACES_MAX) {
            let labels = [("interface", one.name.as_str())];
            let counters = [
                ("net.recv_bytes", "bytes", one.recv_bytes),
                ("net.recv_packets", "1", one.recv_packets),
                ("net.recv_errors", "1", one.recv_errs),
                ("net.recv_dropped", "1", one.recv_drop),
                ("net.sent_bytes", "bytes", one.sent_bytes),
                ("net.sent_packets", "1", one.sent_packets),
                ("net.sent_errors", "1", one.sent_errs),
                ("net.sent_dropped", "1", one.sent_drop),
            ];
            for (metric, unit, value) in counters {
                out.labelled(metric, unit, Kind::Cumulative, &labels, value as f64);
            }
        }
        Ok(())
    }
}
