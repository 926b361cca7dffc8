//! Small files that are replaced whole or not at all, and folders that are there after a power
//! cut. What the agent owes an account of lies in such files ([`crate::identity`]), and what was
//! refused does (`deliver/quarantine.rs`).
//!
//! Every system call that changes something passes by [`step`], so that a test can make each of
//! them fail, or be the last one of a process.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;

#[cfg(test)]
pub mod test_steps;

/// The agent's alone: these files name hosts, and the folders hold what its users measured.
const FILE_MODE: u32 = 0o600;
/// The name of a file that is not there yet. Fixed, so that a crash leaves one at most.
const NEW: &str = ".new";

/// Passes by a system call that is about to be made.
#[cfg(not(test))]
pub fn step() -> io::Result<()> {
    Ok(())
}

#[cfg(test)]
pub use test_steps::step;

/// Makes `name` hold `bytes`, durably, or leaves what was there.
pub fn replace(dir: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    let new = dir.join(format!("{name}{NEW}"));
    step()?;
    let mut open = OpenOptions::new();
    let mut file = open.write(true).create(true).truncate(true).mode(FILE_MODE).open(&new)?;
    write(bytes, |bytes| file.write_all(bytes))?;
    step()?;
    file.sync_all()?;
    step()?;
    std::fs::rename(&new, dir.join(name))?;
    // The rename itself lies in the directory.
    sync_dir(dir)
}

/// Writes, with `put`; a failing step has written half of it.
pub fn write(bytes: &[u8], mut put: impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
    match step() {
        Ok(()) => put(bytes),
        Err(error) => {
            let (half, _) = bytes.split_at(bytes.len() / 2);
            put(half).and(Err(error))
        }
    }
}

pub fn sync_dir(dir: &Path) -> io::Result<()> {
    step()?;
    File::open(dir)?.sync_all()
}

/// Removes a file. Not synced: what comes back after a power cut is removed again.
pub fn remove(path: &Path) -> io::Result<()> {
    step()?;
    std::fs::remove_file(path)
}

/// Makes a folder if it is not there, so that it stays there; folders above it are made as well.
pub fn make_dir(dir: &Path, mode: u32) -> io::Result<()> {
    if dir.is_dir() {
        return Ok(());
    }
    step()?;
    DirBuilder::new().recursive(true).mode(mode).create(dir)?;
    match dir.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        Some(parent) => sync_dir(parent),
        None => sync_dir(Path::new(".")),
    }
}
