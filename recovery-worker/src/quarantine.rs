//! What can't be opened, or whose sender is not entitled, set aside with its reason:
//! `quarantine/<name>` holds the bytes, `quarantine/<name>.json` why they are there.
//!
//! The bytes are never deleted: copied first, read back, and only then removed from `spill/` (by
//! `retire.rs`). An operator who mends the cause puts them back with `spillway spill replay`.

use bytes::Bytes;
use serde::Serialize;
use spillway_proto::object_key::ObjectKey;

use crate::bucket::{Bucket, Condition, Listed};
use crate::bucket_error::BucketError;
use crate::unseal::{FrameFault, Unfit};

/// Where quarantined objects lie; agents can't write there.
pub const QUARANTINE_PREFIX: &str = "quarantine/";
/// Frames whose faults are written out; the others are counted.
const FAULTS_TOLD_MAX: usize = 20;

/// That an object's bytes lie in quarantine, as read back from there.
#[derive(Debug)]
pub struct QuarantinedCopy {
    original: Listed,
}

impl QuarantinedCopy {
    pub(crate) fn into_original(self) -> Listed {
        self.original
    }
}

/// Why an object is not in quarantine yet. It still is where it was.
#[derive(Debug, thiserror::Error)]
pub enum QuarantineError {
    #[error(transparent)]
    Bucket(#[from] BucketError),
    /// What was judged is not what S3 holds: the way here garbled it.
    #[error("the copy in quarantine is not what was read")]
    CopyDiffers,
}

/// The reason's file.
#[derive(Serialize)]
struct Reason<'a> {
    object: &'a str,
    reason: &'static str,
    detail: String,
    frames: Vec<String>,
    frames_not_told: usize,
    republished_batches: usize,
    bytes: u64,
    etag: &'a str,
    last_modified_ms: i64,
    quarantined_ms: i64,
}

/// What was judged, and how.
#[derive(Debug)]
pub struct Verdict<'a> {
    pub unfit: &'a Unfit,
    /// The judged bytes; `None` if the listing alone was enough.
    pub bytes: Option<&'a Bytes>,
    /// Batches of the object that are in Kafka all the same.
    pub republished: usize,
    pub now_ms: i64,
}

/// Where an object's bytes go.
#[must_use]
pub fn quarantine_key(key: &ObjectKey) -> String {
    format!("{QUARANTINE_PREFIX}{}", key.name())
}

/// Copies, reads back, and writes the reason beside the copy.
pub async fn quarantine(
    bucket: &Bucket,
    object: &Listed,
    verdict: &Verdict<'_>,
) -> Result<QuarantinedCopy, QuarantineError> {
    let to = quarantine_key(&object.key);
    bucket.copy(object.key.as_str(), &object.etag, &to).await?;
    let same = match verdict.bytes {
        Some(bytes) => {
            let (copy, _) = bucket.get(&to, None, bytes.len() as u64).await?;
            copy == *bytes
        }
        None => bucket.head(&to).await?.is_some_and(|head| head.bytes == object.bytes),
    };
    if !same {
        return Err(QuarantineError::CopyDiffers);
    }
    let reason = serde_json::to_vec_pretty(&reason(object, verdict)).unwrap_or_default();
    bucket.put(&format!("{to}.json"), Bytes::from(reason), Condition::Always).await?;
    Ok(QuarantinedCopy { original: object.clone() })
}

fn reason<'a>(object: &'a Listed, verdict: &Verdict<'_>) -> Reason<'a> {
    let faults: &[FrameFault] = match verdict.unfit {
        Unfit::Frames(faults) => faults,
        _ => &[],
    };
    Reason {
        object: object.key.as_str(),
        reason: verdict.unfit.as_str(),
        detail: verdict.unfit.to_string(),
        frames: faults.iter().take(FAULTS_TOLD_MAX).map(FrameFault::to_string).collect(),
        frames_not_told: faults.len().saturating_sub(FAULTS_TOLD_MAX),
        republished_batches: verdict.republished,
        bytes: object.bytes,
        etag: &object.etag,
        last_modified_ms: object.modified_ms,
        quarantined_ms: verdict.now_ms,
    }
}
