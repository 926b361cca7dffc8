//! Disk space per real mount and I/O per block device.

use std::collections::BTreeMap;

use procfs::process::{MountInfo, Process};
use procfs::{Current, DiskStats};
use spillway_proto::Kind;

use super::super::{Input, InputError, Readings};
use super::if_present;
use crate::settings::CollectSettings;

/// Mounts read at most: a container host has thousands, nearly all of them the same few disks.
const MOUNTS_MAX: usize = 64;
/// Block devices read at most.
const DEVICES_MAX: usize = 256;
/// `/proc/diskstats` counts in sectors of this size, whatever the device's own are
/// (Documentation/admin-guide/iostats.rst).
const SECTOR_BYTES: f64 = 512.0;

pub(super) struct Space {
    ignore: Vec<String>,
}

impl Space {
    pub(super) fn new(settings: &CollectSettings) -> Self {
        Self { ignore: settings.ignore_filesystems.clone() }
    }

    /// One mount per file system, the one with the shortest path: bind mounts show the same disk.
    fn real_mounts(&self, mounts: impl IntoIterator<Item = MountInfo>) -> Vec<MountInfo> {
        let mut by_device: BTreeMap<String, MountInfo> = BTreeMap::new();
        for mount in mounts {
            // In a container the root is an overlay, and yet the disk that fills up.
            let root = mount.mount_point.as_os_str() == "/";
            if self.ignore.contains(&mount.fs_type) && !(root && mount.fs_type == "overlay") {
                continue;
            }
            let shorter = by_device.get(&mount.majmin).is_none_or(|known| {
                mount.mount_point.as_os_str().len() < known.mount_point.as_os_str().len()
            });
            if shorter {
                by_device.insert(mount.majmin.clone(), mount);
            }
        }
        by_device.into_values().take(MOUNTS_MAX).collect()
    }
}

impl Input for Space {
    fn name(&self) -> &'static str {
        "disk_space"
    }

    fn read(&mut self, out: &mut Readings) -> Result<(), InputError> {
        let mounts = Process::myself()?.mountinfo()?;
        let mut failed = None;
        for mount in self.real_mounts(mounts) {
            match rustix::fs::statvfs(&mount.mount_point) {
                Ok(stat) => space(&mount, &stat, out),
                // Others must still be read; without permission is how a mount may stay.
                Err(rustix::io::Errno::ACCESS | rustix::io::Errno::NOENT) => {}
                Err(cause) => failed = Some(cause),
            }
        }
        match failed {
            None => Ok(()),
            Some(cause) => Err(InputError::Io { what: "statvfs", cause: cause.into() }),
        }
    }
}

fn space(mount: &MountInfo, stat: &rustix::fs::StatVfs, out: &mut Readings) {
    if stat.f_blocks == 0 {
        return;
    }
    let path = mount.mount_point.to_string_lossy();
    let device = mount.mount_source.as_deref().unwrap_or("none");
    let labels = [("device", device), ("fs", mount.fs_type.as_str()), ("mount", path.as_ref())];
    let block = stat.f_frsize as f64;
    let used = stat.f_blocks.saturating_sub(stat.f_bfree) as f64;
    // As df counts: root's reserve is neither used nor available.
    let usable = used + stat.f_bavail as f64;
    let mut gauge = |metric, unit, value| {
        out.labelled(metric, unit, Kind::Gauge, &labels, value);
    };
    gauge("disk.total_bytes", "bytes", stat.f_blocks as f64 * block);
    gauge("disk.used_bytes", "bytes", used * block);
    gauge("disk.available_bytes", "bytes", stat.f_bavail as f64 * block);
    if usable > 0.0 {
        gauge("disk.usage", "%", used / usable * 100.0);
    }
    if stat.f_files > 0 {
        gauge("disk.inodes_total", "1", stat.f_files as f64);
        gauge("disk.inodes_free", "1", stat.f_ffree as f64);
    }
}

pub(super) struct Io {
    settings: CollectSettings,
}

impl Io {
    pub(super) fn new(settings: &CollectSettings) -> Self {
        Self { settings: settings.clone() }
    }
}

impl Input for Io {
    fn name(&self) -> &'static str {
        "disk_io"
    }

    fn read(&mut self, out: &mut Readings) -> Result<(), InputError> {
        let Some(DiskStats(devices)) = if_present(DiskStats::current())? else { return Ok(()) };
        let kept = devices
            .iter()
            .filter(|disk| !self.settings.ignores_device(&disk.name))
            // A device that never did anything (an empty drive) has nothing to say.
            .filter(|disk| disk.reads + disk.writes > 0);
        for disk in kept.take(DEVICES_MAX) {
            let labels = [("device", disk.name.as_str())];
            let counters = [
                ("diskio.reads", "1", disk.reads as f64),
                ("diskio.writes", "1", disk.writes as f64),
                ("diskio.read_bytes", "bytes", disk.sectors_read as f64 * SECTOR_BYTES),
                ("diskio.write_bytes", "bytes", disk.sectors_written as f64 * SECTOR_BYTES),
                ("diskio.read_seconds", "seconds", disk.time_reading as f64 / 1_000.0),
                ("diskio.write_seconds", "seconds", disk.time_writing as f64 / 1_000.0),
                ("diskio.busy_seconds", "seconds", disk.time_in_progress as f64 / 1_000.0),
            ];
            for (metric, unit, value) in counters {
                out.labelled(metric, unit, Kind::Cumulative, &labels, value);
            }
            let queued = disk.in_progress as f64;
            out.labelled("diskio.in_progress", "1", Kind::Gauge, &labels, queued);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mount(line: &str) -> MountInfo {
        MountInfo::from_line(line).unwrap()
    }

    #[test]
    fn a_disk_that_is_mounted_twice_is_read_once() {
        let space = Space::new(&CollectSettings::default());
        let mounts = space.real_mounts([
            mount("30 1 8:1 /srv /var/lib/thing rw shared:1 - ext4 /dev/sda1 rw"),
            mount("31 1 8:1 / / rw shared:1 - ext4 /dev/sda1 rw"),
            mount("32 1 0:5 / /proc rw shared:2 - proc proc rw"),
            mount("33 1 8:2 / /data rw shared:3 - xfs /dev/sda2 rw"),
        ]);
        let paths: Vec<_> = mounts.iter().map(|mount| mount.mount_point.display()).collect();
        assert_eq!(paths.iter().map(ToString::to_string).collect::<Vec<_>>(), ["/", "/data"]);
    }

    #[test]
    fn the_overlay_at_the_root_of_a_container_is_a_disk() {
        let space = Space::new(&CollectSettings::default());
        let mounts = space.real_mounts([
            mount("30 1 0:44 / / rw - overlay overlay rw"),
            mount("31 1 0:45 / /var/lib/docker/x rw - overlay overlay rw"),
        ]);
        assert_eq!(mounts.len(), 1);
    }
}
