//! One attempt to hand batches to ingest-api, and what is known afterwards.
//!
//! A sink decides nothing: it tells one of four outcomes, and the route picks. Only an answer
//! that names a refusal of ours refuses; whatever a proxy, a captive portal or a broken server
//! may say means "later".

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{AUTHORIZATION, CONTENT_TYPE, DATE, RETRY_AFTER};
use http::{HeaderMap, HeaderValue, Request, StatusCode, Uri};
use http_body_util::Full;
use serde::Deserialize;
use spillway_proto::kafka_record::Lane;
use spillway_proto::verdict::{BatchesAnswer, Outcome, Refusal, RejectedBatch};
use spillway_runtime::outside;
use tokio::time::Instant;

use super::StartError;
use super::http_client::{Answer, HttpClient, Internet, Network, Unanswered, Wanted};
use super::status::now_ms;
use crate::credential::Credential;
use crate::settings::Settings;

/// An answer is at most a line for each of 256 batches; more is none of ours.
const ANSWER_BYTES_MAX: usize = 256 * 1024;
/// How much of an unknown answer goes into the log.
const EXCERPT_CHARS: usize = 120;
const ROUTE: &str = "/v1/batches";
const LANE: &str = "spillway-lane";
const ATTEMPT: &str = "spillway-attempt";
/// How the type of the problem ends that a revoked token is told (docs/errors.md).
const REVOKED: &str = "token-revoked";
const FRAMES: HeaderValue = HeaderValue::from_static("application/octet-stream");

/// What the API will never take as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refused {
    /// The batch at this place, for its content. Of the others nothing is known.
    Content { index: usize, refusal: Refusal, error: String },
    /// The request is too large; fewer batches may fit.
    TooLarge,
    /// The token; a revoked one for good, also for what is parked with it from now on.
    Token { status: StatusCode, revoked: bool },
}

/// An attempt, told.
#[derive(Debug)]
pub struct Attempt {
    /// `Done` means: all batches of the request are acknowledged, except those rejected.
    pub outcome: Outcome<Refused>,
    pub rejected: Vec<RejectedBatch>,
    /// The environment of the token.
    pub environment: Option<String>,
    /// For `status` and the log.
    pub error: Option<String>,
    /// This clock minus the server's.
    pub clock_skew_ms: Option<i64>,
    pub status: Option<StatusCode>,
    pub endpoint: String,
    pub took: Duration,
}

/// The API's servers.
pub struct IngestApi {
    client: HttpClient,
    endpoints: Vec<Endpoint>,
    /// The one that worked last; moved on after each failure.
    current: AtomicUsize,
    credential: Credential,
    request_timeout: Duration,
}

struct Endpoint {
    base: String,
    batches: Uri,
}

impl IngestApi {
    pub fn new(settings: &Settings) -> Result<Self, StartError> {
        Self::over(&Internet, settings, Credential::fixed(settings.agent.token.clone()))
    }

    /// The servers that this network reaches.
    pub fn over(
        network: &dyn Network,
        settings: &Settings,
        credential: Credential,
    ) -> Result<Self, StartError> {
        let deliver = &settings.deliver;
        let endpoints: Result<Vec<_>, _> = deliver.endpoints.iter().map(|e| endpoint(e)).collect();
        let endpoints = endpoints?;
        let client = network.client(Wanted {
            tls: endpoints.iter().any(|endpoint| endpoint.batches.scheme_str() == Some("https")),
            ca_file: deliver.ca_file.as_deref(),
            own: deliver.client_certificate_file.as_deref().zip(deliver.client_key_file.as_deref()),
            proxy: deliver.proxy.as_deref().filter(|proxy| !proxy.is_empty()),
            connect_timeout: deliver.connect_timeout.get(),
        })?;
        credential.authorization()?;
        // Agents start at different servers, or all would lean on the first.
        let spread = outside::spread() as usize;
        Ok(Self {
            client,
            current: AtomicUsize::new(spread.checked_rem(endpoints.len()).unwrap_or_default()),
            endpoints,
            credential,
            request_timeout: deliver.request_timeout.get(),
        })
    }

    /// Sends frames as one request. `attempt` counts the failures before this one.
    pub async fn send(&self, lane: Lane, frames: &[Bytes], attempt: u32) -> Attempt {
        let number = self.current.load(Ordering::Relaxed);
        let Some(endpoint) = self.endpoints.get(number) else {
            return Attempt::new(Outcome::TryLater { retry_after: None }, "", Duration::ZERO);
        };
        let mut body = BytesMut::with_capacity(frames.iter().map(Bytes::len).sum());
        frames.iter().for_each(|frame| body.extend_from_slice(frame));
        let mut request = Request::post(endpoint.batches.clone())
            .header(CONTENT_TYPE, FRAMES)
            .header(ATTEMPT, attempt);
        if let Some(headers) = request.headers_mut() {
            headers.insert(LANE, HeaderValue::from_static(lane.as_str()));
            // What is no token was never taken over.
            headers
                .extend(self.credential.authorization().ok().map(|token| (AUTHORIZATION, token)));
        }
        let mut told = match request.body(Full::new(body.freeze())) {
            Ok(request) => self.exchange(request, frames.len(), &endpoint.base).await,
            // Every part was checked at the start.
            Err(_) => Attempt::new(Outcome::Unknown, &endpoint.base, Duration::ZERO),
        };
        if told.is_failure() {
            self.move_on(number);
        }
        told.rejected.truncate(frames.len());
        told
    }

    async fn exchange(
        &self,
        request: Request<Full<Bytes>>,
        frames: usize,
        endpoint: &str,
    ) -> Attempt {
        let (began, began_ms) = (Instant::now(), now_ms());
        let answered = self.client.send(request, self.request_timeout, ANSWER_BYTES_MAX).await;
        let took = began.elapsed();
        let answer = match answered {
            Ok(answer) => answer,
            Err(error) => return unanswered(&error, endpoint, took),
        };
        let mut told = judge(&answer, frames, endpoint, took);
        told.status = Some(answer.status);
        // The server looked at its clock somewhere between.
        let middle = began_ms + i64::try_from(took.as_millis() / 2).unwrap_or_default();
        told.clock_skew_ms = server_date_ms(&answer.headers).map(|date| middle - date);
        told
    }

    /// The next server gets the next request; whoever failed with the same one moves it once.
    fn move_on(&self, from: usize) {
        let next = (from + 1).checked_rem(self.endpoints.len()).unwrap_or_default();
        // Another lane may have moved it already: then that is the next one.
        let _moved =
            self.current.compare_exchange(from, next, Ordering::Relaxed, Ordering::Relaxed).is_ok();
    }
}

impl Attempt {
    fn new(outcome: Outcome<Refused>, endpoint: &str, took: Duration) -> Self {
        Self {
            outcome,
            rejected: Vec::new(),
            environment: None,
            error: None,
            clock_skew_ms: None,
            status: None,
            endpoint: endpoint.to_owned(),
            took,
        }
    }

    fn because(mut self, error: impl Into<String>) -> Self {
        self.error = Some(error.into());
        self
    }

    /// Whether another server might do better. A refused token is refused by all of them.
    fn is_failure(&self) -> bool {
        matches!(self.outcome, Outcome::TryLater { .. } | Outcome::Unknown)
    }

    /// The metrics' word for it.
    pub fn word(&self) -> &'static str {
        match &self.outcome {
            Outcome::Done => "done",
            Outcome::Refused(Refused::Token { .. }) => "denied",
            Outcome::Refused(_) => "refused",
            Outcome::TryLater { .. } => "later",
            Outcome::Unknown => "unknown",
        }
    }
}

fn endpoint(base: &str) -> Result<Endpoint, StartError> {
    let base = base.trim_end_matches('/').to_owned();
    match format!("{base}{ROUTE}").parse() {
        Ok(batches) => Ok(Endpoint { base, batches }),
        Err(_) => Err(StartError::Url { url: base }),
    }
}

fn unanswered(error: &Unanswered, endpoint: &str, took: Duration) -> Attempt {
    let outcome = match error.surely_not_sent() {
        true => Outcome::TryLater { retry_after: None },
        false => Outcome::Unknown,
    };
    let text = format!("{endpoint}: {}", spillway_runtime::program::chain(error));
    Attempt::new(outcome, endpoint, took).because(text)
}

/// The part of a problem body (RFC 9457) that decides something.
#[derive(Deserialize)]
struct ProblemBody {
    #[serde(default, rename = "type")]
    kind: String,
    #[serde(default)]
    detail: String,
    #[serde(default)]
    index: Option<usize>,
    #[serde(default)]
    refusal: Option<Refusal>,
    /// What is too large is larger than this.
    #[serde(default)]
    limit_bytes: Option<usize>,
}

fn judge(answer: &Answer, frames: usize, endpoint: &str, took: Duration) -> Attempt {
    let attempt = |outcome| Attempt::new(outcome, endpoint, took);
    let problem = problem_of(answer);
    let said = match &problem {
        Some(problem) => problem.detail.clone(),
        None => excerpt(&answer.body),
    };
    let error = format!("{endpoint} answered {}: {said}", answer.status);
    let refused = |refused| attempt(Outcome::Refused(refused)).because(error.clone());
    let later = || {
        let retry_after = retry_after(&answer.headers, now_ms());
        attempt(Outcome::TryLater { retry_after }).because(error.clone())
    };
    match answer.status {
        StatusCode::OK => match done(&answer.body, frames) {
            Some(done) => Attempt {
                rejected: done.rejected,
                environment: Some(done.environment).filter(|name| !name.is_empty()),
                ..attempt(Outcome::Done)
            },
            // Somebody said 200, and not that our batches are stored.
            None => attempt(Outcome::Unknown).because(error),
        },
        status @ (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) => {
            let revoked = problem.is_some_and(|problem| problem.kind.ends_with(REVOKED));
            refused(Refused::Token { status, revoked })
        }
        StatusCode::PAYLOAD_TOO_LARGE if frames > 1 => refused(Refused::TooLarge),
        StatusCode::PAYLOAD_TOO_LARGE
            if problem.as_ref().is_some_and(|p| p.limit_bytes.is_some()) =>
        {
            let refusal = Refusal::LimitExceeded;
            refused(Refused::Content { index: 0, refusal, error: said })
        }
        _ => match problem.and_then(|problem| problem.refusal.zip(problem.index)) {
            Some((refusal, index)) if index < frames && answer.status.is_client_error() => {
                refused(Refused::Content { index, refusal, error: said })
            }
            _ => later(),
        },
    }
}

/// The counts of a 200, if they fit what was sent.
fn done(body: &[u8], frames: usize) -> Option<BatchesAnswer> {
    let answer: BatchesAnswer = serde_json::from_slice(body).ok()?;
    let mut places: Vec<_> = answer.rejected.iter().map(|rejected| rejected.index).collect();
    places.sort_unstable();
    places.dedup();
    let distinct = places.len() == answer.rejected.len();
    let inside = places.iter().all(|index| *index < frames);
    let complete = answer.accepted.checked_add(places.len()) == Some(frames);
    (distinct && inside && complete).then_some(answer)
}

fn problem_of(answer: &Answer) -> Option<ProblemBody> {
    let kind = answer.headers.get(CONTENT_TYPE)?.to_str().ok()?;
    if !kind.starts_with("application/problem+json") {
        return None;
    }
    serde_json::from_slice(&answer.body).ok()
}

fn excerpt(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body.get(..EXCERPT_CHARS * 4).unwrap_or(body));
    text.chars().filter(|c| !c.is_control()).take(EXCERPT_CHARS).collect()
}

/// `Retry-After` as seconds or as a date (RFC 9110, section 10.2.3).
pub(super) fn retry_after(headers: &HeaderMap, now_ms: i64) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let until_ms = http_date_ms(text)?.checked_sub(now_ms)?;
    u64::try_from(until_ms).ok().map(Duration::from_millis)
}

/// The server's clock, by the `Date` of its answer.
pub(super) fn server_date_ms(headers: &HeaderMap) -> Option<i64> {
    http_date_ms(headers.get(DATE)?.to_str().ok()?)
}

fn http_date_ms(text: &str) -> Option<i64> {
    let date = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(text).ok()?;
    Some(date.as_millisecond())
}

#[cfg(test)]
#[path = "ingest_api_tests.rs"]
mod tests;
