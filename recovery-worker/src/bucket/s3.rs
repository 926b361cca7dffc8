//! S3, or a service that speaks its language.

use std::time::Duration;

use async_trait::async_trait;
use aws_credential_types::Credentials;
use aws_sdk_s3::Client;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::config::{
    BehaviorVersion, Config, Region, RequestChecksumCalculation, ResponseChecksumValidation,
    StalledStreamProtectionConfig,
};
use aws_sdk_s3::operation::list_objects_v2::ListObjectsV2Output;
use aws_sdk_s3::primitives::ByteStream;
use bytes::{Bytes, BytesMut};
use spillway_runtime::deadline;
use spillway_runtime::settings::SecretFileError;

use super::{Condition, Entry, Head, Listing, Objects};
use crate::bucket_error::{BucketError, Operation};
use crate::retire::{self, Deletion};
use crate::settings::{Checksum, S3Settings};

/// A slow uplink may pause this long in the middle of a body before it is given up.
const STALL_GRACE: Duration = Duration::from_secs(20);

/// A bucket of a service.
#[derive(Clone, Debug)]
pub struct S3 {
    client: Client,
    name: String,
    operation_timeout: Duration,
}

impl S3 {
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
}

#[async_trait]
impl Objects for S3 {
    async fn list(&self, prefix: &str, after: Option<String>) -> Result<Listing, BucketError> {
        let request = self.client.list_objects_v2().bucket(&self.name).prefix(prefix);
        let answer = request.set_continuation_token(after).send().await;
        let answer = answer.map_err(|error| BucketError::of(Operation::List, &error))?;
        let entries = answer.contents().iter().filter_map(entry).collect();
        Ok(Listing { entries, next: next_page(&answer) })
    }

    async fn head(&self, key: &str) -> Result<Option<Head>, BucketError> {
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

    async fn get(
        &self,
        key: &str,
        etag: Option<&str>,
        bytes_max: u64,
    ) -> Result<(Bytes, String), BucketError> {
        let read = self.read(key, etag, bytes_max);
        let read = deadline::within(self.operation_timeout, read).await;
        read.unwrap_or_else(|_| Err(BucketError::timed_out(Operation::Get)))
    }

    async fn put(
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

    async fn copy(&self, from: &str, etag: &str, to: &str) -> Result<(), BucketError> {
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

    async fn delete(&self, deletion: Deletion<'_>) -> Result<(), BucketError> {
        retire::carry_out(&self.client, &self.name, deletion).await
    }
}

fn next_page(answer: &ListObjectsV2Output) -> Option<String> {
    let truncated = answer.is_truncated() == Some(true);
    answer.next_continuation_token().filter(|_| truncated).map(str::to_owned)
}

fn entry(object: &aws_sdk_s3::types::Object) -> Option<Entry> {
    Some(Entry {
        key: object.key()?.to_owned(),
        etag: object.e_tag().unwrap_or_default().to_owned(),
        bytes: unsigned(object.size()),
        modified_ms: object.last_modified().and_then(|modified| modified.to_millis().ok()),
    })
}

fn unsigned(bytes: Option<i64>) -> u64 {
    bytes.and_then(|bytes| u64::try_from(bytes).ok()).unwrap_or_default()
}
