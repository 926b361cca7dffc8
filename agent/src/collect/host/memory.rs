//! Memory and swap.

use procfs::{Current, Meminfo, VmStat};

use super::super::{Input, InputError, Readings};
use super::if_present;

pub(super) struct Memory;

impl Input for Memory {
    fn name(&self) -> &'static str {
        "memory"
    }

    fn read(&mut self, out: &mut Readings) -> Result<(), InputError> {
        let mem = Meminfo::current()?;
        // Before Linux 3.14 the kernel did not say what is available; free and caches come close.
        let available = mem.mem_available.unwrap_or(mem.mem_free + mem.buffers + mem.cached);
        let used = mem.mem_total.saturating_sub(available);
        out.gauge("mem.total_bytes", "bytes", mem.mem_total as f64);
        out.gauge("mem.available_bytes", "bytes", available as f64);
        out.gauge("mem.used_bytes", "bytes", used as f64);
        out.gauge("mem.free_bytes", "bytes", mem.mem_free as f64);
        out.gauge("mem.buffers_bytes", "bytes", mem.buffers as f64);
        out.gauge("mem.cached_bytes", "bytes", mem.cached as f64);
        out.gauge("mem.slab_bytes", "bytes", mem.slab as f64);
        out.gauge("mem.dirty_bytes", "bytes", mem.dirty as f64);
        if let Some(shared) = mem.shmem {
            out.gauge("mem.shared_bytes", "bytes", shared as f64);
        }
        if mem.mem_total > 0 {
            out.gauge("mem.usage", "%", used as f64 / mem.mem_total as f64 * 100.0);
        }
        Ok(())
    }
}

pub(super) struct Swap;

impl Input for Swap {
    fn name(&self) -> &'static str {
        "swap"
    }

    fn read(&mut self, out: &mut Readings) -> Result<(), InputError> {
        let mem = Meminfo::current()?;
        out.gauge("swap.total_bytes", "bytes", mem.swap_total as f64);
        out.gauge("swap.free_bytes", "bytes", mem.swap_free as f64);
        let used = mem.swap_total.saturating_sub(mem.swap_free);
        out.gauge("swap.used_bytes", "bytes", used as f64);
        let Some(VmStat(counts)) = if_present(VmStat::current())? else { return Ok(()) };
        let page = procfs::page_size() as f64;
        for (field, metric) in [("pswpin", "swap.in_bytes"), ("pswpout", "swap.out_bytes")] {
            if let Some(pages) = counts.get(field) {
                out.counter(metric, "bytes", *pages as f64 * page);
            }
        }
        Ok(())
    }
}
