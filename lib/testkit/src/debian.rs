//! Programs that only Debian packages: unpacked into the cache, never installed, so that nobody
//! needs root and no package starts a server. Apt's own lists may be missing (bare images have
//! none) or older than the archive; then they are fetched into a folder of ours.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::artifacts::{self, find_tool, part, run};
use crate::error::StackError;
use crate::progress::Progress;

/// The folder in which these packages lie unpacked, as under `/`. Blocks; downloads once.
pub fn unpacked(name: &str, packages: &[&str]) -> Result<PathBuf, StackError> {
    let progress = Progress::silent();
    let (cache, _lock) = artifacts::locked_cache(&artifacts::cache_dir(), &progress)?;
    unpacked_into(&cache, name, packages, &progress)
}

/// The same for who holds the cache's lock.
pub(crate) fn unpacked_into(
    cache: &Path,
    name: &str,
    packages: &[&str],
    progress: &Progress,
) -> Result<PathBuf, StackError> {
    part(cache, &format!("debian-{name}"), |dir| {
        progress.tell(&format!("downloading {name} (Debian's packages, once)"));
        let apt = find_tool("apt-get", "these servers and tools come as Debian packages only")?;
        let work = tempfile::tempdir().map_err(StackError::io("making a folder for apt"))?;
        let (files, own) = (work.path().join("files"), work.path().join("apt"));
        for folder in [files.clone(), own.join("lists/partial")] {
            fs::create_dir_all(&folder).map_err(StackError::io("preparing a folder for apt"))?;
        }
        let with_own_lists = [
            "-o".to_owned(),
            format!("Dir::State::Lists={}", own.join("lists").display()),
            "-o".to_owned(),
            format!("Dir::Cache={}", own.join("cache").display()),
        ];
        let download = |options: &[String]| {
            let mut command = Command::new(&apt);
            run(command.arg("-q").args(options).arg("download").args(packages).current_dir(&files))
        };
        if download(&[]).is_err() {
            run(Command::new(&apt).arg("-q").args(&with_own_lists).arg("update"))?;
            download(&with_own_lists)?;
        }
        for file in fs::read_dir(&files).map_err(StackError::io("listing packages"))? {
            let file = file.map_err(StackError::io("listing packages"))?.path();
            run(Command::new("dpkg-deb").arg("-x").arg(file).arg(dir))?;
        }
        Ok(())
    })
}
