//! Pressure stall information: how long work stood still for want of CPU, memory or I/O.

use procfs::{CpuPressure, Current, IoPressure, MemoryPressure, PressureRecord};
use spillway_proto::Kind;

use super::super::{Input, InputError, Readings};
use super::if_present;

pub(super) struct Pressure;

impl Input for Pressure {
    fn name(&self) -> &'static str {
        "pressure"
    }

    fn read(&mut self, out: &mut Readings) -> Result<(), InputError> {
        if let Some(cpu) = if_present(CpuPressure::current())? {
            // "full" is undefined for the CPU of a whole host.
            record("cpu", "some", &cpu.some, out);
        }
        if let Some(memory) = if_present(MemoryPressure::current())? {
            record("memory", "some", &memory.some, out);
            record("memory", "full", &memory.full, out);
        }
        if let Some(io) = if_present(IoPressure::current())? {
            record("io", "some", &io.some, out);
            record("io", "full", &io.full, out);
        }
        Ok(())
    }
}

fn record(resource: &str, share: &str, record: &PressureRecord, out: &mut Readings) {
    let labels = [("resource", resource), ("share", share)];
    let stalled = record.total as f64 / 1_000_000.0;
    out.labelled("pressure.stalled_seconds", "seconds", Kind::Cumulative, &labels, stalled);
    let recent = (f64::from(record.avg10) * 100.0).round() / 100.0;
    out.labelled("pressure.avg10", "%", Kind::Gauge, &labels, recent);
}
