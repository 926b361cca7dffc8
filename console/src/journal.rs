//! The journal: one line of JSON before a change begins and one when it ended, so that a change
//! whose console died in the middle is found again, with the command that goes on.
//!
//! `begins` → `done` or `failed`, joined by `run`. A line that can't be read is passed over: the
//! journal is for people first, and lives through versions.

use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::consent::{ConsentError, who};
use crate::failure::Failure;

/// Of a longer journal only the end is read.
const READ_BYTES_MAX: u64 = 1 << 20;
/// A change that failed told why when it did; after this it is history.
const FAILED_SHOWN_FOR: SignedDuration = SignedDuration::from_hours(24);

/// A change that is under way, in the journal.
#[derive(Debug)]
#[must_use = "the journal should say how it ended"]
pub struct Entry {
    journal: PathBuf,
    run: String,
    action: String,
    about: String,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Line {
    at: Timestamp,
    by: String,
    /// The same in all lines of one change.
    #[serde(default)]
    run: String,
    action: String,
    /// The shard or the groups, where two such changes are not the same one.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    about: String,
    state: State,
    /// The console's process, as long as it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pid: Option<u32>,
    /// What was typed.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    command: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    steps: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum State {
    Begins,
    Done,
    Failed,
}

/// What is about to happen, as the journal keeps it.
#[derive(Debug, Clone, Copy)]
pub struct Change<'a> {
    pub action: &'a str,
    pub about: &'a str,
    pub command: &'a str,
    pub steps: &'a [String],
}

/// A change that began and did not come to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unended {
    pub at: Timestamp,
    pub by: String,
    pub action: String,
    pub about: String,
    pub command: String,
    pub how: How,
    /// Joins it with its journal's lines.
    pub run: String,
}

/// What is known of its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum How {
    /// Its console still runs on this machine.
    Running(u32),
    /// Its console ended without a word; of another machine's nothing is known.
    BrokenOff,
    Failed(String),
}

/// Notes that a change begins.
pub fn begin(journal: &Path, change: Change<'_>) -> Result<Entry, ConsentError> {
    let entry = Entry {
        journal: journal.to_owned(),
        run: uuid::Uuid::now_v7().to_string(),
        action: change.action.to_owned(),
        about: change.about.to_owned(),
    };
    let line = Line {
        pid: Some(std::process::id()),
        command: change.command.to_owned(),
        steps: change.steps.to_vec(),
        ..entry.line(State::Begins)
    };
    entry.write(&line)?;
    Ok(entry)
}

impl Entry {
    /// Notes how it ended, and hands the result on.
    pub fn end<T, E: Into<Failure>>(self, result: Result<T, E>) -> Result<T, Failure> {
        let result = result.map_err(Into::into);
        let error = result.as_ref().err().map(Failure::sentence);
        let state = if error.is_some() { State::Failed } else { State::Done };
        if let Err(unwritten) = self.write(&Line { error, ..self.line(state) }) {
            eprintln!("warning: {unwritten}");
        }
        result
    }

    fn line(&self, state: State) -> Line {
        Line {
            at: Timestamp::now(),
            by: who(),
            run: self.run.clone(),
            action: self.action.clone(),
            about: self.about.clone(),
            state,
            pid: None,
            command: String::new(),
            steps: Vec::new(),
            error: None,
        }
    }

    fn write(&self, line: &Line) -> Result<(), ConsentError> {
        let unwritable = |cause| ConsentError::Journal { path: self.journal.clone(), cause };
        append(&self.journal, line).map_err(unwritable)
    }
}

fn append(path: &Path, line: &Line) -> std::io::Result<()> {
    if let Some(dir) = path.parent() {
        std::fs::create_dir_all(dir)?;
    }
    let mut text = serde_json::to_vec(line)?;
    text.push(b'\n');
    let mut file = std::fs::File::options().create(true).append(true).open(path)?;
    file.write_all(&text)?;
    file.sync_data()
}

/// Changes that began and did not end well, and that no later one made up for; oldest first.
pub fn unended(journal: &Path) -> std::io::Result<Vec<Unended>> {
    let text = match tail(journal) {
        Ok(text) => text,
        Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(cause) => return Err(cause),
    };
    let mut open = folded(text.lines().filter_map(|line| serde_json::from_str(line).ok()));
    let old = Timestamp::now() - FAILED_SHOWN_FOR;
    open.retain(|one| !matches!(one.how, How::Failed(_)) || one.at > old);
    Ok(open)
}

fn tail(journal: &Path) -> std::io::Result<String> {
    let mut file = std::fs::File::open(journal)?;
    let bytes = file.metadata()?.len();
    file.seek(SeekFrom::Start(bytes.saturating_sub(READ_BYTES_MAX)))?;
    let mut text = Vec::new();
    file.take(READ_BYTES_MAX).read_to_end(&mut text)?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

fn folded(lines: impl Iterator<Item = Line>) -> Vec<Unended> {
    let mut open: Vec<Unended> = Vec::new();
    for line in lines.filter(|line| !line.run.is_empty()) {
        let place = open.iter().position(|one| one.run == line.run);
        match (line.state, place) {
            (State::Begins, _) => open.push(Unended {
                how: if is_alive(&line) {
                    How::Running(line.pid.unwrap_or(0))
                } else {
                    How::BrokenOff
                },
                at: line.at,
                by: line.by,
                action: line.action,
                about: line.about,
                command: line.command,
                run: line.run,
            }),
            (State::Failed, Some(place)) => {
                if let Some(one) = open.get_mut(place) {
                    one.how = How::Failed(line.error.unwrap_or_default());
                }
            }
            (State::Done, _) => {
                open.retain(|one| one.run != line.run && !makes_up(&line, one));
            }
            (State::Failed, None) => {}
        }
    }
    open
}

/// Whether the change that `done` ended leaves nothing to do of `one`.
fn makes_up(done: &Line, one: &Unended) -> bool {
    let is_running = matches!(one.how, How::Running(_));
    !is_running && done.about == one.about && kind(&done.action) == kind(&one.action)
}

/// Who becomes or stays a shard's primary is settled by any of three commands.
fn kind(action: &str) -> &str {
    match action {
        "shard switchover" | "shard failover" | "shard unfence" => "shard primary",
        other => other,
    }
}

/// Whether the console that wrote this still runs here: a number that was given to another program
/// since is none.
fn is_alive(line: &Line) -> bool {
    let here = |who: &str| who.rsplit(" on ").next().map(str::to_owned);
    if here(&line.by) != here(&who()) {
        return false;
    }
    let name = line.pid.and_then(|pid| std::fs::read_to_string(format!("/proc/{pid}/comm")).ok());
    name.is_some_and(|name| name.trim() == "spillway")
}

/// Notes that there was nothing left to do, if something of the kind was left open.
pub fn settle(journal: &Path, change: Change<'_>) -> Result<(), ConsentError> {
    let unreadable = |cause| ConsentError::Journal { path: journal.to_owned(), cause };
    let same = |one: &Unended| {
        one.about == change.about
            && kind(&one.action) == kind(change.action)
            && !matches!(one.how, How::Running(_))
    };
    if !unended(journal).map_err(unreadable)?.iter().any(same) {
        return Ok(());
    }
    begin(journal, change)?.end(Ok::<_, Failure>(())).map(drop).unwrap_or_default();
    Ok(())
}

#[cfg(test)]
impl Unended {
    /// A change whose console died a moment ago.
    pub fn example(action: &str, about: &str, command: &str) -> Self {
        Self {
            at: Timestamp::now(),
            by: who(),
            action: action.to_owned(),
            about: about.to_owned(),
            command: command.to_owned(),
            how: How::BrokenOff,
            run: String::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::UsageError;

    const SHARD_0: Change<'static> = Change {
        action: "shard switchover",
        about: "s0",
        command: "spillway shard switchover s0",
        steps: &[],
    };

    /// As if the console had died: no process of ours is called `spillway` in a test.
    fn broken_off(journal: &Path, change: Change<'_>) {
        let _died = begin(journal, change).unwrap();
    }

    #[test]
    fn a_change_that_was_broken_off_is_found_until_something_makes_up_for_it() {
        let dir = tempfile::tempdir().unwrap();
        let journal = dir.path().join("journal.jsonl");
        assert_eq!(unended(&journal).unwrap(), []);
        broken_off(&journal, SHARD_0);
        std::fs::File::options()
            .append(true)
            .open(&journal)
            .unwrap()
            .write_all(b"{torn\n")
            .unwrap();
        let open = unended(&journal).unwrap();
        assert_eq!((open.len(), &open[0].how), (1, &How::BrokenOff));
        assert_eq!(open[0].command, "spillway shard switchover s0");

        let other = Change { about: "s1", ..SHARD_0 };
        begin(&journal, other).unwrap().end(Ok::<_, Failure>(())).unwrap();
        assert_eq!(unended(&journal).unwrap().len(), 1, "another shard's change settles nothing");
        let unfenced = Change { action: "shard unfence", ..SHARD_0 };
        begin(&journal, unfenced).unwrap().end(Ok::<_, Failure>(())).unwrap();
        assert_eq!(unended(&journal).unwrap(), []);
    }

    #[test]
    fn a_change_that_failed_is_told_with_its_reason_and_nothing_to_do_settles_it() {
        let dir = tempfile::tempdir().unwrap();
        let journal = dir.path().join("journal.jsonl");
        let failed = begin(&journal, SHARD_0).unwrap();
        assert!(failed.end::<(), _>(Err(UsageError("no".to_owned()))).is_err());
        assert_eq!(unended(&journal).unwrap()[0].how, How::Failed("no".to_owned()));
        settle(&journal, Change { about: "s1", ..SHARD_0 }).unwrap();
        assert_eq!(unended(&journal).unwrap().len(), 1);
        settle(&journal, SHARD_0).unwrap();
        assert_eq!(unended(&journal).unwrap(), []);
    }
}
