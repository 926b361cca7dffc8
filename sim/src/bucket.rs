//! S3 as agents and workers see it: a map with what such a service does on bad days.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use hpke::Deserializable as _;
use hpke::kem::X25519HkdfSha256;
use hpke::{Kem, Serializable as _};
use spillway_proto::BatchId;
use spillway_proto::frame::{self, Header};
use spillway_proto::object_key::{ObjectKey, SPILL_PREFIX};
use spillway_proto::sealed_object::Payload;
use spillway_recovery_worker::bucket::{Condition, Entry, Head, Listing, Objects};
use spillway_recovery_worker::bucket_error::{BucketError, NoAnswer, Operation};
use spillway_recovery_worker::private_keys::PrivateKeys;
use spillway_recovery_worker::retire::Deletion;
use spillway_recovery_worker::unseal::unseal;
use spillway_runtime::outside;
use tokio::time::Instant;

use crate::chance;
use crate::weather::Fault;
use crate::world::World;

type PrivateKey = <X25519HkdfSha256 as Kem>::PrivateKey;

/// Names of one page, so that listings have several.
const PAGE: usize = 5;

/// The bucket.
pub struct Bucket {
    world: Arc<World>,
    objects: Mutex<BTreeMap<String, Object>>,
    key: Option<PrivateKey>,
}

impl fmt::Debug for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bucket").finish_non_exhaustive()
    }
}

#[derive(Clone, Debug)]
struct Object {
    bytes: Bytes,
    etag: String,
    modified_ms: i64,
    listed_from: Instant,
}

/// What S3 says to a PUT of an agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answered {
    Stored,
    Status(u16),
    /// Nothing, ever.
    Silence,
}

impl Bucket {
    #[must_use]
    pub fn new(world: &Arc<World>) -> Arc<Self> {
        let key = PrivateKey::from_bytes(&[7; 32]).ok();
        Arc::new(Self { world: Arc::clone(world), objects: Mutex::default(), key })
    }

    /// The worker's key, and its public half as agents are told it.
    #[must_use]
    pub fn keys(&self) -> (PrivateKeys, String) {
        let mut keys = PrivateKeys::default();
        let mut public = String::new();
        if let Some(key) = &self.key {
            let bytes = X25519HkdfSha256::sk_to_pk(key).to_bytes();
            public = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            keys.add(key.clone());
        }
        (keys, public)
    }

    fn objects(&self) -> MutexGuard<'_, BTreeMap<String, Object>> {
        self.objects.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Objects under a prefix.
    #[must_use]
    pub fn count(&self, prefix: &str) -> usize {
        self.objects().keys().filter(|key| key.starts_with(prefix)).count()
    }

    /// Batches in quarantine.
    #[must_use]
    pub fn quarantined(&self) -> Vec<BatchId> {
        let keys = self.keys().0;
        let objects = self.objects();
        let copies = objects.iter().filter_map(|(key, object)| {
            let name = key.strip_prefix("quarantine/")?;
            let original = ObjectKey::parse(&format!("{SPILL_PREFIX}{name}"))?;
            unseal(&object.bytes, &original, &keys).ok()
        });
        copies.flat_map(|plain| headers(&plain)).map(|header| header.id).collect()
    }

    /// A PUT of an agent's.
    pub async fn agent_puts(&self, key: &str, bytes: Bytes) -> Answered {
        let weather = &self.world.weather;
        tokio::time::sleep(chance::ms(2, 60)).await;
        if weather.strikes(Fault::S3Denied) {
            return Answered::Status(403);
        }
        if weather.strikes(Fault::S3SlowDown) {
            return Answered::Status(503);
        }
        if weather.strikes(Fault::S3Lost) {
            return Answered::Silence;
        }
        self.store(key, bytes);
        match weather.strikes(Fault::S3AnswerLost) {
            true => Answered::Silence,
            false => Answered::Stored,
        }
    }

    fn store(&self, key: &str, bytes: Bytes) -> String {
        let late = self.world.weather.strikes(Fault::S3ListsLate);
        let delay = if late { chance::ms(500, 10_000) } else { chance::ms(0, 1) };
        // Equal bytes have equal etags, as MD5 has it.
        let etag = format!("{:016x}", xxhash_rust::xxh3::xxh3_64(&bytes));
        // Ciphertext is never the same twice: it must not get into the history.
        let size = bytes.len();
        crate::note!(self.world.history, "bucket: {key} of {size} bytes");
        let object = Object {
            bytes,
            etag: etag.clone(),
            modified_ms: outside::wall_ms(),
            listed_from: Instant::now() + delay,
        };
        self.objects().insert(key.to_owned(), object);
        etag
    }

    /// What may strike before and after an operation takes effect.
    async fn before(&self, operation: Operation) -> Result<(), BucketError> {
        let weather = &self.world.weather;
        tokio::time::sleep(chance::ms(2, 60)).await;
        let code = String::new;
        if weather.strikes(Fault::S3Denied) {
            return Err(BucketError::Denied { operation, status: 403, code: code() });
        }
        if weather.strikes(Fault::S3SlowDown) {
            return Err(BucketError::Answer { operation, status: 503, code: code() });
        }
        if weather.strikes(Fault::S3Lost) {
            return Err(silence(operation).await);
        }
        Ok(())
    }

    async fn after(&self, operation: Operation) -> Result<(), BucketError> {
        match self.world.weather.strikes(Fault::S3AnswerLost) {
            true => Err(silence(operation).await),
            false => Ok(()),
        }
    }

    fn precondition(&self, operation: Operation) -> Result<(), BucketError> {
        match self.world.weather.strikes(Fault::S3Precondition) {
            true => Err(BucketError::Changed(operation)),
            false => Ok(()),
        }
    }

    /// An object goes: everything in it must have been applied, or lie in quarantine.
    fn judge_deletion(&self, key: &str) {
        let Some(name) = ObjectKey::parse(key) else { return };
        let objects = self.objects();
        let Some(object) = objects.get(key).cloned() else { return };
        let copy = objects.get(&format!("quarantine/{}", name.name())).cloned();
        drop(objects);
        if copy.is_some_and(|copy| copy.bytes == object.bytes) {
            crate::note!(self.world.history, "bucket: {key} went to quarantine");
            return;
        }
        let plain = unseal(&object.bytes, &name, &self.keys().0);
        let Ok(plain) = plain else {
            return self.world.violate(format!("{key} was deleted though nobody can open it"));
        };
        for header in headers(&plain) {
            if !self.world.oracle().is_applied(&header.id) {
                let what = format!("{key} was deleted before {} was applied", header.id);
                self.world.violate(what);
            }
        }
        crate::note!(self.world.history, "bucket: {key} deleted");
    }
}

/// Of the frames in an opened object.
fn headers(plain: &Bytes) -> Vec<Header> {
    let frames = Payload::parse(plain).map(|payload| plain.slice_ref(payload.frames));
    let frames = frames.iter().flat_map(frame::split);
    frames.filter_map(|frame| Header::parse(&frame.ok()?).ok()).collect()
}

async fn silence(operation: Operation) -> BucketError {
    tokio::time::sleep(chance::ms(1_000, 5_000)).await;
    BucketError::Unreachable { operation, cause: NoAnswer::TimedOut }
}

#[async_trait]
impl Objects for Bucket {
    async fn list(&self, prefix: &str, after: Option<String>) -> Result<Listing, BucketError> {
        self.before(Operation::List).await?;
        let now = Instant::now();
        let objects = self.objects();
        let listed = objects.iter().filter(|(key, object)| {
            key.starts_with(prefix)
                && object.listed_from <= now
                && after.as_ref().is_none_or(|after| *key > after)
        });
        let mut entries: Vec<Entry> = listed
            .take(PAGE + 1)
            .map(|(key, object)| Entry {
                key: key.clone(),
                etag: object.etag.clone(),
                bytes: object.bytes.len() as u64,
                modified_ms: Some(object.modified_ms),
            })
            .collect();
        let more = entries.len() > PAGE;
        entries.truncate(PAGE);
        let next = entries.last().filter(|_| more).map(|entry| entry.key.clone());
        Ok(Listing { entries, next })
    }

    async fn head(&self, key: &str) -> Result<Option<Head>, BucketError> {
        self.before(Operation::Head).await?;
        let head =
            |object: &Object| Head { etag: object.etag.clone(), bytes: object.bytes.len() as u64 };
        Ok(self.objects().get(key).map(head))
    }

    async fn get(
        &self,
        key: &str,
        etag: Option<&str>,
        bytes_max: u64,
    ) -> Result<(Bytes, String), BucketError> {
        let operation = Operation::Get;
        self.before(operation).await?;
        let object = self.objects().get(key).cloned();
        let Some(object) = object else { return Err(BucketError::Missing(operation)) };
        if etag.is_some_and(|etag| etag != object.etag) {
            return Err(BucketError::Changed(operation));
        }
        self.precondition(operation)?;
        let expected = object.bytes.len() as u64;
        if expected > bytes_max {
            return Err(BucketError::TooLong { operation, max: bytes_max });
        }
        if self.world.weather.strikes(Fault::S3Truncated) {
            let got = chance::below(expected);
            return Err(BucketError::CutOff { operation, got, expected });
        }
        if self.world.weather.strikes(Fault::S3Garbled) {
            let mut bytes = object.bytes.to_vec();
            let at = usize::try_from(chance::below(expected)).unwrap_or_default();
            bytes.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= 1);
            return Ok((bytes.into(), object.etag));
        }
        Ok((object.bytes, object.etag))
    }

    async fn put(
        &self,
        key: &str,
        body: Bytes,
        condition: Condition<'_>,
    ) -> Result<String, BucketError> {
        let operation = Operation::Put;
        self.before(operation).await?;
        let there = self.objects().get(key).map(|object| object.etag.clone());
        let holds = match condition {
            Condition::Always => true,
            Condition::Absent => there.is_none(),
            Condition::Unchanged(etag) => there.is_some_and(|there| there == etag),
        };
        if !holds {
            return Err(BucketError::Changed(operation));
        }
        self.precondition(operation)?;
        let etag = self.store(key, body);
        self.after(operation).await?;
        Ok(etag)
    }

    async fn copy(&self, from: &str, etag: &str, to: &str) -> Result<(), BucketError> {
        let operation = Operation::Copy;
        self.before(operation).await?;
        let object = self.objects().get(from).cloned();
        let Some(object) = object else { return Err(BucketError::Missing(operation)) };
        if object.etag != etag {
            return Err(BucketError::Changed(operation));
        }
        self.store(to, object.bytes);
        self.after(operation).await
    }

    async fn delete(&self, deletion: Deletion<'_>) -> Result<(), BucketError> {
        self.before(Operation::Delete).await?;
        if deletion.key().starts_with(SPILL_PREFIX) {
            self.judge_deletion(deletion.key());
        }
        self.objects().remove(deletion.key());
        self.after(Operation::Delete).await
    }
}
