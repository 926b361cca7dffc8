//! Test programs side by side: most of their time they wait for servers, and cargo runs them one
//! after the other. What one prints is told when it has ended, whole. A program whose tests leave
//! the database open runs once with each.

use std::cmp::Reverse;
use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use serde::Deserialize;
use spillway_testkit::{Database, StackError, binaries, database, errand};

/// Programs at once: each may have a Kafka and a MySQL, and two cores carry two of them.
const AT_ONCE: usize = 2;

/// A built test program, the folder that its tests expect to run in, and the database that is
/// chosen for them, if they leave it open.
#[derive(Clone)]
struct Program {
    name: String,
    file: PathBuf,
    package: PathBuf,
    database: Option<Database>,
}

/// What cargo tells of each thing it built.
#[derive(Deserialize)]
struct Artifact {
    executable: Option<PathBuf>,
    #[serde(default)]
    profile: Profile,
    #[serde(default)]
    manifest_path: PathBuf,
}

#[derive(Default, Deserialize)]
struct Profile {
    test: bool,
}

/// Builds the test programs that `selection` names and runs them all, the longest first.
pub fn run(selection: &[&str], filter: &[&str]) -> Result<(), StackError> {
    let programs = built(selection)?;
    let (waiting, failed) = (Mutex::new(programs), Mutex::new(Vec::new()));
    let next = || waiting.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
    let attend = || {
        while let Some(program) = next() {
            if let Err(what) = run_one(&program, filter) {
                failed.lock().unwrap_or_else(PoisonError::into_inner).push(what);
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(attend);
        }
    });
    let failed = failed.into_inner().unwrap_or_else(PoisonError::into_inner);
    if failed.is_empty() {
        return Ok(());
    }
    Err(StackError::Refused { what: format!("failed: {}", failed.join(", ")) })
}

fn built(selection: &[&str]) -> Result<VecDeque<Program>, StackError> {
    let command = || {
        let mut command = Command::new(binaries::cargo());
        command.current_dir(binaries::workspace()).arg("test").args(selection).arg("--no-run");
        command
    };
    // Once for people, who see how far it is and what does not compile, and once for us.
    let status = errand::status(command()).map_err(StackError::io("building the tests"))?;
    if !status.success() {
        return Err(StackError::Refused { what: "the tests do not compile".to_owned() });
    }
    let mut told = command();
    told.args(["--message-format", "json"]);
    let told = errand::output(&told).map_err(StackError::io("finding the tests"))?;
    let artifacts = String::from_utf8_lossy(&told.stdout);
    let programs = artifacts.lines().filter_map(|line| {
        let artifact: Artifact = serde_json::from_str(line).ok()?;
        let file = artifact.executable.filter(|_| artifact.profile.test)?;
        let package = artifact.manifest_path.parent()?.to_owned();
        Some(Program { name: name_of(&file), file, package, database: None })
    });
    let mut programs: Vec<Program> = programs.flat_map(on_each_database).collect();
    // What runs alone at the end would have a core for itself.
    programs.sort_by_key(|program| Reverse(tests_with_servers(program)));
    Ok(programs.into())
}

/// The program as often as there are databases to run it with, or once as it is.
fn on_each_database(program: Program) -> Vec<Program> {
    let is_open = source_of(&program)
        .is_some_and(|source| super::is_for_each_database(&source).unwrap_or(false));
    if !is_open {
        return vec![program];
    }
    let with = |database| Program { database: Some(database), ..program.clone() };
    Database::ALL.map(with).to_vec()
}

/// How long a program will take, as far as its source tells.
fn tests_with_servers(program: &Program) -> usize {
    source_of(program).map_or(0, |source| super::tests_with_servers(&source).unwrap_or(0))
}

/// The folder or file of an integration test.
fn source_of(program: &Program) -> Option<PathBuf> {
    let source = program.package.join("tests").join(&program.name);
    [source.clone(), source.with_extension("rs")].into_iter().find(|source| source.exists())
}

/// Without cargo's hash.
fn name_of(file: &Path) -> String {
    let stem = file.file_stem().unwrap_or_default().to_string_lossy();
    stem.rsplit_once('-').map_or(stem.as_ref(), |(name, _)| name).to_owned()
}

fn run_one(program: &Program, filter: &[&str]) -> Result<(), String> {
    let Program { name, file, package, database } = program;
    let mut command = Command::new(file);
    command.current_dir(package).env("CARGO_MANIFEST_DIR", package).args(filter);
    let since = Instant::now();
    let folder = package.file_name().unwrap_or_default().to_string_lossy();
    let mut name = format!("{folder}/{name}");
    if let Some(kind) = database {
        command.env(database::TESTS_VARIABLE, kind.name());
        name.push_str(&format!(" on {}", kind.name()));
    }
    let ended = errand::output(&command).map_err(|error| format!("{name} ({error})"))?;
    let took = since.elapsed().as_secs_f64();
    let Output { status, stdout, stderr } = ended;
    let (stdout, stderr) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    println!("── {name}: {took:.1} s\n{}", stdout.trim());
    if status.success() {
        return Ok(());
    }
    println!("{stderr}\n── {name} FAILED: {status}");
    Err(name)
}
