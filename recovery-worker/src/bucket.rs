//! The bucket as far as this program may touch it: list, read, write and copy, each with a
//! deadline and a bound on what is read. It can't delete: that is `retire.rs`.
//!
//! What S3 answers is sorted in `bucket_error.rs`.

use std::time::Duration;

use aws_credential_types::Credentials;
use aws_sdk_s3::Client;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::config::{
    BehaviorVersion, Config, Region, RequestChecksumCalculation, ResponseChecksumValidation,
    StalledStreamProtectionConfig,
};
use aws_sdk_s3::operation::list_objects_v2::ListObjectsV2Output;
use aws_sdk_s3::primitives::{ByteStream, DateTime};
use bytes::{Bytes, BytesMut};
use spillway_proto::object_key::{ObjectKey, SPILL_PREFIX};
use spillway_runtime::deadline;
use spillway_runtime::settings::SecretFileError;

use crate::bucket_error::{BucketError, Operation};
use crate::settings::{Checksum, S3Settings};

/// A slow uplink may pause this long in the middle of a body before it is given up.
const STALL_GRACE: Duration = Duration::from_secs(20);

/// The bucket, shared by all stages.
#[derive(Clone, Debug)]
pub struct Bucket {
    client: Client,
    name: String,
    operation_timeout: Duration,
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
        let secret = settings.secret_key.resolve(settings.secret_key_file.as_deref())?;
        let credentials =
            Credentials::new(&settings.access_key, secret.reveal(), None, None, "settings");
        let timeouts = TimeoutConfig::builder()
            .connect_timeout(settings.connect_timeout.get())
            .operation_attempt_timeout(settings.attempt_timeout.get())
            .operation_timeout(settings.operation_timeout.get())
            .build();
        let stalls = StalledStreamProtectionConfig::enabled().grace_period(STALL_GRACE).build();
        let mut config = Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new(settings.region.clone()))
            .credentials_provider(credentials)
            .force_path_style(settings.force_path_style)
            .retry_config(RetryConfig::standard().with_max_attempts(settings.attempts))
            .timeout_config(timeouts)
            .stalled_stream_protection(stalls);
        if settings.checksum == Checksum::None {
            config = config
                .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
                .response_checksum_validation(ResponseChecksumValidation::WhenRequired);
        }
        if !settings.endpoint.is_empty() {
            config = config.endpoint_url(&settings.endpoint);
        }
        Ok(Self {
            client: Client::from_conf(config.build()),
            name: settings.bucket.clone(),
            operation_timeout: settings.operation_timeout.get(),
        })
    }

    /// The client itself, for the one stage that may delete.
    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// One page of everything under [`SPILL_PREFIX`], in S3's own order.
    pub async fn list_spill(&self, after: Option<String>) -> Result<Page, BucketError> {
        let answer = self.list(SPILL_PREFIX, after).await?;
        let mut page = Page { next: next_page(&answer), ..Page::default() };
        for object in answer.contents() {
            match listed(object) {
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
        let answer = self.list(prefix, after).await?;
        let keys = answer.contents().iter().filter_map(|object| object.key());
        let names = keys.filter_map(|key| key.strip_prefix(prefix)).map(str::to_owned);
        Ok((names.collect(), next_page(&answer)))
    }

    async fn list(
        &self,
        prefix: &str,
        after: Option<String>,
    ) -> Result<ListObjectsV2Output, BucketError> {
        let request = self.client.list_objects_v2().bucket(&self.name).prefix(prefix);
        let answer = request.set_continuation_token(after).send().await;
        answer.map_err(|error| BucketError::of(Operation::List, &error))
    }

    /// `None` if there is no such object.
    pub async fn head(&self, key: &str) -> Result<Option<Head>, BucketError> {
        let answer = self.client.head_object().bucket(&self.name).key(key).send().await;
        match answer.map_err(|error| BucketError::of(Operation::Head, &error)) {
            Ok(answer) => Ok(Some(Head {
                etag: answer.e_tag().unwrap_or_default().to_owned(),
                bytes: unsigned(answer.content_length()),
            })),
            Err(BucketError::Missing(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Reads a whole object of at most `bytes_max` bytes; with `etag`, only that very content.
    pub async fn get(
        &self,
        key: &str,
        etag: Option<&str>,
        bytes_max: u64,
    ) -> Result<(Bytes, String), BucketError> {
        let read = self.read(key, etag, bytes_max);
        let read = deadline::within(self.operation_timeout, read).await;
        read.unwrap_or_else(|_| Err(BucketError::timed_out(Operation::Get)))
    }

    async fn read(
        &self,
        key: &str,
        etag: Option<&str>,
        bytes_max: u64,
    ) -> Result<(Bytes, String), BucketError> {
        let operation = Operation::Get;
        let request = self.client.get_object().bucket(&self.name).key(key);
        let request = request.set_if_match(etag.map(str::to_owned));
        let mut answer = request.send().await.map_err(|e| BucketError::of(operation, &e))?;
        let found = answer.e_tag().unwrap_or_default().to_owned();
        if etag.is_some_and(|etag| etag != found) {
            // A service that ignores If-Match.
            return Err(BucketError::Changed(operation));
        }
        let expected = unsigned(answer.content_length());
        if expected > bytes_max {
            return Err(BucketError::TooLong { operation, max: bytes_max });
        }
        let mut body = BytesMut::with_capacity(usize::try_from(expected).unwrap_or_default());
        while let Some(chunk) = answer.body.next().await {
            let got = body.len() as u64;
            let chunk = chunk.map_err(|_| BucketError::CutOff { operation, got, expected })?;
            if got + chunk.len() as u64 > bytes_max {
                return Err(BucketError::TooLong { operation, max: bytes_max });
            }
            body.extend_from_slice(&chunk);
        }
        let got = body.len() as u64;
        if got != expected {
            return Err(BucketError::CutOff { operation, got, expected });
        }
        Ok((body.freeze(), found))
    }

    /// Writes a whole object; gives its etag.
    pub async fn put(
        &self,
        key: &str,
        body: Bytes,
        condition: Condition<'_>,
    ) -> Result<String, BucketError> {
        let request = self.client.put_object().bucket(&self.name).key(key);
        let request = match condition {
            Condition::Always => request,
            Condition::Absent => request.if_none_match("*"),
            Condition::Unchanged(etag) => request.if_match(etag),
        };
        let answer = request.body(ByteStream::from(body)).send().await;
        let answer = answer.map_err(|error| BucketError::of(Operation::Put, &error))?;
        Ok(answer.e_tag().unwrap_or_default().to_owned())
    }

    /// Copies an object within the bucket, without reading it, if it still is that very content.
    pub async fn copy(&self, from: &str, etag: &str, to: &str) -> Result<(), BucketError> {
        let request = self
            .client
            .copy_object()
            .bucket(&self.name)
            .copy_source(format!("{}/{from}", self.name))
            .copy_source_if_match(etag)
            .key(to);
        request.send().await.map_err(|error| BucketError::of(Operation::Copy, &error))?;
        Ok(())
    }
}

fn next_page(answer: &ListObjectsV2Output) -> Option<String> {
    let truncated = answer.is_truncated() == Some(true);
    answer.next_continuation_token().filter(|_| truncated).map(str::to_owned)
}

fn listed(object: &aws_sdk_s3::types::Object) -> Option<Listed> {
    let key = ObjectKey::parse(object.key()?)?;
    let modified: &DateTime = object.last_modified()?;
    Some(Listed {
        key,
        etag: object.e_tag().unwrap_or_default().to_owned(),
        bytes: unsigned(object.size()),
        modified_ms: modified.to_millis().ok()?,
    })
}

fn unsigned(bytes: Option<i64>) -> u64 {
    bytes.and_then(|bytes| u64::try_from(bytes).ok()).unwrap_or_default()
}
