//! The only place where objects are deleted.
//!
//! An object is deleted when its content is where it belongs, and for no other reason:
//! - a drained one with a [`RetireProof`]: every batch has an offset in Kafka, consumers have
//!   committed past each of them (they do so after MySQL's COMMIT), and the hold time is over;
//! - a quarantined one with a [`QuarantinedCopy`]: the same bytes lie in quarantine, read back.
//!
//! Both name the content (etag) they are about: what replaced it meanwhile is left alone.

use std::time::Duration;

use aws_sdk_s3::Client;
use spillway_proto::object_key::{ObjectKey, SPILL_PREFIX};
use tokio::time::Instant;

use crate::bucket::{Bucket, Listed};
use crate::bucket_error::{BucketError, Operation};
use crate::claim::{CLAIM_PREFIX, claim_key};
use crate::failpoint;
use crate::mutant::{Mutant, is};
use crate::progress::{GroupProgress, Passed};
use crate::quarantine::QuarantinedCopy;
use crate::republish::Published;

/// Pages of claims, 1,000 each, that one sweep looks at.
const SWEPT_PAGES_MAX: usize = 100;

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
        if is(Mutant::RetireWithoutOffset) {
            return Ok(Self { key: object.key.clone(), etag: object.etag.clone() });
        }
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

/// Deletes a drained object, then its claim.
pub async fn delete(bucket: &Bucket, proof: &RetireProof) -> Result<Retired, BucketError> {
    failpoint::hit("before-retire");
    let retired = delete_content(bucket, &proof.key, &proof.etag).await?;
    failpoint::hit("between-object-and-claim");
    delete_claim(bucket, &proof.key, retired).await;
    Ok(retired)
}

/// What the mutant does that deletes before Kafka has anything.
#[cfg(feature = "mutants")]
pub async fn delete_at_once(bucket: &Bucket, object: &Listed) {
    let deleted = delete_content(bucket, &object.key, &object.etag).await;
    tracing::warn!(object = %object.key, ?deleted, "mutant");
}

/// Removes an object whose bytes lie in quarantine, then its claim.
pub async fn remove_quarantined(
    bucket: &Bucket,
    copy: QuarantinedCopy,
) -> Result<Retired, BucketError> {
    let original = copy.into_original();
    let retired = delete_content(bucket, &original.key, &original.etag).await?;
    delete_claim(bucket, &original.key, retired).await;
    Ok(retired)
}

/// Deletes claims whose object is gone: a crash or a failed request left them. Returns how many.
pub async fn sweep_claims(bucket: &Bucket) -> Result<u64, BucketError> {
    let (mut swept, mut after) = (0, None);
    for _ in 0..SWEPT_PAGES_MAX {
        let (names, next) = bucket.list_names(CLAIM_PREFIX, after).await?;
        for name in names {
            let Some(key) = ObjectKey::parse(&format!("{SPILL_PREFIX}{name}")) else { continue };
            // A claim is made after its object was seen, so what is gone now does not come back.
            if bucket.head(key.as_str()).await?.is_none() {
                delete_key(bucket, &claim_key(&key)).await?;
                swept += 1;
            }
        }
        after = next;
        if after.is_none() {
            break;
        }
    }
    Ok(swept)
}

/// A claim that stays behind harms nobody; the next sweep takes it.
async fn delete_claim(bucket: &Bucket, key: &ObjectKey, retired: Retired) {
    if retired == Retired::Replaced {
        return;
    }
    if let Err(error) = delete_key(bucket, &claim_key(key)).await {
        tracing::debug!(object = %key, %error, "a claim stays behind");
    }
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
    match bucket.objects().delete(Deletion { key }).await {
        Ok(()) | Err(BucketError::Missing(_)) => Ok(()),
        Err(error) => Err(error),
    }
}

/// The order to delete a key. Nobody else can give one.
#[derive(Debug)]
pub struct Deletion<'a> {
    key: &'a str,
}

impl Deletion<'_> {
    #[must_use]
    pub fn key(&self) -> &str {
        self.key
    }
}

/// Deletes in S3 itself.
pub(crate) async fn carry_out(
    client: &Client,
    bucket: &str,
    deletion: Deletion<'_>,
) -> Result<(), BucketError> {
    let request = client.delete_object().bucket(bucket).key(deletion.key);
    request.send().await.map_err(|error| BucketError::of(Operation::Delete, &error))?;
    Ok(())
}
