//! `spillway spill replay`: quarantined objects back under `spill/`, for the recovery worker.
//!
//! The worker publishes, proves and retires; this only puts the bytes back where it looks, and
//! reads them back. The copy in quarantine stays until the worker has drained the object and an
//! operator removes it, so no step here can lose anything, and running it twice is harmless: the
//! ledger recognises every batch. Objects that still are under `spill/` need no replay.

use serde_json::Value as Json;
use spillway_proto::limits::SEALED_OBJECT_BYTES_MAX;
use spillway_proto::object_key::{ObjectKey, SPILL_PREFIX};
use spillway_recovery_worker::bucket::{Bucket, Condition};
use spillway_recovery_worker::bucket_error::BucketError;
use spillway_recovery_worker::quarantine::{QUARANTINE_PREFIX, quarantine_key};

use super::{Pace, bucket, named};
use crate::answer::{Answer, Verdict};
use crate::cli::Objects;
use crate::consent::{Consent, Plan};
use crate::desk::Desk;
use crate::failure::Failure;

/// A reason's file is some KiB.
const REASON_BYTES_MAX: u64 = 256 * 1024;
/// Listing pages read at most: a million names.
const PAGES_MAX: usize = 1_000;
/// Between two lines of progress.
const PROGRESS_EVERY: usize = 50;
/// Objects whose reasons the plan names one by one.
const PLANNED_MAX: usize = 20;

/// Why an object was not put back.
#[derive(Debug, thiserror::Error)]
pub enum ReplayFault {
    #[error(transparent)]
    Bucket(#[from] BucketError),
    #[error("what was put back is not what lies in quarantine")]
    Differs,
}

/// An object in quarantine, and why it is there.
struct Aside {
    key: ObjectKey,
    reason: String,
}

pub async fn run(desk: &Desk, options: &Objects) -> Result<Answer, Failure> {
    let bucket = bucket(desk)?;
    let wanted = chosen(&bucket, options).await?;
    let mut answer = Answer::default();
    answer.fact("quarantined", wanted.len());
    let entry = match desk.ask(&Plan { action: "spill replay", steps: steps(&wanted, options) })? {
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
    let (mut rows, mut last): (Vec<Vec<Json>>, _) = (Vec::new(), None);
    let (mut back, mut failed, mut pace) = (0_u64, 0_u64, Pace::new(options.rate));
    for (done, object) in wanted.iter().enumerate() {
        pace.next().await;
        if done > 0 && done % PROGRESS_EVERY == 0 {
            eprintln!("  {done} of {} objects put back", wanted.len());
        }
        let key = object.key.as_str();
        match put_back(&bucket, &object.key).await {
            Ok(state) => {
                back += 1;
                last = Some(key.to_owned());
                rows.push(vec![key.into(), state.into(), object.reason.clone().into()]);
            }
            Err(fault) => {
                failed += 1;
                rows.push(vec![key.into(), "failed".into(), fault.to_string().into()]);
            }
        }
    }
    entry.end(Ok::<_, Failure>(()))?;
    answer.fact("put_back", back).fact("failed", failed).fact("last_key", last);
    answer.section("objects", &["key", "state", "detail"]).rows = rows;
    if failed > 0 {
        answer
            .trouble(Verdict::Critical, "some objects stay in quarantine; nothing of them is lost");
    }
    answer.note("The recovery worker takes them now; `spillway spill ls` shows them until it has.");
    answer.note("If the cause is not mended, they come back to quarantine with the same reason.");
    Ok(answer)
}

fn steps(wanted: &[Aside], options: &Objects) -> Vec<String> {
    let mut steps: Vec<String> = wanted
        .iter()
        .take(PLANNED_MAX)
        .map(|object| format!("put back {} (it was set aside: {})", object.key, object.reason))
        .collect();
    if let Some(others) = wanted.len().checked_sub(PLANNED_MAX).filter(|others| *others > 0) {
        steps.push(format!("put back {others} others, at most {} a second", options.rate));
    }
    steps
}

async fn chosen(bucket: &Bucket, options: &Objects) -> Result<Vec<Aside>, Failure> {
    let mut keys = match options.keys.is_empty() {
        true => listed(bucket).await?,
        false => options.keys.iter().map(|key| named(key)).collect::<Result<Vec<_>, _>>()?,
    };
    // By name: quarantine's order does not matter, and a resumed run needs a fixed one.
    keys.sort_unstable();
    if let Some(after) = &options.resume_after {
        let after = named(after)?;
        keys.retain(|key| *key > after);
    }
    keys.truncate(options.limit);
    let mut wanted = Vec::with_capacity(keys.len());
    for key in keys {
        let reason = reason(bucket, &key).await;
        wanted.push(Aside { key, reason });
    }
    Ok(wanted)
}

async fn listed(bucket: &Bucket) -> Result<Vec<ObjectKey>, Failure> {
    let (mut keys, mut after) = (Vec::new(), None);
    for _ in 0..PAGES_MAX {
        let (names, next) = bucket.list_names(QUARANTINE_PREFIX, after).await?;
        let objects = names.iter().filter_map(|n| ObjectKey::parse(&format!("{SPILL_PREFIX}{n}")));
        keys.extend(objects);
        after = next;
        if after.is_none() {
            break;
        }
    }
    Ok(keys)
}

async fn reason(bucket: &Bucket, key: &ObjectKey) -> String {
    let path = format!("{}.json", quarantine_key(key));
    let text = bucket.get(&path, None, REASON_BYTES_MAX).await.ok();
    let json: Option<Json> = text.and_then(|(bytes, _)| serde_json::from_slice(&bytes).ok());
    let detail = json.as_ref().and_then(|json| json.get("detail")).and_then(Json::as_str);
    detail.unwrap_or("its reason can't be read").to_owned()
}

async fn put_back(bucket: &Bucket, key: &ObjectKey) -> Result<&'static str, ReplayFault> {
    let bytes_max = SEALED_OBJECT_BYTES_MAX as u64;
    let (bytes, _) = bucket.get(&quarantine_key(key), None, bytes_max).await?;
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
