//! The bucket as far as this program may touch it: list, read, write and copy, each with a
//! deadline and a bound on what is read. It can't delete: that is `retire.rs`.
//!
//! What S3 answers is sorted in `bucket_error.rs`; S3 itself is `bucket/s3.rs`, behind a trait, so
//! that a simulation can stand there.

use std::fmt::Debug;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use spillway_proto::object_key::{ObjectKey, SPILL_PREFIX};
use spillway_runtime::settings::SecretFileError;

use crate::bucket_error::BucketError;
use crate::retire::Deletion;
use crate::settings::S3Settings;

mod s3;

/// A store of objects: S3, or what stands for it.
#[async_trait]
pub trait Objects: Debug + Send + Sync {
    /// One page of what is under a prefix, in the store's own order.
    async fn list(&self, prefix: &str, after: Option<String>) -> Result<Listing, BucketError>;

    /// `None` if there is no such object.
    async fn head(&self, key: &str) -> Result<Option<Head>, BucketError>;

    /// Reads a whole object of at most `bytes_max` bytes; with `etag`, only that very content.
    async fn get(
        &self,
        key: &str,
        etag: Option<&str>,
        bytes_max: u64,
    ) -> Result<(Bytes, String), BucketError>;

    /// Writes a whole object; gives its etag.
    async fn put(
        &self,
        key: &str,
        body: Bytes,
        condition: Condition<'_>,
    ) -> Result<String, BucketError>;

    /// Copies an object within the bucket, without reading it, if it still is that very content.
    async fn copy(&self, from: &str, etag: &str, to: &str) -> Result<(), BucketError>;

    /// Only `retire.rs` can ask for it.
    async fn delete(&self, deletion: Deletion<'_>) -> Result<(), BucketError>;
}

/// One page of names, as a store lists them.
#[derive(Clone, Debug, Default)]
pub struct Listing {
    pub entries: Vec<Entry>,
    pub next: Option<String>,
}

/// A key in a listing. What the store left out is empty, or `None`.
#[derive(Clone, Debug)]
pub struct Entry {
    pub key: String,
    pub etag: String,
    pub bytes: u64,
    pub modified_ms: Option<i64>,
}

/// The bucket, shared by all stages.
#[derive(Clone, Debug)]
pub struct Bucket {
    objects: Arc<dyn Objects>,
}

/// An object as a listing shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    pub key: ObjectKey,
    /// Tells this content from any other under the same key. Some services leave it out of
    /// listings: empty until `fetch::identify` has asked for it.
    pub etag: String,
    pub bytes: u64,
    /// When S3 took it, by S3's own clock, in ms since the Unix epoch.
    pub modified_ms: i64,
}

impl Listed {
    /// Whether two looks at the same key may have seen the same content.
    #[must_use]
    pub fn may_be(&self, other: &Self) -> bool {
        let etags_differ =
            !self.etag.is_empty() && !other.etag.is_empty() && self.etag != other.etag;
        self.key == other.key
            && self.bytes == other.bytes
            && self.modified_ms == other.modified_ms
            && !etags_differ
    }
}

/// One page of a listing.
#[derive(Debug, Default)]
pub struct Page {
    pub objects: Vec<Listed>,
    /// Keys under the prefix that no agent makes.
    pub foreign: u64,
    pub next: Option<String>,
}

/// What a key holds, without its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    pub etag: String,
    pub bytes: u64,
}

/// When a write may happen.
#[derive(Clone, Copy, Debug)]
pub enum Condition<'a> {
    Always,
    /// Only if the key does not exist.
    Absent,
    /// Only if the key still holds this content.
    Unchanged(&'a str),
}

impl Bucket {
    /// Connects to nothing yet.
    ///
    /// # Errors
    /// When the secret's file can't be read.
    pub fn new(settings: &S3Settings) -> Result<Self, SecretFileError> {
        Ok(Self::of(Arc::new(s3::S3::new(settings)?)))
    }

    /// The bucket that is this store.
    #[must_use]
    pub fn of(objects: Arc<dyn Objects>) -> Self {
        Self { objects }
    }

    /// The store itself, for the one stage that may delete.
    pub(crate) fn objects(&self) -> &dyn Objects {
        &*self.objects
    }

    /// One page of everything under [`SPILL_PREFIX`], in S3's own order.
    pub async fn list_spill(&self, after: Option<String>) -> Result<Page, BucketError> {
        let listing = self.objects.list(SPILL_PREFIX, after).await?;
        let mut page = Page { next: listing.next, ..Page::default() };
        for entry in listing.entries {
            match listed(entry) {
                Some(object) => page.objects.push(object),
                None => page.foreign += 1,
            }
        }
        Ok(page)
    }

    /// One page of the names under a prefix, and where the next one begins.
    pub async fn list_names(
        &self,
        prefix: &str,
        after: Option<String>,
    ) -> Result<(Vec<String>, Option<String>), BucketError> {
        let listing = self.objects.list(prefix, after).await?;
        let keys = listing.entries.iter();
        let names = keys.filter_map(|entry| entry.key.strip_prefix(prefix)).map(str::to_owned);
        Ok((names.collect(), listing.next))
    }

    /// See [`Objects::head`].
    pub async fn head(&self, key: &str) -> Result<Option<Head>, BucketError> {
        self.objects.head(key).await
    }

    /// See [`Objects::get`].
    pub async fn get(
        &self,
        key: &str,
        etag: Option<&str>,
        bytes_max: u64,
    ) -> Result<(Bytes, String), BucketError> {
        self.objects.get(key, etag, bytes_max).await
    }

    /// See [`Objects::put`].
    pub async fn put(
        &self,
        key: &str,
        body: Bytes,
        condition: Condition<'_>,
    ) -> Result<String, BucketError> {
        self.objects.put(key, body, condition).await
    }

    /// See [`Objects::copy`].
    pub async fn copy(&self, from: &str, etag: &str, to: &str) -> Result<(), BucketError> {
        self.objects.copy(from, etag, to).await
    }
}

fn listed(entry: Entry) -> Option<Listed> {
    let key = ObjectKey::parse(&entry.key)?;
    Some(Listed { key, etag: entry.etag, bytes: entry.bytes, modified_ms: entry.modified_ms? })
}
