//! A folder of small files (identity, last seq, quarantine), behind a trait, so that a simulation
//! can cut its power between any two of them. The spool's segments have their own: `spool/disk.rs`.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use crate::durable;

/// What lies there names hosts and services: it is the agent's alone.
const DIR_MODE: u32 = 0o700;

/// Files by their names. All calls block.
pub trait Folder: Send + Sync {
    /// Names of all files; none if the folder is not there yet.
    fn names(&self) -> io::Result<Vec<String>>;
    /// The whole file; one longer than `bytes_max` is an error.
    fn read(&self, name: &str, bytes_max: u64) -> io::Result<Vec<u8>>;
    /// Puts a file in place whole or not at all, durably. Makes the folder if need be.
    fn replace(&self, name: &str, bytes: &[u8]) -> io::Result<()>;
    /// Writes into a file that is there, in place, durably: it takes no space anew.
    fn overwrite(&self, name: &str, bytes: &[u8], offset: u64) -> io::Result<()>;
    fn remove(&self, name: &str) -> io::Result<()>;
}

/// A real one.
#[derive(Clone, Debug)]
pub struct RealFolder {
    dir: PathBuf,
}

impl RealFolder {
    #[must_use]
    pub fn new(dir: &Path) -> Self {
        Self { dir: dir.to_owned() }
    }
}

impl Folder for RealFolder {
    fn names(&self) -> io::Result<Vec<String>> {
        let entries = match fs::read_dir(&self.dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        // A name that is not UTF-8 is none of ours.
        let names = entries.filter_map(|entry| match entry {
            Ok(entry) => entry.file_name().into_string().ok().map(Ok),
            Err(error) => Some(Err(error)),
        });
        names.collect()
    }

    fn read(&self, name: &str, bytes_max: u64) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let file = File::open(self.dir.join(name))?;
        match file.take(bytes_max.saturating_add(1)).read_to_end(&mut bytes)? as u64 > bytes_max {
            true => Err(io::ErrorKind::FileTooLarge.into()),
            false => Ok(bytes),
        }
    }

    fn replace(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        durable::make_dir(&self.dir, DIR_MODE)?;
        durable::replace(&self.dir, name, bytes)
    }

    fn overwrite(&self, name: &str, bytes: &[u8], offset: u64) -> io::Result<()> {
        let file = File::options().write(true).open(self.dir.join(name))?;
        durable::write(bytes, |bytes| file.write_all_at(bytes, offset))?;
        durable::step()?;
        file.sync_data()
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        durable::remove(&self.dir.join(name))
    }
}
