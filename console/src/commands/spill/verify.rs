//! `spillway spill verify`: each parked object opened and judged as the recovery worker will do it,
//! with its keys and tokens, before it does. Nothing is published, claimed or deleted.

use jiff::Timestamp;
use serde_json::Value as Json;
use spillway_recovery_worker::bucket::{Bucket, Listed};
use spillway_recovery_worker::fetch::{FetchError, fetch, identify};
use spillway_recovery_worker::private_keys::PrivateKeys;
use spillway_recovery_worker::unseal::{Opened, Unfit, entitle, unseal};
use spillway_runtime::program::chain;
use spillway_runtime::tokens::Tokens;

use super::{Pace, all, bucket, named};
use crate::answer::{Answer, Verdict};
use crate::cli::Objects;
use crate::desk::Desk;
use crate::failure::Failure;

/// Between two lines of progress.
const PROGRESS_EVERY: usize = 100;

/// What was found of one object.
enum Judged {
    Fit(Opened),
    Unfit(Unfit),
    /// Drained or replaced since it was listed.
    Gone,
    /// S3 did not give it.
    Unread(String),
}

/// Sums over all objects.
#[derive(Default)]
struct Sums {
    verified: u64,
    batches: u64,
    points: u64,
    unfit: u64,
    gone: u64,
    unread: u64,
}

pub async fn run(desk: &Desk, options: &Objects) -> Result<Answer, Failure> {
    let bucket = bucket(desk)?;
    let keys = PrivateKeys::load(&desk.settings.keys_dir)?;
    let tokens = Tokens::load(&desk.settings.tokens_file)?;
    let wanted = chosen(&bucket, options).await?;
    let (mut sums, mut pace, mut rows) = (Sums::default(), Pace::new(options.rate), Vec::new());
    let mut last = None;
    for (done, object) in wanted.iter().enumerate() {
        pace.next().await;
        if done > 0 && done % PROGRESS_EVERY == 0 {
            eprintln!("  {done} of {} objects, {} unfit", wanted.len(), sums.unfit);
        }
        let judged = judge(&bucket, &keys, &tokens, object).await;
        rows.extend(row(object, &judged));
        sums.add(&judged);
        last = Some(object.key.as_str().to_owned());
    }
    let mut answer = Answer::default();
    answer
        .fact("objects", wanted.len())
        .fact("verified", sums.verified)
        .fact("batches", sums.batches)
        .fact("points", sums.points)
        .fact("unfit", sums.unfit)
        .fact("gone", sums.gone)
        .fact("unread", sums.unread)
        .fact("last_key", last);
    if sums.unfit > 0 {
        let text = "unfit objects go to quarantine with their reason; mend the cause (a key, a \
                    token's row) before the worker meets them";
        answer.trouble(Verdict::Warning, text);
    }
    if sums.unread > 0 {
        answer
            .trouble(Verdict::Critical, "S3 did not give every object; nothing is known of those");
    }
    if !rows.is_empty() {
        answer.section("not_verified", &["key", "state", "detail"]).rows = rows;
    }
    Ok(answer)
}

/// The named ones, or the oldest; behind the key at which an earlier run ended.
async fn chosen(bucket: &Bucket, options: &Objects) -> Result<Vec<Listed>, Failure> {
    let (mut objects, _) = all(bucket).await?;
    if !options.keys.is_empty() {
        let keys = options.keys.iter().map(|key| named(key)).collect::<Result<Vec<_>, _>>()?;
        objects.retain(|object| keys.contains(&object.key));
    }
    if let Some(after) = &options.resume_after {
        let after = named(after)?;
        // Oldest first: if that one is gone by now, nothing before it is left either.
        if let Some(place) = objects.iter().position(|object| object.key == after) {
            objects.drain(..=place);
        }
    }
    objects.truncate(options.limit);
    Ok(objects)
}

async fn judge(bucket: &Bucket, keys: &PrivateKeys, tokens: &Tokens, object: &Listed) -> Judged {
    let fetched = async {
        let object = identify(bucket, object).await?;
        fetch(bucket, &object).await
    };
    let bytes = match fetched.await {
        Ok(bytes) => bytes,
        Err(FetchError::Seen) => return Judged::Gone,
        Err(FetchError::TooLarge { bytes }) => return Judged::Unfit(Unfit::TooLarge { bytes }),
        Err(FetchError::Bucket(error)) => return Judged::Unread(chain(&error)),
    };
    let arrived = Timestamp::from_millisecond(object.modified_ms).unwrap_or(Timestamp::MIN);
    let opened = unseal(&bytes, &object.key, keys);
    match opened.and_then(|plain| entitle(&plain, tokens, arrived)) {
        Ok(opened) if opened.faults.is_empty() => Judged::Fit(opened),
        Ok(opened) => Judged::Unfit(Unfit::Frames(opened.faults)),
        Err(unfit) => Judged::Unfit(unfit),
    }
}

impl Sums {
    fn add(&mut self, judged: &Judged) {
        match judged {
            Judged::Fit(opened) => {
                self.verified += 1;
                self.batches += opened.batches.len() as u64;
                self.points += opened.batches.iter().map(|batch| batch.points as u64).sum::<u64>();
            }
            Judged::Unfit(_) => self.unfit += 1,
            Judged::Gone => self.gone += 1,
            Judged::Unread(_) => self.unread += 1,
        }
    }
}

fn row(object: &Listed, judged: &Judged) -> Option<Vec<Json>> {
    let (state, detail) = match judged {
        Judged::Fit(_) | Judged::Gone => return None,
        Judged::Unfit(unfit) => (unfit.as_str(), unfit.to_string()),
        Judged::Unread(cause) => ("unread", cause.clone()),
    };
    Some(vec![object.key.as_str().into(), state.into(), detail.into()])
}
