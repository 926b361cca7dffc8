//! A disk of a few megabytes: a tmpfs of its own, so that "full" is really ENOSPC.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

const BALLAST_STEP: usize = 4_096;
const BALLAST: &str = "ballast";
/// Between two looks whether something has made room.
const FILL_AGAIN: Duration = Duration::from_millis(5);

/// Mounted while this lives. Mounting asks for root.
pub struct SmallDisk {
    place: tempfile::TempDir,
}

/// Somebody else who takes every page of a disk, and each one that becomes free.
pub struct Ballast {
    file: PathBuf,
    enough: SyncSender<()>,
    filling: JoinHandle<()>,
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

    /// Returns when the disk is full for the first time.
    pub fn fill(&self) -> Ballast {
        let file = self.path().join(BALLAST);
        let mut ballast = File::create(&file).expect("a file");
        take_all(&mut ballast);
        let (enough, told) = sync_channel(1);
        let filling = std::thread::spawn(move || {
            while told.recv_timeout(FILL_AGAIN) == Err(RecvTimeoutError::Timeout) {
                take_all(&mut ballast);
            }
        });
        Ballast { file, enough, filling }
    }
}

fn take_all(ballast: &mut File) {
    let zeros = [0; BALLAST_STEP];
    while ballast.write_all(&zeros).is_ok() {}
}

impl Ballast {
    /// Gives the space back.
    pub fn clear(self) {
        self.enough.send(()).expect("it is filling");
        self.filling.join().expect("filling does not panic");
        std::fs::remove_file(self.file).expect("the ballast is there");
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
