//! One attempt to put a sealed object into S3. It shares nothing with the way to ingest-api: no
//! connection, no name, no certificate.
//!
//! The object goes in one PUT with its checksum; the key may PUT under `spill/` and nothing else,
//! so nothing here ever reads, lists or deletes.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime};

use aws_credential_types::Credentials;
use aws_sigv4::http_request::{
    PayloadChecksumKind, PercentEncodingMode, SignableBody, SignableRequest, SigningError,
    SigningSettings, UriPathNormalizationMode, sign,
};
use aws_sigv4::sign::v4;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::Full;
use spillway_proto::object_key::ObjectKey;

use super::StartError;
use super::http_client::{Answer, HttpClient, Internet, Network, Unanswered, Wanted};
use super::ingest_api::{retry_after, server_date_ms};
use super::seal::{SealError, Sealed, Sealer};
use super::status::now_ms;
use crate::credential::Credential;
use crate::settings::Settings;

/// S3's errors are short XML.
const ANSWER_BYTES_MAX: usize = 16 * 1024;
const CHECKSUM: &str = "x-amz-checksum-crc32c";
const SERVICE: &str = "s3";

/// Why an object is not (known to be) in S3. None of it loses anything: the batches stay.
#[derive(Debug, thiserror::Error)]
pub enum ParkError {
    #[error("could not be sealed")]
    Seal(#[from] SealError),
    #[error("could not be signed")]
    Sign(#[from] SigningError),
    #[error("could not be signed")]
    SignWith(#[from] v4::signing_params::BuildError),
    #[error("the request could not be made")]
    Request(#[from] http::Error),
    #[error("S3 did not answer")]
    Unanswered(#[from] Unanswered),
    #[error("S3 answered {status}{}{code}", if code.is_empty() { "" } else { " " })]
    Answered { status: StatusCode, code: String, retry_after: Option<Duration> },
    #[error("S3 has something else under this key: its checksum differs")]
    Checksum,
}

impl ParkError {
    /// When S3 asked to be tried again.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Answered { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    /// The metrics' word for it.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Answered { status: StatusCode::FORBIDDEN | StatusCode::UNAUTHORIZED, .. } => {
                "denied"
            }
            Self::Unanswered(error) if !error.surely_not_sent() => "unknown",
            Self::Answered { .. } | Self::Unanswered(_) => "later",
            Self::Seal(_)
            | Self::Sign(_)
            | Self::SignWith(_)
            | Self::Request(_)
            | Self::Checksum => "refused",
        }
    }
}

/// The way to S3.
#[derive(Clone)]
pub struct S3Park {
    client: HttpClient,
    sealer: Sealer,
    /// `https://host[:port]/bucket`.
    bucket_url: String,
    region: String,
    /// `None`: PUTs go unsigned.
    credentials: Option<Credentials>,
    request_timeout: Duration,
    /// This clock minus S3's, in ms: a signature of a clock that is 15 minutes off is refused.
    clock_skew_ms: Arc<AtomicI64>,
}

impl S3Park {
    /// `None` if there is no such way.
    pub fn new(settings: &Settings) -> Result<Option<Self>, StartError> {
        Self::over(&Internet, settings, Credential::fixed(settings.agent.token.clone()))
    }

    /// The same, over this network.
    pub fn over(
        network: &dyn Network,
        settings: &Settings,
        credential: Credential,
    ) -> Result<Option<Self>, StartError> {
        let spill = &settings.spill;
        if !spill.enabled {
            return Ok(None);
        }
        let sealer = Sealer::new(&spill.public_key, &spill.key_id, credential)?;
        let client = network.client(Wanted {
            tls: spill.endpoint.starts_with("https:"),
            ca_file: spill.ca_file.as_deref(),
            own: None,
            proxy: None,
            connect_timeout: spill.connect_timeout.get(),
        })?;
        let secret = spill.secret_key.reveal();
        let credentials = (!spill.unsigned)
            .then(|| Credentials::new(&spill.access_key, secret, None, None, "settings"));
        Ok(Some(Self {
            client,
            sealer,
            bucket_url: format!("{}/{}", spill.endpoint.trim_end_matches('/'), spill.bucket),
            region: spill.region.clone(),
            credentials,
            request_timeout: spill.request_timeout.get(),
            clock_skew_ms: Arc::default(),
        }))
    }

    /// Seals frames and puts them into S3. The key is new each time, so that a PUT of which
    /// nothing was heard is never mixed up with the next: two copies are harmless.
    pub async fn park(&self, frames: &[Bytes]) -> Result<(ObjectKey, usize), ParkError> {
        let Sealed { key, bytes } = self.sealer.seal(frames)?;
        let size = bytes.len();
        let checksum = BASE64.encode(crc32c::crc32c(&bytes).to_be_bytes());
        let request = self.request(&key, bytes, &checksum)?;
        let answer = self.client.send(request, self.request_timeout, ANSWER_BYTES_MAX).await?;
        if let Some(date_ms) = server_date_ms(&answer.headers) {
            self.clock_skew_ms.store(now_ms() - date_ms, Ordering::Relaxed);
        }
        let stored = answer.headers.get(CHECKSUM).is_none_or(|stored| stored == checksum.as_str());
        match answer.status.is_success() {
            true if stored => Ok((key, size)),
            true => Err(ParkError::Checksum),
            false => Err(ParkError::Answered {
                status: answer.status,
                code: error_code(&answer),
                retry_after: retry_after(&answer.headers, now_ms()),
            }),
        }
    }

    fn request(
        &self,
        key: &ObjectKey,
        bytes: Bytes,
        checksum: &str,
    ) -> Result<Request<Full<Bytes>>, ParkError> {
        let url = format!("{}/{key}", self.bucket_url);
        let mut request = Request::put(&url)
            .header("content-type", "application/octet-stream")
            .header(CHECKSUM, checksum)
            .body(Full::new(bytes.clone()))?;
        let Some(credentials) = &self.credentials else { return Ok(request) };
        let mut settings = SigningSettings::default();
        // As S3 wants it: the path as it is, and the payload's hash in a header.
        settings.percent_encoding_mode = PercentEncodingMode::Single;
        settings.uri_path_normalization_mode = UriPathNormalizationMode::Disabled;
        settings.payload_checksum_kind = PayloadChecksumKind::XAmzSha256;
        let identity = credentials.clone().into();
        let parameters = v4::SigningParams::builder()
            .identity(&identity)
            .region(&self.region)
            .name(SERVICE)
            .time(self.server_time())
            .settings(settings)
            .build()?
            .into();
        let headers = [("content-type", "application/octet-stream"), (CHECKSUM, checksum)];
        let body = SignableBody::Bytes(&bytes);
        let signable = SignableRequest::new("PUT", url.as_str(), headers.into_iter(), body)?;
        let (instructions, _) = sign(signable, &parameters)?.into_parts();
        instructions.apply_to_request_http1x(&mut request);
        Ok(request)
    }
}

impl S3Park {
    /// What S3's clock shows, as far as its last answer told.
    fn server_time(&self) -> SystemTime {
        let server_ms = now_ms() - self.clock_skew_ms.load(Ordering::Relaxed);
        SystemTime::UNIX_EPOCH + Duration::from_millis(u64::try_from(server_ms).unwrap_or_default())
    }
}

/// The `<Code>` of an S3 error.
fn error_code(answer: &Answer) -> String {
    let text = String::from_utf8_lossy(&answer.body);
    let code = text.split_once("<Code>").and_then(|(_, rest)| rest.split_once("</Code>"));
    code.map_or_else(String::new, |(code, _)| code.chars().take(64).collect())
}

#[cfg(test)]
#[path = "s3_park_tests.rs"]
mod tests;
