//! The only place where objects are deleted.
//!
//! An object is deleted when its content is where it belongs, and for no other reason:
//! - a drained one with a [`RetireProof`]: every batch has an offset in Kafka, consumers have
//!   committed past each of them (they do so after MySQL's COMMIT), and the hold time is over;
//! - a quarantined one with a [`QuarantinedCopy`]: the same bytes lie in quarantine, read back.
//!
//! Both name the content (etag) they are about: what replaced it meanwhile is left alone.

use std::time::{Duration, Instant};

use spillway_proto::object_key::ObjectKey;

use crate::bucket::{Bucket, BucketError, Listed, Operation};
use crate::claim::claim_key;
use crate::failpoint;
use crate::progress::{GroupProgress, Passed};
use crate::quarantine::QuarantinedCopy;
use crate::republish::Published;

/// That this very content of this object is stored beyond it. Made of the three facts and of
/// nothing else; [`delete`] takes it.
#[derive(Debug)]
pub struct RetireProof {
    key: ObjectKey,
    etag: String,
}

/// Why there is no proof.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unproven {
    /// Published less long ago than the hold time.
    Held,
    /// Consumers have not yet stored all of it.
    NotStored,
    /// Kafka no longer has what it acknowledged: the object has to be published again.
    GoneFromKafka,
}

impl RetireProof {
    /// The line where an object may be deleted.
    pub fn establish(
        object: &Listed,
        published: &Published,
        progress: &GroupProgress,
        hold: Duration,
        now: Instant,
    ) -> Result<Self, Unproven> {
        let passed: Vec<Passed> =
            published.places().iter().map(|place| progress.passed(place)).collect();
        if passed.contains(&Passed::LogEndsBefore) {
            return Err(Unproven::GoneFromKafka);
        }
        if passed.contains(&Passed::NotYet) {
            return Err(Unproven::NotStored);
        }
        if now.saturating_duration_since(published.since()) < hold {
            return Err(Unproven::Held);
        }
        Ok(Self { key: object.key.clone(), etag: object.etag.clone() })
    }

    #[must_use]
    pub fn key(&self) -> &ObjectKey {
        &self.key
    }
}

/// What became of an object that could go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retired {
    Deleted,
    /// Another worker was faster.
    WasGone,
    /// The key holds another content now, which nobody has proven anything about.
    Replaced,
}

/// Deletes a drained object, then its claim. Proven once is proven for ever, so a failure in
/// between is mended by doing it again.
pub async fn delete(bucket: &Bucket, proof: &RetireProof) -> Result<Retired, BucketError> {
    failpoint::hit("before-retire");
    let retired = delete_content(bucket, &proof.key, &proof.etag).await?;
    failpoint::hit("between-object-and-claim");
    if retired != Retired::Replaced {
        delete_key(bucket, &claim_key(&proof.key)).await?;
    }
    Ok(retired)
}

/// Removes an object whose bytes lie in quarantine, then its claim.
pub async fn remove_quarantined(
    bucket: &Bucket,
    copy: QuarantinedCopy,
) -> Result<Retired, BucketError> {
    let original = copy.into_original();
    let retired = delete_content(bucket, &original.key, &original.etag).await?;
    if retired != Retired::Replaced {
        delete_key(bucket, &claim_key(&original.key)).await?;
    }
    Ok(retired)
}

async fn delete_content(
    bucket: &Bucket,
    key: &ObjectKey,
    etag: &str,
) -> Result<Retired, BucketError> {
    // Names are random and never reused, so nobody honest writes between this look and the
    // deletion; conditional deletes are not to be had from every service.
    match bucket.head(key.as_str()).await? {
        None => Ok(Retired::WasGone),
        Some(head) if head.etag != etag => Ok(Retired::Replaced),
        Some(_) => {
            delete_key(bucket, key.as_str()).await?;
            Ok(Retired::Deleted)
        }
    }
}

async fn delete_key(bucket: &Bucket, key: &str) -> Result<(), BucketError> {
    let request = bucket.client().delete_object().bucket(bucket.name()).key(key);
    match request.send().await.map_err(|error| BucketError::of(Operation::Delete, &error)) {
        Ok(_) | Err(BucketError::Missing(_)) => Ok(()),
        Err(error) => Err(error),
    }
}
