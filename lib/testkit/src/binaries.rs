//! Finds the programs that a stack runs: built by cargo when a stack starts, so that a test never
//! drives yesterday's binary. A build that has nothing to do takes a fraction of a second.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::artifacts::run;
use crate::errand;
use crate::error::StackError;
use crate::progress::Progress;

/// The programs that a test may stop between two steps.
const WITH_FAILPOINTS: [&str; 2] = ["spillway-consumer", "spillway-recovery-worker"];

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
    if let Some(given) = given("xtask") {
        return Ok(given);
    }
    progress.tell("building xtask");
    build(&["xtask"], false, false)?;
    Ok(program("xtask", false))
}

#[must_use]
pub fn target_dir() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace().join("target"), PathBuf::from)
}

/// Where a program is: where cargo puts it, or what [`given`] says.
#[must_use]
pub fn program(binary: &str, release: bool) -> PathBuf {
    let built = || target_dir().join(if release { "release" } else { "debug" }).join(binary);
    given(binary).unwrap_or_else(built)
}

/// `SPILLWAY_BINARIES` names a folder whose programs are taken as they are: an older version of
/// some of them beside today's others.
#[must_use]
pub fn given(binary: &str) -> Option<PathBuf> {
    let dir = std::env::var_os("SPILLWAY_BINARIES")?;
    Some(Path::new(&dir).join(binary)).filter(|file| file.is_file())
}

/// The cargo that runs us.
#[must_use]
pub fn cargo() -> OsString {
    std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}

/// Builds packages; cargo's own progress goes to the terminal if `shown`.
pub fn build(packages: &[&str], release: bool, shown: bool) -> Result<(), StackError> {
    let mut command = Command::new(cargo());
    command.current_dir(workspace()).arg("build");
    for package in packages {
        command.args(["--package", package]);
    }
    if release {
        command.arg("--release");
    } else {
        // Tests kill programs at named points; what is released has no such points.
        for package in packages.iter().filter(|package| WITH_FAILPOINTS.contains(package)) {
            command.args(["--features", &format!("{package}/failpoints")]);
        }
    }
    if !shown {
        return run(command.arg("--quiet"));
    }
    let status = errand::status(command).map_err(StackError::io("running cargo"))?;
    if status.success() {
        return Ok(());
    }
    let (what, output) = ("cargo build".to_owned(), "see above".to_owned());
    Err(StackError::Command { what, status, output })
}
