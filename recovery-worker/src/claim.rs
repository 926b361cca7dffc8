//! Who is at work on an object, kept in the bucket beside it (`claims/<name>`), so that several
//! workers share one prefix and a restart knows what was already published.
//!
//! A claim saves work; nothing rests on it. When two workers hold one (clocks differ, a service
//! ignores conditions), the object is published twice and counted once, and it is deleted only
//! when each deleter has its own proof.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use spillway_proto::object_key::ObjectKey;
use std::time::Duration;

use crate::bucket::{Bucket, Condition, Listed};
use crate::bucket_error::BucketError;
use crate::republish::Place;

/// Where claims lie; agents can't write there.
pub const CLAIM_PREFIX: &str = "claims/";
/// A claim names at most 256 places of some 40 bytes each.
const CLAIM_BYTES_MAX: u64 = 64 * 1024;

/// A claim as it is stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Stored {
    owner: String,
    /// Milliseconds since the Unix epoch.
    expires_ms: i64,
    /// Which content of the object this is about.
    etag: String,
    /// The Kafka cluster that the offsets belong to.
    #[serde(default)]
    cluster: Option<String>,
    /// Where each batch of the object went, or `None` before all of them arrived.
    #[serde(default)]
    published: Option<Vec<Place>>,
}

/// An object that is ours to work on, until the claim expires.
#[derive(Debug)]
pub struct Claim {
    key: ObjectKey,
    stored: Stored,
    /// The claim's own etag, for conditional writes.
    own_etag: String,
}

/// Whose the object is now.
#[derive(Debug)]
pub enum Claimed {
    Ours(Claim),
    /// Somebody else's, until then (ms since the Unix epoch).
    Theirs {
        owner: String,
        expires_ms: i64,
    },
}

/// Who claims, and for how long.
#[derive(Clone, Debug)]
pub struct Claimant {
    pub owner: String,
    pub life: Duration,
    /// The Kafka cluster in use, if known.
    pub cluster: Option<String>,
}

/// The claim's key.
#[must_use]
pub fn claim_key(key: &ObjectKey) -> String {
    format!("{CLAIM_PREFIX}{}", key.name())
}

/// Takes the claim if nobody else holds it.
pub async fn claim(
    bucket: &Bucket,
    object: &Listed,
    claimant: &Claimant,
    now_ms: i64,
) -> Result<Claimed, BucketError> {
    let path = claim_key(&object.key);
    let found = match bucket.get(&path, None, CLAIM_BYTES_MAX).await {
        Ok((bytes, etag)) => Some((serde_json::from_slice::<Stored>(&bytes).ok(), etag)),
        Err(BucketError::Missing(_)) => None,
        // Nothing of ours is that long: it is overwritten like any claim that can't be read.
        Err(BucketError::TooLong { .. }) => Some((None, String::new())),
        // All of it, and not what its checksum says: damaged, and nothing rests on it.
        Err(BucketError::CutOff { got, expected, .. }) if got == expected => {
            Some((None, String::new()))
        }
        Err(error) => return Err(error),
    };
    let held = found.as_ref().and_then(|(stored, _)| stored.as_ref());
    if let Some(stored) = held
        && stored.owner != claimant.owner
        && stored.expires_ms > now_ms
    {
        let (owner, expires_ms) = (stored.owner.clone(), stored.expires_ms);
        return Ok(Claimed::Theirs { owner, expires_ms });
    }
    let published = held
        .filter(|stored| stored.etag == object.etag)
        .filter(|stored| stored.cluster.is_some() && stored.cluster == claimant.cluster)
        .and_then(|stored| stored.published.clone());
    let stored = Stored {
        owner: claimant.owner.clone(),
        expires_ms: now_ms.saturating_add(millis(claimant.life)),
        etag: object.etag.clone(),
        cluster: claimant.cluster.clone(),
        published,
    };
    let condition = match &found {
        None => Condition::Absent,
        Some((_, etag)) if etag.is_empty() => Condition::Always,
        Some((_, etag)) => Condition::Unchanged(etag),
    };
    let key = object.key.clone();
    match write(bucket, &path, &stored, condition).await {
        Ok(own_etag) => Ok(Claimed::Ours(Claim { key, stored, own_etag })),
        // Somebody was faster. Who it was is seen at the next look.
        Err(BucketError::Changed(_)) => {
            let owner = "another worker".to_owned();
            Ok(Claimed::Theirs { owner, expires_ms: now_ms })
        }
        Err(error) => Err(error),
    }
}

impl Claim {
    #[must_use]
    pub fn key(&self) -> &ObjectKey {
        &self.key
    }

    /// Where an earlier life of ours, or another worker, has already published this very content
    /// on this very cluster.
    #[must_use]
    pub fn published(&self) -> Option<&[Place]> {
        self.stored.published.as_deref()
    }

    /// Remembers in the bucket that all of the object is in Kafka.
    pub async fn note_published(
        &mut self,
        bucket: &Bucket,
        places: &[Place],
    ) -> Result<(), BucketError> {
        self.stored.published = Some(places.to_vec());
        let path = claim_key(&self.key);
        let condition = Condition::Unchanged(&self.own_etag);
        self.own_etag = write(bucket, &path, &self.stored, condition).await?;
        Ok(())
    }
}

async fn write(
    bucket: &Bucket,
    path: &str,
    stored: &Stored,
    condition: Condition<'_>,
) -> Result<String, BucketError> {
    // A struct of strings and numbers always has a JSON form.
    let body = serde_json::to_vec(stored).unwrap_or_default();
    match bucket.put(path, Bytes::from(body.clone()), condition).await {
        // A service that knows no conditional writes: a claim is worth having without one.
        Err(BucketError::Answer { status: 501, .. }) => {
            bucket.put(path, Bytes::from(body), Condition::Always).await
        }
        outcome => outcome,
    }
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
