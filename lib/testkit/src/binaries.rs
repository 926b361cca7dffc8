//! Finds the programs that a stack runs: built by cargo when a stack starts, so that a test never
//! drives yesterday's binary. A build that has nothing to do takes a fraction of a second.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::artifacts::run;
use crate::error::StackError;
use crate::progress::Progress;

/// The workspace this crate was built in.
#[must_use]
pub fn workspace() -> PathBuf {
    let ours = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    ours.canonicalize().unwrap_or(ours)
}

/// `xtask`, which serves S3 and restarts processes: ourselves, or built for a test.
pub fn xtask(progress: &Progress) -> Result<PathBuf, StackError> {
    let own = std::env::current_exe().map_err(StackError::io("finding our own binary"))?;
    if own.file_name().is_some_and(|name| name == "xtask") {
        return Ok(own);
    }
    progress.tell("building xtask");
    build(&["xtask"], false)?;
    Ok(target_dir().join("debug/xtask"))
}

#[must_use]
pub fn target_dir() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace().join("target"), PathBuf::from)
}

pub(crate) fn build(packages: &[&str], release: bool) -> Result<(), StackError> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.current_dir(workspace()).args(["build", "--quiet"]);
    for package in packages {
        command.args(["--package", package]);
    }
    if release {
        command.arg("--release");
    }
    run(&mut command)
}
