//! A disk of a few megabytes: a tmpfs of its own, so that "full" is really ENOSPC.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What the ballast leaves when it has filled a disk: nothing that a page fits into.
const BALLAST_STEP: usize = 4_096;
const BALLAST: &str = "ballast";

/// Mounted while this lives. Mounting asks for root.
pub struct SmallDisk {
    place: tempfile::TempDir,
}

impl SmallDisk {
    pub fn mount(mib: u32) -> Self {
        let place = tempfile::Builder::new().prefix("spillway-disk-").tempdir().expect("a folder");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={mib}m,mode=0700"), "tmpfs"]);
        let done = mount.arg(place.path()).status().expect("mount is there");
        assert!(done.success(), "a tmpfs can't be mounted: this drill needs root");
        Self { place }
    }

    pub fn path(&self) -> &Path {
        self.place.path()
    }

    fn ballast(&self) -> PathBuf {
        self.path().join(BALLAST)
    }

    /// Somebody else fills the disk to its last page.
    pub fn fill(&self) {
        use std::io::Write as _;
        let mut file = fs::File::create(self.ballast()).expect("a file");
        let zeros = [0; BALLAST_STEP];
        while file.write_all(&zeros).is_ok() {}
    }

    /// …and tidies up.
    pub fn clear(&self) {
        fs::remove_file(self.ballast()).expect("the ballast is there");
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: a program that was killed a moment ago may still hold a file.
        let done = Command::new("umount").arg("-l").arg(self.path()).status();
        if !done.is_ok_and(|status| status.success()) {
            eprintln!("{} stays mounted", self.path().display());
        }
    }
}
