//! Nothing is changed unasked: a change prints its plan, gets a yes (or a typed name, or `--yes`),
//! and stands in the journal before it happens.

use std::io::{BufRead, IsTerminal, Write};
use std::path::{Path, PathBuf};

use crate::cli::Options;
use crate::journal::{self, Change, Entry};

/// What is about to be changed.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The command, as in `topics create`; also what has to be typed.
    pub action: &'static str,
    /// One sentence each.
    pub steps: Vec<String>,
}

/// What became of the question.
#[derive(Debug)]
pub enum Consent {
    /// Go on; tell the entry how it ended.
    Given(Entry),
    /// `--dry-run`, or nothing to do: change nothing.
    Nothing(&'static str),
}

/// Why nothing is changed.
#[derive(Debug, thiserror::Error)]
pub enum ConsentError {
    #[error("{action} changes things: pass --yes, or run it on a terminal to be asked")]
    NobodyToAsk { action: &'static str },
    #[error("not confirmed; nothing was changed")]
    Declined,
    #[error(
        "the journal {} can't be written ({cause}), and nothing is changed without it: set \
         journal_file in spillway.toml", path.display()
    )]
    Journal { path: PathBuf, cause: std::io::Error },
}

/// Shows the plan on stderr, asks, and writes the journal; `about` is the shard or the groups where
/// two such changes are not the same one.
pub fn ask(
    options: &Options,
    journal: &Path,
    (plan, about): (&Plan, &str),
) -> Result<Consent, ConsentError> {
    let change = Change { action: plan.action, about, command: &options.typed, steps: &plan.steps };
    if plan.steps.is_empty() {
        if !options.dry_run {
            journal::settle(journal, change)?;
        }
        return Ok(Consent::Nothing("there is nothing to do"));
    }
    eprintln!("{} will:", plan.action);
    for step in &plan.steps {
        eprintln!("  - {step}");
    }
    if options.dry_run {
        return Ok(Consent::Nothing("dry run: nothing was changed"));
    }
    if !options.yes {
        confirm(plan.action)?;
    }
    Ok(Consent::Given(journal::begin(journal, change)?))
}

fn confirm(action: &'static str) -> Result<(), ConsentError> {
    if !std::io::stdin().is_terminal() {
        return Err(ConsentError::NobodyToAsk { action });
    }
    eprint!("Type `{action}` to go on: ");
    let flushed = std::io::stderr().flush();
    let mut line = String::new();
    let read = flushed.and_then(|()| std::io::stdin().lock().read_line(&mut line));
    match read {
        Ok(_) if line.trim() == action => Ok(()),
        _ => Err(ConsentError::Declined),
    }
}

/// `uid 1000 on db-1`, for the journal's reader: the login's user, or the process's without one.
pub fn who() -> String {
    const NO_LOGIN: &str = "4294967295";
    let read = |path| std::fs::read_to_string(path).unwrap_or_default();
    let (login, status) = (read("/proc/self/loginuid"), read("/proc/self/status"));
    let own = status.lines().find_map(|line| line.strip_prefix("Uid:"));
    let own = own.and_then(|uids| uids.split_whitespace().next()).unwrap_or("unknown");
    let uid = match login.trim() {
        "" | NO_LOGIN => own,
        login => login,
    };
    format!("uid {uid} on {}", read("/proc/sys/kernel/hostname").trim())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Output;

    fn options(yes: bool, dry_run: bool) -> Options {
        Options { output: Output::Table, dry_run, yes, ..Options::default() }
    }

    fn plan() -> Plan {
        Plan { action: "topics create", steps: vec!["create spillway.live".to_owned()] }
    }

    #[test]
    fn a_change_stands_in_the_journal_before_and_after_it_happens() {
        let dir = tempfile::tempdir().unwrap();
        let journal = dir.path().join("deep/journal.jsonl");
        let Consent::Given(entry) = ask(&options(true, false), &journal, (&plan(), "")).unwrap()
        else {
            panic!("--yes is a yes");
        };
        let lines = || std::fs::read_to_string(&journal).unwrap();
        assert!(lines().contains("\"state\":\"begins\"") && lines().contains("spillway.live"));
        let failed = entry.end::<(), _>(Err(crate::failure::UsageError("no".to_owned())));
        assert!(failed.is_err());
        let last: serde_json::Value =
            serde_json::from_str(lines().lines().last().unwrap()).unwrap();
        assert_eq!((&last["state"], &last["error"]), (&"failed".into(), &"no".into()));
    }

    #[test]
    fn a_dry_run_and_an_empty_plan_change_nothing_and_need_no_journal() {
        let nowhere = Path::new("/proc/nowhere/journal");
        let dry = ask(&options(true, true), nowhere, (&plan(), "")).unwrap();
        assert!(matches!(dry, Consent::Nothing(text) if text.starts_with("dry run")));
        let empty = Plan { action: "migrate", steps: Vec::new() };
        assert!(matches!(
            ask(&options(false, false), nowhere, (&empty, "")),
            Ok(Consent::Nothing(_))
        ));
    }

    #[test]
    fn without_a_journal_nothing_is_changed() {
        let error =
            ask(&options(true, false), Path::new("/proc/nowhere/j"), (&plan(), "")).unwrap_err();
        assert!(matches!(error, ConsentError::Journal { .. }));
        assert!(error.to_string().contains("set journal_file"));
    }
}
