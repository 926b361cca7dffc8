//! `cargo xtask test`: every test, in the order from quick to slow, with the time of each step.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use spillway_testkit::{StackError, binaries, stack};

mod side_by_side;

#[derive(Debug, clap::Args)]
pub struct TestArgs {
    /// Leave out what needs Kafka, MySQL, Redis or S3
    #[arg(long)]
    fast: bool,
    /// Only tests whose name contains this
    filter: Option<String>,
}

const E2E: &str = "spillway-e2e";

pub fn run(args: &TestArgs) -> Result<(), StackError> {
    let filter: Vec<&str> = args.filter.as_deref().into_iter().collect();
    if args.fast {
        let targets = targets_without_servers(&binaries::workspace())?;
        let mut selection = vec!["--workspace", "--exclude", E2E, "--lib", "--bins"];
        for target in &targets {
            selection.extend(["--test", target]);
        }
        return step("tests that need no servers", || side_by_side::run(&selection, &filter));
    }
    let selection = ["--workspace", "--exclude", E2E];
    step("unit, property and integration tests", || side_by_side::run(&selection, &filter))?;
    let packages: Vec<&str> = stack::PACKAGES.iter().map(|(package, _)| *package).collect();
    let since = Instant::now();
    binaries::build(&packages, false, true)?;
    told("building the programs", since);
    // Two stacks at a time: they wait more than they work, and two cores carry both.
    let mut command = vec!["test", "--package", E2E];
    command.extend(&filter);
    command.extend(["--", "--test-threads=2"]);
    step("whole-pipeline tests", || cargo(&command))
}

fn cargo(args: &[&str]) -> Result<(), StackError> {
    let mut command = Command::new(binaries::cargo());
    command.current_dir(binaries::workspace()).args(args);
    let status = spillway_testkit::errand::status(command);
    let status = status.map_err(StackError::io("running cargo"))?;
    if status.success() {
        return Ok(());
    }
    Err(StackError::Refused { what: format!("cargo ended with {status}") })
}

fn step(name: &str, run: impl FnOnce() -> Result<(), StackError>) -> Result<(), StackError> {
    println!("── {name}");
    let since = Instant::now();
    let ended = run();
    told(name, since);
    ended
}

fn told(name: &str, since: Instant) {
    println!("   {name}: {:.1} s", since.elapsed().as_secs_f64());
}

/// Names of the integration tests that start no stack: none of their files mentions one.
fn targets_without_servers(root: &Path) -> Result<BTreeSet<String>, StackError> {
    let mut quick = BTreeSet::new();
    let mut slow = BTreeSet::new();
    for parent in [root.to_owned(), root.join("lib")] {
        for package in entries(&parent)? {
            if package.ends_with("e2e") || !package.join("Cargo.toml").is_file() {
                continue;
            }
            for target in entries(&package.join("tests")).unwrap_or_default() {
                let is_target = target.extension().is_some_and(|e| e == "rs")
                    || target.join("main.rs").is_file();
                let Some(name) = target.file_stem().and_then(|name| name.to_str()) else {
                    continue;
                };
                if is_target {
                    let set = if starts_stack(&target)? { &mut slow } else { &mut quick };
                    set.insert(name.to_owned());
                }
            }
        }
    }
    // Cargo selects targets by name in all packages: a name that is both is left out.
    Ok(quick.difference(&slow).cloned().collect())
}

fn starts_stack(path: &Path) -> Result<bool, StackError> {
    Ok(sources(path)?.iter().any(|source| source.contains("Stack::start")))
}

/// A target that lets its caller choose is held to its promises on each kind of database.
fn is_for_each_database(path: &Path) -> Result<bool, StackError> {
    Ok(sources(path)?.iter().any(|source| source.contains("Database::of_tests")))
}

/// Tests of a target that starts servers; 0 of one that does not.
fn tests_with_servers(path: &Path) -> Result<usize, StackError> {
    if !starts_stack(path)? {
        return Ok(0);
    }
    Ok(sources(path)?.iter().map(|source| source.matches("test(").count()).sum())
}

/// The text of a file, or of all files in a folder.
fn sources(path: &Path) -> Result<Vec<String>, StackError> {
    if path.is_dir() {
        let nested =
            entries(path)?.iter().map(|entry| sources(entry)).collect::<Result<Vec<_>, _>>();
        return Ok(nested?.concat());
    }
    let text = fs::read_to_string(path);
    Ok(vec![text.map_err(StackError::io(format!("reading {}", path.display())))?])
}

fn entries(dir: &Path) -> Result<Vec<std::path::PathBuf>, StackError> {
    let read = fs::read_dir(dir).and_then(|dir| {
        dir.map(|entry| entry.map(|entry| entry.path())).collect::<Result<Vec<_>, _>>()
    });
    read.map_err(StackError::io(format!("listing {}", dir.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schema_and_duties_are_held_on_each_database_and_what_names_none_is_not() {
        let is_open = |path: &str| is_for_each_database(&binaries::workspace().join(path));
        assert!(is_open("consumer/tests/schema").unwrap());
        assert!(is_open("keeper/tests/duties").unwrap());
        assert!(!is_open("consumer/tests/applying").unwrap());
    }
}
