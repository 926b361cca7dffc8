//! `spillway maintenance begin|end|show`: one change at a time, by somebody, for a reason.
//!
//! The lock is a file of the operators' machine, beside the journal, so that it works while Kafka,
//! MySQL and S3 are all down. Commands that change servers take it for as long as they run, and
//! refuse while somebody else has it. It ends by itself at a stated time: whoever forgot it must
//! not stop a failover at night.

use std::io::Write;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::answer::Answer;
use crate::cli::Maintenance;
use crate::consent::{self, Consent, Plan};
use crate::desk::Desk;
use crate::failure::Failure;

/// How long a command's own lock holds if the command is killed.
const COMMAND_LASTS: jiff::SignedDuration = jiff::SignedDuration::from_mins(15);

/// Who changes what, until when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lock {
    pub owner: String,
    pub reason: String,
    pub since: Timestamp,
    pub until: Timestamp,
}

/// Why a change may not begin.
#[derive(Debug, thiserror::Error)]
pub enum LockFault {
    #[error(
        "{} is at work since {}: {}. One change at a time; `spillway maintenance end --force` if \
         you know better", .0.owner, .0.since, .0.reason
    )]
    Held(Box<Lock>),
    #[error("nobody holds the maintenance lock")]
    NotHeld,
    #[error("the lock {} can't be kept: {cause}; set maintenance_file", path.display())]
    File { path: PathBuf, cause: std::io::Error },
    #[error("the lock {} can't be read ({cause}); look at it, then remove it", path.display())]
    Damaged { path: PathBuf, cause: serde_json::Error },
}

/// The lock's place.
#[derive(Debug, Clone)]
struct Place<'a>(&'a Path);

impl Place<'_> {
    fn fault(&self, cause: std::io::Error) -> LockFault {
        LockFault::File { path: self.0.to_owned(), cause }
    }

    /// Whoever holds it now; one that is over counts as none.
    fn holder(&self, now: Timestamp) -> Result<Option<Lock>, LockFault> {
        let text = match std::fs::read(self.0) {
            Ok(text) => text,
            Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(cause) => return Err(self.fault(cause)),
        };
        let lock: Lock = serde_json::from_slice(&text)
            .map_err(|cause| LockFault::Damaged { path: self.0.to_owned(), cause })?;
        Ok(Some(lock).filter(|lock| lock.until > now))
    }

    /// Writes it whole beside its place and links it there: of two that do so at once, one fails.
    fn take(&self, lock: &Lock) -> Result<(), LockFault> {
        let dir = self.0.parent().unwrap_or(Path::new("."));
        let fault = |cause| self.fault(cause);
        std::fs::create_dir_all(dir).map_err(fault)?;
        let mut file = tempfile::NamedTempFile::new_in(dir).map_err(fault)?;
        let text = serde_json::to_vec(lock).unwrap_or_default();
        file.write_all(&text).and_then(|()| file.as_file().sync_all()).map_err(fault)?;
        match file.persist_noclobber(self.0) {
            Ok(_) => Ok(()),
            Err(error) if error.error.kind() == std::io::ErrorKind::AlreadyExists => {
                match self.holder(lock.since)? {
                    Some(holder) => Err(LockFault::Held(Box::new(holder))),
                    None => Err(fault(error.error)),
                }
            }
            Err(error) => Err(fault(error.error)),
        }
    }

    fn remove(&self) -> Result<(), LockFault> {
        match std::fs::remove_file(self.0) {
            Err(cause) if cause.kind() != std::io::ErrorKind::NotFound => Err(self.fault(cause)),
            _ => Ok(()),
        }
    }
}

/// The lock while a command runs; given back when dropped, unless the operator held it already.
#[derive(Debug)]
#[must_use = "the lock is given back when this is dropped"]
pub struct Held {
    path: Option<PathBuf>,
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Some(path) = &self.path
            && let Err(fault) = Place(path).remove()
        {
            eprintln!("warning: {fault}");
        }
    }
}

/// Takes the lock for a command, or finds that its operator has it already.
pub fn hold(desk: &Desk, reason: &str) -> Result<Held, LockFault> {
    let path = &desk.settings.maintenance_file;
    hold_at(path, &consent::who(), reason, Timestamp::now())
}

fn hold_at(path: &Path, owner: &str, reason: &str, now: Timestamp) -> Result<Held, LockFault> {
    let place = Place(path);
    match place.holder(now)? {
        Some(holder) if holder.owner != owner => return Err(LockFault::Held(Box::new(holder))),
        Some(_) => return Ok(Held { path: None }),
        None => place.remove()?,
    }
    let until = now.checked_add(COMMAND_LASTS).unwrap_or(Timestamp::MAX);
    place.take(&Lock { owner: owner.to_owned(), reason: reason.to_owned(), since: now, until })?;
    Ok(Held { path: Some(path.to_owned()) })
}

/// Who holds it now, if anyone.
pub fn holder(desk: &Desk) -> Result<Option<Lock>, LockFault> {
    Place(&desk.settings.maintenance_file).holder(Timestamp::now())
}

pub fn run(desk: &Desk, command: Maintenance) -> Result<Answer, Failure> {
    match command {
        Maintenance::Begin { reason, lasts } => begin(desk, &reason, lasts.get()),
        Maintenance::End { force } => end(desk, force),
        Maintenance::Show => show(desk),
    }
}

fn begin(desk: &Desk, reason: &str, lasts: std::time::Duration) -> Result<Answer, Failure> {
    let now = Timestamp::now();
    let now = Timestamp::from_second(now.as_second()).unwrap_or(now);
    let place = Place(&desk.settings.maintenance_file);
    let owner = consent::who();
    if let Some(holder) = place.holder(now)? {
        return Err(LockFault::Held(Box::new(holder)).into());
    }
    let until = now.checked_add(lasts).unwrap_or(Timestamp::MAX);
    let lock = Lock { owner, reason: reason.to_owned(), since: now, until };
    let steps = vec![format!("lock all changes of servers until {until}, because: {reason}")];
    let mut answer = Answer::default();
    let entry = match desk.ask(&Plan { action: "maintenance begin", steps })? {
        Consent::Nothing(why) => {
            answer.note(why);
            return Ok(answer);
        }
        Consent::Given(entry) => entry,
    };
    entry.end(place.remove().and_then(|()| place.take(&lock)))?;
    Ok(told(answer, &lock))
}

fn end(desk: &Desk, force: bool) -> Result<Answer, Failure> {
    let place = Place(&desk.settings.maintenance_file);
    let holder = place.holder(Timestamp::now())?.ok_or(LockFault::NotHeld)?;
    if holder.owner != consent::who() && !force {
        return Err(LockFault::Held(Box::new(holder)).into());
    }
    let steps = vec![format!("give back the lock of {}: {}", holder.owner, holder.reason)];
    let mut answer = Answer::default();
    match desk.ask(&Plan { action: "maintenance end", steps })? {
        Consent::Nothing(why) => {
            answer.note(why);
        }
        Consent::Given(entry) => {
            entry.end(place.remove())?;
            answer.fact("held", false);
        }
    }
    Ok(answer)
}

fn show(desk: &Desk) -> Result<Answer, Failure> {
    Ok(match holder(desk)? {
        Some(lock) => told(Answer::default(), &lock),
        None => {
            let mut answer = Answer::default();
            answer.fact("held", false);
            answer
        }
    })
}

fn told(mut answer: Answer, lock: &Lock) -> Answer {
    answer.fact("held", true).fact("owner", lock.owner.clone());
    answer.fact("reason", lock.reason.clone()).fact("since", lock.since.to_string());
    answer.fact("until", lock.until.to_string());
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::UNIX_EPOCH;

    #[test]
    fn while_one_is_at_work_another_is_refused_and_told_why() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("deep/lock.json");
        let held = hold_at(&path, "ann", "switchover of s0", NOW).unwrap();
        let refused = hold_at(&path, "bob", "failover of s1", NOW).unwrap_err().to_string();
        assert!(refused.contains("ann") && refused.contains("switchover of s0"), "{refused}");
        let nested = hold_at(&path, "ann", "rebuild", NOW).unwrap();
        drop(nested);
        assert!(path.exists(), "the outer lock holds on");
        drop(held);
        assert!(!path.exists());
        assert!(hold_at(&path, "bob", "failover of s1", NOW).is_ok());
    }

    #[test]
    fn a_lock_that_was_forgotten_ends_by_itself() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock.json");
        std::mem::drop(Place(&path).take(&Lock {
            owner: "ann".to_owned(),
            reason: "forgotten".to_owned(),
            since: NOW,
            until: NOW + jiff::SignedDuration::from_mins(1),
        }));
        assert!(hold_at(&path, "bob", "failover", NOW).is_err());
        let later = NOW + jiff::SignedDuration::from_mins(2);
        assert!(hold_at(&path, "bob", "failover", later).is_ok());
    }

    #[test]
    fn of_two_that_take_it_at_once_one_fails() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock.json");
        let lock = |owner: &str| Lock {
            owner: owner.to_owned(),
            reason: String::new(),
            since: NOW,
            until: NOW + jiff::SignedDuration::from_mins(1),
        };
        Place(&path).take(&lock("ann")).unwrap();
        assert!(matches!(Place(&path).take(&lock("bob")), Err(LockFault::Held(_))));
    }
}
