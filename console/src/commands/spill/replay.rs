//! `spillway spill replay`: quarantined objects, or copies of objects in a folder (an archive, a
//! versioned bucket's older state), back under `spill/`, for the recovery worker.
//!
//! The worker publishes, proves and retires; this only puts the bytes back where it looks, and
//! reads them back. The copy in quarantine stays until the worker has drained the object and an
//! operator removes it, so no step here can lose anything, and running it twice is harmless: the
//! ledger recognises every batch. Objects that still are under `spill/` need no replay.

use serde_json::Value as Json;
use spillway_proto::limits::SEALED_OBJECT_BYTES_MAX;
use spillway_proto::object_key::ObjectKey;
use spillway_recovery_worker::bucket::{Bucket, Condition};
use spillway_recovery_worker::bucket_error::BucketError;
use tokio::signal::unix::{SignalKind, signal};

use super::select::{Aside, Source, choose};
use super::{Pace, bucket};
use crate::answer::{Answer, Verdict};
use crate::cli::Replay;
use crate::consent::{Consent, Plan};
use crate::desk::Desk;
use crate::failure::Failure;

/// Between two lines of progress.
const PROGRESS_EVERY: usize = 50;
/// Objects whose reasons the plan names one by one.
const PLANNED_MAX: usize = 20;

/// Why an object was not put back.
#[derive(Debug, thiserror::Error)]
pub enum ReplayFault {
    #[error(transparent)]
    Bucket(#[from] BucketError),
    #[error("what was put back is not what was read")]
    Differs,
    #[error("{} can't be read: {cause}", path.display())]
    File { path: std::path::PathBuf, cause: std::io::Error },
    #[error("{} is larger than any object of ours", path.display())]
    TooLarge { path: std::path::PathBuf },
}

pub async fn run(desk: &Desk, options: &Replay) -> Result<Answer, Failure> {
    let bucket = bucket(desk)?;
    let source = match &options.from {
        Some(dir) => Source::Folder(dir.clone()),
        None => Source::Quarantine(bucket.clone()),
    };
    let chosen = choose(desk, options, &source).await?;
    let (wanted, rate) = (chosen.objects, options.objects.rate);
    let mut answer = Answer::default();
    answer.fact("chosen", wanted.len());
    if chosen.unknown > 0 {
        answer.fact("unknown_environment", chosen.unknown);
        let text = "of some objects the environment can't be known here: their private key is not \
                    in keys_dir, or their token has no row";
        answer.trouble(Verdict::Warning, text);
    }
    let entry = match desk.ask(&Plan { action: "spill replay", steps: steps(&wanted, rate) })? {
        Consent::Nothing(why) => {
            answer.section("objects", &["key", "reason"]).rows = wanted
                .iter()
                .map(|o| vec![o.key.as_str().into(), o.reason.clone().into()])
                .collect();
            answer.note(why);
            return Ok(answer);
        }
        Consent::Given(entry) => entry,
    };
    let done = put_all(&bucket, &source, &wanted, rate).await?;
    entry.end(Ok::<_, Failure>(()))?;
    let (left, failed) = (wanted.len() - done.rows.len(), done.failed);
    if done.stopped {
        let after = done.last.as_deref().map(|key| format!(" --resume-after {key}"));
        let after = after.unwrap_or_default();
        let text = format!("stopped with {left} left: the same command{after} goes on");
        answer.trouble(Verdict::Warning, text);
    }
    answer.fact("left", left).fact("put_back", done.back).fact("failed", failed);
    answer.fact("last_key", done.last);
    answer.section("objects", &["key", "state", "detail"]).rows = done.rows;
    if failed > 0 {
        answer.trouble(
            Verdict::Critical,
            "some objects stay where they are; nothing of them is lost",
        );
    }
    answer.note("The recovery worker takes them now; `spillway spill ls` shows them until it has.");
    answer.note("If the cause is not mended, they come back to quarantine with the same reason.");
    Ok(answer)
}

/// How far it came.
#[derive(Default)]
struct Done {
    rows: Vec<Vec<Json>>,
    last: Option<String>,
    back: u64,
    failed: u64,
    /// By Ctrl-C, between two objects.
    stopped: bool,
}

async fn put_all(
    bucket: &Bucket,
    source: &Source,
    wanted: &[Aside],
    rate: std::num::NonZeroU32,
) -> Result<Done, Failure> {
    let (mut done, mut pace) = (Done::default(), Pace::new(rate));
    // One for the whole run: what comes while an object is put back is not missed.
    let mut interrupts = signal(SignalKind::interrupt())?;
    for (number, object) in wanted.iter().enumerate() {
        tokio::select! {
            biased;
            _ = interrupts.recv() => {
                done.stopped = true;
                break;
            }
            () = pace.next() => {}
        }
        if number > 0 && number % PROGRESS_EVERY == 0 {
            eprintln!("  {number} of {} objects put back", wanted.len());
        }
        let key = object.key.as_str();
        done.rows.push(match put_back(bucket, source, &object.key).await {
            Ok(state) => {
                done.back += 1;
                done.last = Some(key.to_owned());
                vec![key.into(), state.into(), object.reason.clone().into()]
            }
            Err(fault) => {
                done.failed += 1;
                vec![key.into(), "failed".into(), fault.to_string().into()]
            }
        });
    }
    Ok(done)
}

fn steps(wanted: &[Aside], rate: std::num::NonZeroU32) -> Vec<String> {
    let mut steps: Vec<String> = wanted
        .iter()
        .take(PLANNED_MAX)
        .map(|object| format!("put back {} (it was set aside: {})", object.key, object.reason))
        .collect();
    if let Some(others) = wanted.len().checked_sub(PLANNED_MAX).filter(|others| *others > 0) {
        steps.push(format!("put back {others} others, at most {rate} a second"));
    }
    steps
}

async fn put_back(
    bucket: &Bucket,
    source: &Source,
    key: &ObjectKey,
) -> Result<&'static str, ReplayFault> {
    let bytes_max = SEALED_OBJECT_BYTES_MAX as u64;
    let bytes = source.read(key).await?;
    match bucket.put(key.as_str(), bytes.clone(), Condition::Absent).await {
        Ok(_) => {}
        Err(BucketError::Changed(_)) => return Ok("there already"),
        Err(error) => return Err(error.into()),
    }
    match bucket.get(key.as_str(), None, bytes_max).await {
        Ok((read, _)) if read == bytes => Ok("put back"),
        // The worker was faster.
        Err(BucketError::Missing(_)) => Ok("put back"),
        Ok(_) => Err(ReplayFault::Differs),
        Err(error) => Err(error.into()),
    }
}
