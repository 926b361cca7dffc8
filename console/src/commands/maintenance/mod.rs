//! `spillway maintenance begin|end|show`: one change at a time, by somebody, for a reason.
//!
//! The lock stands in two places. On the MySQL servers (`everywhere.rs`) it holds for all
//! operators' machines; in a file beside the journal (`here.rs`) it holds on this one, also while
//! every MySQL server is down. Commands that change servers take both for as long as they run, and
//! refuse while somebody else has either. An operator's lock ends by itself at a stated time:
//! whoever forgot it must not stop a failover at night. While it holds, `status serve` says so as a
//! metric, by which Alertmanager keeps still.

mod everywhere;
mod here;

use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::answer::{Answer, Verdict};
use crate::cli::Maintenance;
use crate::consent::{self, Consent, Plan};
use crate::desk::Desk;
use crate::failure::{Failure, UsageError};
use everywhere::Grip;
use here::Place;

/// How long a command's own file holds if the command is killed.
const COMMAND_LASTS: jiff::SignedDuration = jiff::SignedDuration::from_mins(15);
/// A lock is no way to switch alerts off for good.
const LASTS_MAX: std::time::Duration = std::time::Duration::from_secs(24 * 3_600);
/// As wide as its columns are.
const WORDS_MAX: usize = 255;

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
        "{} is at work since {}: {}. One change at a time; if that is over or can't be waited for: \
         `spillway maintenance begin --take-over-from {:?} --reason …`",
        .0.owner, .0.since, .0.reason, .0.owner
    )]
    Held(Box<Lock>),
    #[error("somebody changes servers at this moment: {0}. One change at a time; wait for its end")]
    AtWork(String),
    #[error("--take-over-from names {named:?}, but it is {found} who holds the lock")]
    OtherHolder { named: String, found: String },
    #[error("nobody holds the maintenance lock")]
    NotHeld,
    #[error("the lock {} can't be kept: {cause}; set maintenance_file", path.display())]
    File { path: PathBuf, cause: std::io::Error },
    #[error("the lock {} can't be read ({cause}); look at it, then remove it", path.display())]
    Damaged { path: PathBuf, cause: serde_json::Error },
}

/// The lock while a command runs; given back when dropped, unless the operator held it already.
#[derive(Debug)]
#[must_use = "the lock is given back when this is dropped"]
pub struct Held {
    path: Option<PathBuf>,
    _grip: Grip,
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
pub async fn hold(desk: &Desk, reason: &str) -> Result<Held, Failure> {
    let (owner, now) = (consent::who(), Timestamp::now());
    let grip = everywhere::grip(desk, &desk.shards()?, &format!("{owner}: {reason}")).await?;
    match &grip.holder {
        Some(holder) if holder.owner != owner => {
            return Err(LockFault::Held(Box::new(holder.clone())).into());
        }
        _ => {}
    }
    if grip.servers() == 0 {
        eprintln!("warning: no MySQL server answers, so only this machine knows of the change");
    }
    let path = hold_at(&desk.settings.maintenance_file, &owner, reason, now)?;
    Ok(Held { path, _grip: grip })
}

fn hold_at(
    path: &Path,
    owner: &str,
    reason: &str,
    now: Timestamp,
) -> Result<Option<PathBuf>, LockFault> {
    let place = Place(path);
    match place.holder(now)? {
        Some(holder) if holder.owner != owner => return Err(LockFault::Held(Box::new(holder))),
        Some(_) => return Ok(None),
        None => place.remove()?,
    }
    let until = now.checked_add(COMMAND_LASTS).unwrap_or(Timestamp::MAX);
    place.take(&Lock { owner: owner.to_owned(), reason: reason.to_owned(), since: now, until })?;
    Ok(Some(path.to_owned()))
}

/// Who holds it now, if anyone. The servers' word goes before the file's, which does not know that
/// somebody elsewhere took the lock over. Silence of servers is no fault.
pub async fn holder(desk: &Desk) -> Result<Option<Lock>, LockFault> {
    if let Ok(map) = desk.shards()
        && let (Some(lock), _) = everywhere::holder(desk, &map).await
    {
        return Ok(Some(lock));
    }
    Place(&desk.settings.maintenance_file).holder(Timestamp::now())
}

pub async fn run(desk: &Desk, command: Maintenance) -> Result<Answer, Failure> {
    match command {
        Maintenance::Begin { reason, lasts, take_over_from } => {
            begin(desk, &reason, lasts.get(), take_over_from.as_deref()).await
        }
        Maintenance::End { force } => end(desk, force).await,
        Maintenance::Show => show(desk).await,
    }
}

async fn begin(
    desk: &Desk,
    reason: &str,
    lasts: std::time::Duration,
    from: Option<&str>,
) -> Result<Answer, Failure> {
    let owner = consent::who();
    if lasts > LASTS_MAX || lasts.is_zero() || reason.trim().is_empty() {
        let text = "--for must be between 1s and 24h, and --reason must say something";
        return Err(UsageError(text.to_owned()).into());
    }
    let now = Timestamp::from_second(Timestamp::now().as_second())?;
    let until = now.checked_add(lasts).unwrap_or(Timestamp::MAX);
    let reason: String = reason.chars().take(WORDS_MAX).collect();
    let lock = Lock { owner, reason: reason.clone(), since: now, until };
    let mut steps = check_taken(holder(desk).await?, from)?;
    steps.push(format!("lock all changes of servers until {until}, because: {reason}"));
    steps
        .push("tell Alertmanager by a metric of `status serve`, so that it keeps still".to_owned());
    let mut answer = Answer::default();
    let entry = match desk.ask(&Plan { action: "maintenance begin", steps })? {
        Consent::Nothing(why) => {
            answer.note(why);
            return Ok(answer);
        }
        Consent::Given(entry) => entry,
    };
    let place = Place(&desk.settings.maintenance_file);
    let done = async {
        let mut grip =
            everywhere::grip(desk, &desk.shards()?, &format!("{}: {reason}", lock.owner)).await?;
        // Whoever was faster while the question stood is not overwritten.
        let found = grip.holder.take();
        check_taken(if found.is_some() { found } else { place.holder(now)? }, from)?;
        place.remove().and_then(|()| place.take(&lock))?;
        let missed = grip.write(Some(&lock)).await;
        Ok::<_, Failure>((missed, grip))
    };
    let (missed, grip) = entry.end(done.await)?;
    not_everywhere(&mut answer, missed, &grip);
    Ok(told(answer, &lock))
}

/// Nobody has it, or the one that was named does: then the plan says that it is taken away.
fn check_taken(holder: Option<Lock>, from: Option<&str>) -> Result<Vec<String>, LockFault> {
    match (holder, from) {
        (None, _) => Ok(Vec::new()),
        (Some(holder), Some(named)) if holder.owner == named => Ok(vec![format!(
            "take the lock away from {}, who has it since {} because: {}",
            holder.owner, holder.since, holder.reason
        )]),
        (Some(holder), Some(named)) => {
            Err(LockFault::OtherHolder { named: named.to_owned(), found: holder.owner })
        }
        (Some(holder), None) => Err(LockFault::Held(Box::new(holder))),
    }
}

async fn end(desk: &Desk, force: bool) -> Result<Answer, Failure> {
    let holder = holder(desk).await?.ok_or(LockFault::NotHeld)?;
    if holder.owner != consent::who() && !force {
        return Err(LockFault::Held(Box::new(holder)).into());
    }
    let steps = vec![format!("give back the lock of {}: {}", holder.owner, holder.reason)];
    let mut answer = Answer::default();
    let entry = match desk.ask(&Plan { action: "maintenance end", steps })? {
        Consent::Nothing(why) => {
            answer.note(why);
            return Ok(answer);
        }
        Consent::Given(entry) => entry,
    };
    let done = async {
        let words = format!("{}: maintenance end", consent::who());
        let mut grip = everywhere::grip(desk, &desk.shards()?, &words).await?;
        let missed = grip.write(None).await;
        Place(&desk.settings.maintenance_file).remove()?;
        Ok::<_, Failure>((missed, grip))
    };
    let (missed, grip) = entry.end(done.await)?;
    answer.fact("held", false);
    not_everywhere(&mut answer, missed, &grip);
    Ok(answer)
}

/// Servers that do not know of it until somebody tells them, or its time is over.
fn not_everywhere(answer: &mut Answer, missed: Vec<String>, grip: &Grip) {
    for sentence in missed.iter().chain(&grip.silent) {
        answer.trouble(Verdict::Warning, format!("a server does not know of it: {sentence}"));
    }
    answer.fact("servers", grip.servers());
}

async fn show(desk: &Desk) -> Result<Answer, Failure> {
    Ok(match holder(desk).await? {
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
        assert_eq!(nested, None, "the outer lock holds on");
        drop(Held { path: held, _grip: Grip::default() });
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
