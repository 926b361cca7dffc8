//! A program under attack: its memory is limited, and what it takes and says is read.

use std::fs;
use std::path::{Path, PathBuf};

/// What the kernel gives it at most, where control groups can be had.
pub const MEMORY_BYTES_MAX: u64 = 256 * 1024 * 1024;

/// A running program.
pub struct Target {
    pid: i32,
    log: PathBuf,
    group: Option<Group>,
}

/// A control group of memory, version 1 or 2.
struct Group {
    dir: PathBuf,
    parent: PathBuf,
}

impl Target {
    /// Limits the program's memory if this user may, and says if not.
    pub fn limited(pid: i32, log: PathBuf, bytes_max: u64) -> Self {
        let group = Group::around(pid, bytes_max);
        if group.is_none() {
            println!("no control group of memory here: the peak is read, not enforced");
        }
        Self { pid, log, group }
    }

    /// From now on the peak counts anew.
    pub fn forget_peak(&self) {
        fs::write(format!("/proc/{}/clear_refs", self.pid), "5").expect("it is our child");
    }

    /// The most memory that was resident since, in bytes.
    pub fn peak(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid));
        let status = status.expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = line.and_then(|line| line.trim().split(' ').next()?.parse::<u64>().ok());
        kib.expect("the kernel tells it") * 1_024
    }

    /// Warnings and errors that were logged so far.
    pub fn complaints(&self) -> usize {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        log.lines().filter(|line| line.contains("WARN") || line.contains("ERROR")).count()
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        if let Some(group) = &self.group {
            let procs = group.parent.join("cgroup.procs");
            // The program may be gone, and its group with it.
            let _gone = fs::write(procs, self.pid.to_string()).is_err();
            let _busy = fs::remove_dir(&group.dir).is_err();
        }
    }
}

impl Group {
    fn around(pid: i32, bytes_max: u64) -> Option<Self> {
        let roots =
            [("/sys/fs/cgroup/memory", "memory.limit_in_bytes"), ("/sys/fs/cgroup", "memory.max")];
        roots
            .into_iter()
            .find_map(|(root, limit)| Self::at((Path::new(root), limit), pid, bytes_max))
    }

    fn at((parent, limit): (&Path, &str), pid: i32, bytes_max: u64) -> Option<Self> {
        let group =
            Self { dir: parent.join(format!("spillway-drill-{pid}")), parent: parent.to_owned() };
        fs::create_dir(&group.dir).ok()?;
        let limited = fs::write(group.dir.join(limit), bytes_max.to_string())
            .and_then(|()| fs::write(group.dir.join("cgroup.procs"), pid.to_string()));
        if limited.is_err() {
            let _left = fs::remove_dir(&group.dir).is_err();
            return None;
        }
        Some(group)
    }
}
