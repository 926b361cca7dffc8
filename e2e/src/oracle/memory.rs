//! L6: the memory of each process, read by its pid while the load runs.

use std::collections::BTreeMap;

use spillway_testkit::stack::ProcessEntry;

use crate::verdict::Findings;

/// MiB that a process of ours may take, unoptimised builds included. What they hold is bounded by
/// their settings: the API's bodies in flight and queue towards Kafka, the consumer's intake and
/// the transaction in hand; servers have settings of their own and are not judged.
const CAPS_MIB: [(&str, u64); 6] = [
    ("agent", 128),
    ("oracle-agent", 128),
    ("ingest-api", 512),
    ("consumer", 512),
    ("recovery-worker", 256),
    ("keeper", 256),
];

/// The most that each process ever took.
#[derive(Clone, Debug, Default)]
pub struct Peaks {
    mib: BTreeMap<String, u64>,
}

impl Peaks {
    /// Looks at all processes; one that is gone keeps its peak.
    pub fn look(&mut self, processes: &[ProcessEntry]) {
        for process in processes {
            let Some(mib) = process.pid.and_then(peak_mib) else { continue };
            let peak = self.mib.entry(process.name.clone()).or_default();
            *peak = (*peak).max(mib);
        }
    }

    /// Those over their cap.
    #[must_use]
    pub fn judge(&self) -> Findings {
        let mut found = Findings::default();
        if !self.mib.keys().any(|name| cap_of(name).is_some()) {
            found.push(None, || "no program's memory was looked at".into());
        }
        for (name, mib) in &self.mib {
            let cap = cap_of(name);
            if cap.is_some_and(|cap| *mib > cap) {
                found.push(None, || format!("{name} took {mib} MiB of {}", cap.unwrap_or(0)));
            }
        }
        found
    }

    /// `name peak/cap MiB` of each process that has a cap.
    #[must_use]
    pub fn summary(&self) -> String {
        let of = |(name, mib): (&String, &u64)| {
            cap_of(name).map(|cap| format!("{name} {mib}/{cap} MiB"))
        };
        let all: Vec<String> = self.mib.iter().filter_map(of).collect();
        all.join(", ")
    }
}

fn cap_of(name: &str) -> Option<u64> {
    let of = |(kind, cap): &(&str, u64)| name.starts_with(kind).then_some(*cap);
    CAPS_MIB.iter().find_map(of)
}

/// The peak since the process began: looking now and then misses nothing.
#[must_use]
pub fn peak_mib(pid: i32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib / 1_024)
}
