//! `cargo xtask drill previous`: the version before this one, built from its commit, beside this
//! one under load.

use std::path::Path;
use std::process::Command;

use spillway_testkit::{StackError, binaries, stack};

use super::{ends_well, keep_programs, with_programs};

#[derive(Debug, clap::Args)]
pub struct PreviousArgs {
    /// Which version that is
    #[arg(long, default_value = BEFORE)]
    commit: String,
}

/// The version before this one: moved on with each release.
const BEFORE: &str = "9ca7660177b3d905e7883b446c95b64c0d2b2fef";

/// Folders are left as they are when built once: a commit does not change.
pub fn run(args: &PreviousArgs) -> Result<(), StackError> {
    let home = binaries::target_dir().join("previous").join(&args.commit);
    let (source, programs) = (home.join("source"), home.join("programs"));
    if !programs.exists() {
        build(&args.commit, &source, &programs)?;
    }
    let named = [("SPILLWAY_PREVIOUS", programs.to_string_lossy().into_owned())];
    with_programs(&["the_version_before_runs_beside", "--include-ignored"], &named)
}

fn build(commit: &str, source: &Path, programs: &Path) -> Result<(), StackError> {
    std::fs::create_dir_all(source).map_err(StackError::io("making a folder"))?;
    let archive = source.with_extension("tar");
    let mut git = Command::new("git");
    git.current_dir(binaries::workspace()).args(["archive", "--output"]).arg(&archive).arg(commit);
    ends_well(git, "git archive")?;
    let mut tar = Command::new("tar");
    tar.arg("--extract").arg("--file").arg(&archive).arg("--directory").arg(source);
    ends_well(tar, "tar")?;
    // What does not differ between the versions is built once, and those are most of its parts.
    let mut cargo = Command::new(binaries::cargo());
    cargo.current_dir(source).args(["build", "--locked", "--target-dir"]);
    cargo.arg(binaries::target_dir());
    for (package, _) in stack::PACKAGES {
        cargo.args(["--package", package]);
    }
    ends_well(cargo, "cargo build")?;
    // By its own name only once it is whole.
    let half = programs.with_extension("half");
    keep_programs(&half)?;
    std::fs::rename(&half, programs).map_err(StackError::io("keeping the programs"))
}
