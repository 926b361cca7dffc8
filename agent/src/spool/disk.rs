//! The file system as the spool sees it: seven operations, so that a test can make each of them
//! fail, come up short, or forget what was not synced.
//!
//! Nothing else in the spool opens a file.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::FallocateFlags;
use rustix::io::Errno;

/// Read and write for the agent's user alone: batches name hosts and services.
const SEGMENT_MODE: u32 = 0o600;
/// Zeros are written in pieces of this size where the file system can't preallocate.
const ZEROS_BYTES: usize = 64 * 1024;

/// The spool's directory.
pub trait Disk: Send + 'static {
    type File: DiskFile;

    /// Names of all files.
    fn list(&self) -> io::Result<Vec<String>>;
    /// Makes a file of `bytes` zeros whose space is really taken, and syncs it. The caller syncs
    /// the directory.
    fn create(&self, name: &str, bytes: u64) -> io::Result<Self::File>;
    fn open(&self, name: &str) -> io::Result<Self::File>;
    fn remove(&self, name: &str) -> io::Result<()>;
    /// After this, created files are there and removed ones are not, whatever happens.
    fn sync_dir(&self) -> io::Result<()>;
    /// What an unprivileged user may still write to this file system.
    fn free_bytes(&self) -> io::Result<u64>;
}

/// One segment file.
pub trait DiskFile: Send {
    fn bytes(&self) -> io::Result<u64>;
    /// Reads up to `buf.len()` bytes; 0 is the end.
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Writes some of `bytes`, at least one.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize>;
    fn sync_data(&self) -> io::Result<()>;
    /// Gives back what lies behind `bytes`.
    fn shrink(&self, bytes: u64) -> io::Result<()>;

    /// Writes all of `bytes`; a short write goes on where it stopped.
    fn write_all_at(&self, mut bytes: &[u8], mut offset: u64) -> io::Result<()> {
        while !bytes.is_empty() {
            match self.write_at(bytes, offset) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => {
                    bytes = bytes.get(count..).unwrap_or_default();
                    offset += count as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Reads until `buf` is full or the file ends; gives the count.
    fn read_full_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut filled = 0;
        while let Some(rest) = buf.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match self.read_at(rest, offset + filled as u64) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }
}

/// A real directory.
pub struct RealDisk {
    dir: PathBuf,
}

impl RealDisk {
    pub fn new(dir: &Path) -> Self {
        Self { dir: dir.to_owned() }
    }
}

impl Disk for RealDisk {
    type File = File;

    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(&self.dir)? {
            // A name that is not UTF-8 is none of ours.
            if let Ok(name) = entry?.file_name().into_string() {
                names.push(name);
            }
        }
        Ok(names)
    }

    fn create(&self, name: &str, bytes: u64) -> io::Result<File> {
        let path = self.dir.join(name);
        let mut open = OpenOptions::new();
        open.read(true).write(true).create_new(true).mode(SEGMENT_MODE);
        let file = open.open(path)?;
        preallocate(&file, bytes)?;
        file.sync_all()?;
        Ok(file)
    }

    fn open(&self, name: &str) -> io::Result<File> {
        OpenOptions::new().read(true).write(true).open(self.dir.join(name))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        match std::fs::remove_file(self.dir.join(name)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }

    fn sync_dir(&self) -> io::Result<()> {
        File::open(&self.dir)?.sync_all()
    }

    fn free_bytes(&self) -> io::Result<u64> {
        let found = rustix::fs::statvfs(&self.dir)?;
        Ok(found.f_bavail.saturating_mul(found.f_frsize))
    }
}

/// Takes the space now, so that a later write can't meet a full disk.
fn preallocate(file: &File, bytes: u64) -> io::Result<()> {
    match rustix::fs::fallocate(file, FallocateFlags::empty(), 0, bytes) {
        Ok(()) => Ok(()),
        Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => write_zeros(file, bytes),
        Err(other) => Err(other.into()),
    }
}

fn write_zeros(mut file: &File, bytes: u64) -> io::Result<()> {
    let zeros = [0_u8; ZEROS_BYTES];
    let mut left = bytes;
    while left > 0 {
        let piece = usize::try_from(left).unwrap_or(ZEROS_BYTES).min(ZEROS_BYTES);
        file.write_all(zeros.get(..piece).unwrap_or(&zeros))?;
        left -= piece as u64;
    }
    Ok(())
}

impl DiskFile for File {
    fn bytes(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        std::os::unix::fs::FileExt::read_at(self, buf, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        std::os::unix::fs::FileExt::write_at(self, bytes, offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        File::sync_data(self)
    }

    fn shrink(&self, bytes: u64) -> io::Result<()> {
        self.set_len(bytes)
    }
}
