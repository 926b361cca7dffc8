//! One object's way back, hop by hop: claim → fetch → unseal → republish, and then either a wait
//! for `retire.rs` or quarantine. Whatever goes wrong, the object is still in the bucket.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use spillway_publisher::LogGate;
use spillway_runtime::outside;
use spillway_runtime::tokens::TokenFile;
use tokio::sync::Semaphore;

use crate::bucket::{Bucket, Listed};
use crate::bucket_error::BucketError;
use crate::claim::{Claim, Claimant, Claimed, claim};
use crate::failpoint;
use crate::fetch::{FetchError, fetch, identify};
use crate::metrics::Metrics;
use crate::pace::Pace;
use crate::private_keys::KeyFolder;
use crate::quarantine::{QuarantineError, Verdict, quarantine};
use crate::republish::{Published, RepublishError, Way, republish};
use crate::retire;
use crate::unseal::{Opened, Unfit, contents, entitle, unseal};

/// Objects that are opened and judged at once; each keeps a processor busy, and holds a decoder.
pub const OPENED_AT_ONCE_MAX: usize = 4;

/// What every journey needs; clones share it.
#[derive(Clone)]
pub struct Parts {
    pub bucket: Bucket,
    pub keys: KeyFolder,
    pub tokens: TokenFile,
    pub way: Way,
    pub pace: Arc<Pace>,
    pub metrics: Metrics,
    /// See [`OPENED_AT_ONCE_MAX`].
    pub opening: Arc<Semaphore>,
    /// Forged objects can come by the thousand.
    pub log: Arc<LogGate>,
    /// How old an object must be before an unknown token or key is held against it.
    pub patience: Duration,
}

/// One object, and whose claim to make.
#[derive(Clone, Debug)]
pub struct Errand {
    pub object: Listed,
    pub claimant: Claimant,
    /// Kafka no longer has what the claim remembers.
    pub publish_again: bool,
}

/// Where a journey ended.
#[derive(Debug)]
pub enum Ended {
    /// In Kafka; consumers have to store it before it may go.
    Awaiting(Listed, Published),
    Quarantined,
    /// Somebody else works on it until then (ms since the Unix epoch).
    Theirs {
        until_ms: i64,
    },
    /// Gone or replaced; the next listing tells.
    Seen,
    Postponed(Postponed),
}

/// Why an object has to wait for another attempt.
#[derive(Debug, thiserror::Error)]
pub enum Postponed {
    #[error(transparent)]
    Bucket(#[from] BucketError),
    #[error(transparent)]
    Republish(#[from] RepublishError),
    #[error(transparent)]
    Quarantine(#[from] QuarantineError),
    #[error("there is no good tokens file")]
    NoTokens,
    /// It is young, and what is missing may still come.
    #[error("not judged yet: {0}")]
    TooYoung(Unfit),
    #[error("a task of this program was ended")]
    Ended,
}

impl Postponed {
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Bucket(_) => "s3",
            Self::Republish(_) => "kafka",
            Self::Quarantine(_) => "quarantine",
            Self::NoTokens => "no-tokens",
            Self::TooYoung(_) => "too-young",
            Self::Ended => "ended",
        }
    }
}

/// Takes one object as far as it comes now.
pub async fn travel(parts: &Parts, errand: &Errand) -> Ended {
    let object = match identify(&parts.bucket, &errand.object).await {
        Ok(object) => object,
        Err(FetchError::Bucket(error)) => return Ended::Postponed(error.into()),
        Err(_) => return Ended::Seen,
    };
    let object = &object;
    let claim = match claim(&parts.bucket, object, &errand.claimant, now_ms()).await {
        Ok(Claimed::Ours(claim)) => claim,
        Ok(Claimed::Theirs { expires_ms, .. }) => return Ended::Theirs { until_ms: expires_ms },
        Err(error) => return Ended::Postponed(error.into()),
    };
    if let Some(places) = claim.published().filter(|_| !errand.publish_again)
        && let Some(published) = Published::remembered(places)
    {
        return Ended::Awaiting(object.clone(), published);
    }
    parts.pace.pass(object.bytes).await;
    let bytes = match fetch(&parts.bucket, object).await {
        Ok(bytes) => bytes,
        Err(FetchError::Seen) => return Ended::Seen,
        Err(FetchError::Bucket(error)) => return Ended::Postponed(error.into()),
        Err(FetchError::TooLarge { bytes }) => {
            return set_aside(parts, object, None, &Unfit::TooLarge { bytes }, 0).await;
        }
    };
    parts.metrics.bytes_fetched.inc_by(bytes.len() as u64);
    match open(parts, object, &bytes).await {
        Ok(Ok(opened)) => deliver(parts, claim, object, &bytes, opened).await,
        Ok(Err(refused)) if refused.unfit.may_heal() && is_young(parts, object) => {
            Ended::Postponed(Postponed::TooYoung(refused.unfit))
        }
        Ok(Err(Refused { unfit, batches, points })) => {
            let ended = set_aside(parts, object, Some(&bytes), &unfit, 0).await;
            if matches!(ended, Ended::Quarantined) {
                parts.metrics.batches_quarantined.inc_by(batches as u64);
                parts.metrics.points_quarantined.inc_by(points as u64);
            }
            ended
        }
        Err(postponed) => Ended::Postponed(postponed),
    }
}

/// A whole object that is not drained, and what it holds, as far as that can be seen.
struct Refused {
    unfit: Unfit,
    batches: usize,
    points: usize,
}

/// Opens and judges on a thread of its own: megabytes of AES and zstd are no work for the reactor.
async fn open(
    parts: &Parts,
    object: &Listed,
    bytes: &Bytes,
) -> Result<Result<Opened, Refused>, Postponed> {
    let tokens = parts.tokens.current().map_err(|_| Postponed::NoTokens)?;
    let arrived = Timestamp::from_millisecond(object.modified_ms).unwrap_or(Timestamp::MIN);
    let (keys, key, bytes) = (parts.keys.clone(), object.key.clone(), bytes.clone());
    let _place = parts.opening.acquire().await.map_err(|_| Postponed::Ended)?;
    let judge = move || {
        let mut plain = unseal(&bytes, &key, &keys.current());
        if let Err(Unfit::UnknownKey(_)) = plain
            && let Ok(keys) = keys.read_again()
        {
            plain = unseal(&bytes, &key, &keys);
        }
        // What can't be opened holds nobody knows what: it is an object in the books, no batch.
        let plain = plain.map_err(|unfit| Refused { unfit, batches: 0, points: 0 })?;
        entitle(&plain, &tokens, arrived).map_err(|unfit| {
            let (batches, points) = contents(&plain);
            Refused { unfit, batches, points }
        })
    };
    outside::blocking(judge).await.map_err(|_| Postponed::Ended)
}

async fn deliver(
    parts: &Parts,
    mut claim: Claim,
    object: &Listed,
    bytes: &Bytes,
    opened: Opened,
) -> Ended {
    #[cfg(feature = "mutants")]
    if crate::mutant::is(crate::mutant::Mutant::DeleteBeforeAck) {
        retire::delete_at_once(&parts.bucket, object).await;
    }
    failpoint::hit("before-publish");
    let done = match republish(&parts.way, &opened).await {
        Ok(done) => done,
        Err(error) => return Ended::Postponed(error.into()),
    };
    failpoint::hit("after-publish");
    let batches = done.published.places().len();
    parts.metrics.batches_drained.inc_by(batches as u64);
    parts.metrics.points_drained.inc_by(done.points);
    let mut faults = opened.faults;
    faults.extend(done.refused);
    if !faults.is_empty() {
        let points: usize = faults.iter().map(|fault| fault.points).sum();
        parts.metrics.batches_quarantined.inc_by(faults.len() as u64);
        parts.metrics.points_quarantined.inc_by(points as u64);
        return set_aside(parts, object, Some(bytes), &Unfit::Frames(faults), batches).await;
    }
    if let Err(error) = claim.note_published(&parts.bucket, done.published.places()).await {
        // Only a restart would miss it, and publish once more.
        parts.metrics.s3_failed(error.operation());
        tracing::debug!(object = %object.key, %error, "the claim does not know of its offsets");
    }
    failpoint::hit("after-claim");
    tracing::debug!(object = %object.key, token = %opened.token_id, batches, "published");
    Ended::Awaiting(object.clone(), done.published)
}

async fn set_aside(
    parts: &Parts,
    object: &Listed,
    bytes: Option<&Bytes>,
    unfit: &Unfit,
    republished: usize,
) -> Ended {
    let verdict = Verdict { unfit, bytes, republished, now_ms: now_ms() };
    let copy = match quarantine(&parts.bucket, object, &verdict).await {
        Ok(copy) => copy,
        Err(QuarantineError::Bucket(BucketError::Missing(_) | BucketError::Changed(_))) => {
            return Ended::Seen;
        }
        Err(error) => return Ended::Postponed(error.into()),
    };
    failpoint::hit("after-quarantine-copy");
    match retire::remove_quarantined(&parts.bucket, copy).await {
        Ok(retire::Retired::Deleted) => {
            parts.metrics.quarantined(unfit.as_str());
            if let Some(held_back) = parts.log.pass() {
                let (object, reason) = (&object.key, unfit.as_str());
                tracing::warn!(%object, reason, %unfit, held_back, "an object was quarantined");
            }
            Ended::Quarantined
        }
        Ok(retire::Retired::WasGone | retire::Retired::Replaced) => Ended::Seen,
        Err(error) => Ended::Postponed(error.into()),
    }
}

fn is_young(parts: &Parts, object: &Listed) -> bool {
    let age_ms = now_ms().saturating_sub(object.modified_ms);
    i128::from(age_ms) < parts.patience.as_millis() as i128
}

/// Now, in ms since the Unix epoch.
#[must_use]
pub fn now_ms() -> i64 {
    outside::wall_ms()
}
