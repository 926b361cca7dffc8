//! One GET of a target, read as it comes: bounded in bytes, and never held as a whole.

use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{
    ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, USER_AGENT,
};
use http::{HeaderMap, HeaderValue, Request, StatusCode, Uri};
use http_body_util::{BodyExt as _, Full};
use spillway_runtime::settings::{Secret, SecretFileError};

use super::answer::{Answer, BadAnswer};
use crate::deliver::http_client::{BoxError, Connections, Unanswered};

/// What we read, best first: OpenMetrics knows units and ends with a mark, so a cut is seen.
const ACCEPTED: &str = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5,\
                        */*;q=0.1";
/// How long the target may take, so that it need not go on beyond it.
const TIMEOUT_HEADER: &str = "x-prometheus-scrape-timeout-seconds";

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    #[error(transparent)]
    Unanswered(#[from] Unanswered),
    #[error("the answer is {0}")]
    Status(StatusCode),
    #[error("the answer is compressed, which was not asked for")]
    Encoded,
    #[error("the answer broke off")]
    Broken(#[source] BoxError),
    #[error("the answer has more than body_bytes_max ({0}) bytes")]
    TooLong(u64),
    #[error(transparent)]
    Bad(#[from] BadAnswer),
    #[error("the secret can't be read")]
    Secret(#[from] SecretFileError),
    #[error("the secret can't stand in a header")]
    SecretForm,
}

/// How a target knows us.
#[derive(Clone, Debug)]
pub enum Credential {
    None,
    Bearer(PathBuf),
    Basic { user: String, password_file: PathBuf },
}

impl Credential {
    /// The header; the file is read each time, so that a secret can be changed under way.
    fn header(&self) -> Result<Option<HeaderValue>, FetchError> {
        let read = |file: &Path| Secret::default().resolve(Some(file));
        let text = match self {
            Self::None => return Ok(None),
            Self::Bearer(file) => format!("Bearer {}", read(file)?.reveal()),
            Self::Basic { user, password_file } => {
                let both = format!("{user}:{}", read(password_file)?.reveal());
                format!("Basic {}", STANDARD.encode(both))
            }
        };
        let mut value = HeaderValue::try_from(text).map_err(|_| FetchError::SecretForm)?;
        value.set_sensitive(true);
        Ok(Some(value))
    }
}

/// What is asked, and how much may come.
#[derive(Clone, Debug)]
pub struct Question {
    pub uri: Uri,
    pub credential: Credential,
    pub timeout_s: f64,
    pub body_bytes_max: u64,
}

/// Asks, and feeds the answer to `answer`. How many samples it had. May take for ever.
///
/// # Errors
/// [`FetchError`].
pub async fn fetch(
    connections: &Connections,
    question: &Question,
    mut answer: Answer<'_>,
) -> Result<usize, FetchError> {
    let response = connections.open(request(question)?).await?;
    if response.status() != StatusCode::OK {
        return Err(FetchError::Status(response.status()));
    }
    if response.headers().get(CONTENT_ENCODING).is_some_and(|encoding| encoding != "identity") {
        return Err(FetchError::Encoded);
    }
    let must_end = is_openmetrics(response.headers());
    let (mut body, mut left) = (response.into_body(), question.body_bytes_max);
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|cause| FetchError::Broken(cause.into()))?;
        let Ok(bytes) = frame.into_data() else { continue };
        let length = bytes.len() as u64;
        left = left.checked_sub(length).ok_or(FetchError::TooLong(question.body_bytes_max))?;
        answer.feed(&bytes)?;
    }
    Ok(answer.finish(must_end)?)
}

fn is_openmetrics(headers: &HeaderMap) -> bool {
    let of = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    of.trim_start().to_ascii_lowercase().starts_with("application/openmetrics-text")
}

fn request(question: &Question) -> Result<Request<Full<Bytes>>, FetchError> {
    let mut request = Request::new(Full::default());
    *request.uri_mut() = question.uri.clone();
    let headers = request.headers_mut();
    headers.insert(ACCEPT, HeaderValue::from_static(ACCEPTED));
    headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    let agent = concat!("spillway-agent/", env!("CARGO_PKG_VERSION"));
    headers.insert(USER_AGENT, HeaderValue::from_static(agent));
    if let Ok(timeout) = HeaderValue::try_from(question.timeout_s.to_string()) {
        headers.insert(TIMEOUT_HEADER, timeout);
    }
    if let Some(value) = question.credential.header()? {
        headers.insert(AUTHORIZATION, value);
    }
    Ok(request)
}
