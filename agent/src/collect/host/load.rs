//! Load averages and uptime.

use procfs::{Current, LoadAverage};

use super::super::{Input, InputError, Readings};

pub(super) struct Load;

impl Input for Load {
    fn name(&self) -> &'static str {
        "load"
    }

    fn read(&mut self, out: &mut Readings) -> Result<(), InputError> {
        let load = LoadAverage::current()?;
        for (metric, value) in
            [("load.1m", load.one), ("load.5m", load.five), ("load.15m", load.fifteen)]
        {
            // The kernel gives two decimals; the f32 between would show more than it knows.
            out.gauge(metric, "1", (f64::from(value) * 100.0).round() / 100.0);
        }
        Ok(())
    }
}

pub(super) struct Uptime;

impl Input for Uptime {
    fn name(&self) -> &'static str {
        "uptime"
    }

    fn read(&mut self, out: &mut Readings) -> Result<(), InputError> {
        let uptime = procfs::Uptime::current()?;
        out.gauge("uptime", "seconds", uptime.uptime);
        Ok(())
    }
}
