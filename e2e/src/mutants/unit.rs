//! Mutants that no running system shows: what a real disk forgets after a failed fsync, the kernel
//! decides. The agent's own tests have a disk that always forgets, and damage every byte. And that
//! a point comes between two statements of the keeper's takes a test that holds it there.

use std::process::Command;

use spillway_testkit::{StackError, binaries, errand};

use super::scenario::Scenario;
use crate::oracle::report::Report;
use crate::verdict::Findings;

/// Tests that must fail, by a part of their names, and the law they stand for.
#[derive(Clone, Copy)]
pub struct UnitTest {
    package: &'static str,
    /// Where cargo finds them: `--lib`, or `--test` and a name.
    target: &'static [&'static str],
    filter: &'static str,
    law: &'static str,
}

const fn of_agent(filter: &'static str, law: &'static str) -> UnitTest {
    UnitTest { package: "spillway-agent", target: &["--lib"], filter, law }
}

/// The tests of this scenario, if it is one.
#[must_use]
pub fn of(scenario: Scenario) -> Option<UnitTest> {
    match scenario {
        Scenario::SpoolModel => Some(of_agent("spool::", "spool model")),
        Scenario::SpoolDamage => Some(of_agent("spool::damage", "spool damage")),
        Scenario::RollupRace => Some(UnitTest {
            package: "spillway-keeper",
            target: &["--test", "duties"],
            filter: "rollups::a_mark",
            law: "rollups",
        }),
        _ => None,
    }
}

/// Runs the tests in a build with mutants.
///
/// # Errors
/// They can't be built.
pub async fn run(test: UnitTest, mutant: Option<&'static str>) -> Result<Report, StackError> {
    let cargo = |more: &[&str]| {
        let mut command = Command::new(binaries::cargo());
        command.current_dir(binaries::workspace()).args(["test", "--quiet"]).args(test.target);
        command.args(["--package", test.package, "--features"]);
        command.arg(format!("{}/mutants", test.package));
        command.args(more);
        command
    };
    let built = cargo(&["--no-run"]);
    let mut tests = cargo(&[test.filter]);
    // What a mutant fails with is no regression of ours.
    tests.env("PROPTEST_DISABLE_FAILURE_PERSISTENCE", "true");
    if let Some(mutant) = mutant {
        tests.env("SPILLWAY_MUTANT", mutant);
    }
    let what = || StackError::io("running a program's own tests");
    let both = tokio::task::spawn_blocking(move || {
        let built = errand::output(&built)?;
        Ok::<_, std::io::Error>((built, errand::output(&tests)?))
    });
    let both = both.await.map_err(|error| StackError::Refused { what: error.to_string() })?;
    let (built, ran) = both.map_err(what())?;
    if !built.status.success() {
        let what = String::from_utf8_lossy(&built.stderr).into_owned();
        return Err(StackError::Refused { what });
    }
    let mut found = Findings::default();
    if !ran.status.success() {
        let text = String::from_utf8_lossy(&ran.stdout).into_owned();
        let module = test.filter.split_inclusive("::").next().unwrap_or(test.filter);
        for line in text.lines().filter(|line| line.trim_start().starts_with(module)) {
            found.push(None, || line.trim().to_owned());
        }
        if found.is_empty() {
            found.push(None, || "the tests ended with an error".into());
        }
    }
    let mut report = Report::default();
    report.law(test.law, format!("{}'s tests {}", test.package, test.filter), found);
    Ok(report)
}
