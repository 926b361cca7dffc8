//! The last stage: what a sender hears. Every answer of ingest-api is made here.
//!
//! "Not now" is always 503 with an integer `Retry-After` and `Connection: close`: the only answer
//! that every sender retries, and the one that lets them spread over other servers. Errors are
//! problem details (RFC 9457) whose `type` is stable and explained in docs/errors.md.

use bytes::Bytes;
use http::header::{ALLOW, CONNECTION, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderValue, Response, StatusCode};
use http_body_util::Full;
use serde::Serialize;
use spillway_proto::verdict::{BatchesAnswer, Refusal};

use crate::admit::NotAdmitted;
use crate::authenticate::{Caller, Denied};
use crate::http::body::BodyError;
use crate::publish::{Acknowledged, NotAcknowledged};
use crate::quota::OverQuota;
use crate::verify::BodyRefused;
use spillway_runtime::outside::spread;
use spillway_runtime::tokens::TokenError;

/// An answer on its way to the socket.
pub type Answer = Response<Full<Bytes>>;

/// The longest error text.
pub const DETAIL_BYTES_MAX: usize = 1_024;
/// `Retry-After`, in seconds.
const RETRY_AFTER_S: std::ops::RangeInclusive<u32> = 1..=60;
/// The longest where someone decided that a sender waits. Otherwise nobody stays away for long from
/// a server that is well again.
const DECIDED_RETRY_AFTER_S_MAX: u32 = 600;
/// Where the ids of errors are explained.
const ERRORS_AT: &str = "/errors/";

/// The stable ids of errors that concern a whole request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorId {
    BadRequest,
    UndecodableBody,
    Unauthorized,
    TokenRevoked,
    NotFound,
    MethodNotAllowed,
    BodyTooLarge,
    UnsupportedMediaType,
    BodyTooSlow,
    Draining,
    EnvironmentPaused,
    KafkaUnavailable,
    KafkaSlow,
    NotAdmittedYet,
    Overloaded,
    TokensUnavailable,
    OverQuota,
    Internal,
}

impl ErrorId {
    /// All of them, for docs and tests.
    pub const ALL: [Self; 18] = [
        Self::BadRequest,
        Self::UndecodableBody,
        Self::Unauthorized,
        Self::TokenRevoked,
        Self::NotFound,
        Self::MethodNotAllowed,
        Self::BodyTooLarge,
        Self::UnsupportedMediaType,
        Self::BodyTooSlow,
        Self::Draining,
        Self::EnvironmentPaused,
        Self::KafkaUnavailable,
        Self::KafkaSlow,
        Self::NotAdmittedYet,
        Self::Overloaded,
        Self::TokensUnavailable,
        Self::OverQuota,
        Self::Internal,
    ];

    /// Its id, HTTP status and title.
    #[must_use]
    pub fn parts(self) -> (&'static str, StatusCode, &'static str) {
        use StatusCode as S;
        const LATER: StatusCode = StatusCode::SERVICE_UNAVAILABLE;
        match self {
            Self::BadRequest => ("bad-request", S::BAD_REQUEST, "The request is malformed"),
            Self::UndecodableBody => ("undecodable-body", S::BAD_REQUEST, "The body can't be read"),
            Self::Unauthorized => ("unauthorized", S::UNAUTHORIZED, "No valid token"),
            Self::TokenRevoked => ("token-revoked", S::FORBIDDEN, "The token is revoked"),
            Self::NotFound => ("not-found", S::NOT_FOUND, "No such route"),
            Self::MethodNotAllowed => {
                ("method-not-allowed", S::METHOD_NOT_ALLOWED, "The route has another method")
            }
            Self::BodyTooLarge => ("body-too-large", S::PAYLOAD_TOO_LARGE, "The body is too large"),
            Self::UnsupportedMediaType => (
                "unsupported-media-type",
                S::UNSUPPORTED_MEDIA_TYPE,
                "The body is of no known kind",
            ),
            Self::BodyTooSlow => ("body-too-slow", LATER, "The body came too slowly"),
            Self::Draining => ("draining", LATER, "This server is shutting down"),
            Self::EnvironmentPaused => ("environment-paused", LATER, "The environment is paused"),
            Self::KafkaUnavailable => ("kafka-unavailable", LATER, "Kafka can't be reached"),
            Self::KafkaSlow => ("kafka-slow", LATER, "Kafka did not acknowledge in time"),
            Self::NotAdmittedYet => ("not-admitted-yet", LATER, "Agents are admitted by steps"),
            Self::Overloaded => ("overloaded", LATER, "Too much is in work"),
            Self::TokensUnavailable => ("tokens-unavailable", LATER, "Tokens can't be judged"),
            Self::OverQuota => ("over-quota", S::TOO_MANY_REQUESTS, "The token's limit is reached"),
            Self::Internal => ("internal", LATER, "An error of this server"),
        }
    }
}

/// Why a request was not taken.
#[derive(Debug)]
pub struct Problem {
    pub id: ErrorId,
    detail: String,
    limit_bytes: Option<usize>,
    index: Option<usize>,
    refusal: Option<Refusal>,
    allow: &'static str,
}

impl Problem {
    #[must_use]
    pub fn new(id: ErrorId, detail: impl Into<String>) -> Self {
        let mut detail = detail.into();
        detail.truncate(shortened(&detail).len());
        Self { id, detail, limit_bytes: None, index: None, refusal: None, allow: "POST" }
    }

    /// The route is there, for other methods.
    #[must_use]
    pub fn method(allow: &'static str) -> Self {
        Self { allow, ..Self::new(ErrorId::MethodNotAllowed, format!("use {allow}")) }
    }

    /// What is wrong, for people.
    #[must_use]
    pub fn detail(&self) -> &str {
        &self.detail
    }

    /// The methods that a route has.
    #[must_use]
    pub fn allow(&self) -> &'static str {
        self.allow
    }

    fn with_limit(mut self, bytes: usize) -> Self {
        self.limit_bytes = Some(bytes);
        self
    }
}

impl From<NotAdmitted> for Problem {
    fn from(cause: NotAdmitted) -> Self {
        let id = match cause {
            NotAdmitted::Draining => ErrorId::Draining,
            NotAdmitted::KafkaUnchecked => ErrorId::KafkaUnavailable,
            NotAdmitted::Paused => ErrorId::EnvironmentPaused,
            NotAdmitted::NotInShare => ErrorId::NotAdmittedYet,
            NotAdmitted::NoRoom(_) => ErrorId::Overloaded,
        };
        Self::new(id, cause.to_string())
    }
}

impl From<Denied> for Problem {
    fn from(cause: Denied) -> Self {
        let id = match cause {
            // The reason names a file of the server: it goes to the log, not to senders.
            Denied::Unavailable(_) => {
                return Self::new(ErrorId::TokensUnavailable, "no good tokens file is in force");
            }
            Denied::Token(TokenError::Revoked) => ErrorId::TokenRevoked,
            // Whether an id exists is told to those only who know its secret.
            Denied::Token(TokenError::Unknown | TokenError::WrongSecret) => {
                return Self::new(ErrorId::Unauthorized, "the token is not known");
            }
            Denied::Token(_) | Denied::Absent | Denied::Ambiguous => ErrorId::Unauthorized,
        };
        Self::new(id, cause.to_string())
    }
}

impl From<OverQuota> for Problem {
    fn from(cause: OverQuota) -> Self {
        Self::new(ErrorId::OverQuota, cause.to_string())
    }
}

impl From<BodyError> for Problem {
    fn from(cause: BodyError) -> Self {
        let text = cause.to_string();
        match cause {
            BodyError::TooLarge { bytes_max } => {
                Self::new(ErrorId::BodyTooLarge, text).with_limit(bytes_max)
            }
            BodyError::TooSlow { .. } => Self::new(ErrorId::BodyTooSlow, text),
            BodyError::Length | BodyError::Broken(_) => Self::new(ErrorId::BadRequest, text),
        }
    }
}

impl From<BodyRefused> for Problem {
    fn from(cause: BodyRefused) -> Self {
        let text = cause.to_string();
        match cause {
            BodyRefused::Uncuttable { index, cause } => Self {
                index: Some(index),
                refusal: Some(cause.refusal()),
                ..Self::new(ErrorId::UndecodableBody, text)
            },
            BodyRefused::TooMany => Self::new(ErrorId::BodyTooLarge, text),
            BodyRefused::TooLarge { bytes_max, .. } => {
                Self::new(ErrorId::BodyTooLarge, text).with_limit(bytes_max)
            }
            BodyRefused::Busy(_) => Self::new(ErrorId::Overloaded, text),
            BodyRefused::Ended(_) => Self::new(ErrorId::Internal, text),
        }
    }
}

impl From<NotAcknowledged> for Problem {
    fn from(cause: NotAcknowledged) -> Self {
        let id = match cause {
            NotAcknowledged::QueueFull | NotAcknowledged::TooSlow => ErrorId::KafkaSlow,
            NotAcknowledged::Rebuilding | NotAcknowledged::Hindered(_) => ErrorId::KafkaUnavailable,
            NotAcknowledged::Draining => ErrorId::Draining,
        };
        Self::new(id, cause.to_string())
    }
}

/// What of a request and of this server shapes an answer's head.
#[derive(Clone, Copy, Debug)]
pub struct Manner<'a> {
    /// How often the sender has tried this already, as it says.
    pub attempt: u32,
    pub status_page: Option<&'a str>,
    /// Remote write over its token's limit hears 429, not 503.
    pub remote_write_429: bool,
}

#[derive(Serialize)]
struct ProblemDetails<'a> {
    #[serde(rename = "type")]
    uri: String,
    title: &'a str,
    status: u16,
    detail: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    limit_bytes: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    index: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    refusal: Option<Refusal>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status_page: Option<&'a str>,
}

/// The answer to a request that Kafka has.
#[must_use]
pub fn accepted(acknowledged: Acknowledged, caller: &Caller) -> Answer {
    let answer = BatchesAnswer {
        accepted: acknowledged.batches,
        rejected: acknowledged.rejected.into_iter().map(|rejection| rejection.batch).collect(),
        environment: caller.environment.to_string(),
    };
    json(StatusCode::OK, "application/json", &answer)
}

/// The answer to a request that was not taken.
#[must_use]
pub fn problem(problem: &Problem, manner: Manner<'_>) -> Answer {
    let (id, status, title) = problem.id.parts();
    let details = ProblemDetails {
        uri: format!("{ERRORS_AT}{id}"),
        title,
        status: status.as_u16(),
        detail: &problem.detail,
        limit_bytes: problem.limit_bytes,
        index: problem.index,
        refusal: problem.refusal,
        status_page: manner.status_page,
    };
    let mut answer = json(status, "application/problem+json", &details);
    let head = answer.headers_mut();
    match status {
        StatusCode::SERVICE_UNAVAILABLE => {
            let seconds = seconds_to_wait(problem.id, manner.attempt);
            head.insert(RETRY_AFTER, HeaderValue::from(seconds));
            head.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        StatusCode::TOO_MANY_REQUESTS => {
            let seconds = seconds_to_wait(problem.id, manner.attempt);
            head.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        StatusCode::UNAUTHORIZED => {
            head.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        StatusCode::METHOD_NOT_ALLOWED => {
            head.insert(ALLOW, HeaderValue::from_static(problem.allow));
        }
        _ => {}
    }
    answer
}

/// JSON that is there already.
#[must_use]
pub fn described(json: &'static str) -> Answer {
    let mut answer = text(StatusCode::OK, json);
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    answer
}

/// A short text, for `/livez` and `/readyz`.
#[must_use]
pub fn text(status: StatusCode, text: &'static str) -> Answer {
    let mut answer = Response::new(Full::new(Bytes::from_static(text.as_bytes())));
    *answer.status_mut() = status;
    let plain = HeaderValue::from_static("text/plain; charset=utf-8");
    answer.headers_mut().insert(CONTENT_TYPE, plain);
    answer
}

/// Tells the sender that the connection ends with this answer.
pub fn close(answer: &mut Answer) {
    answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
}

fn json(status: StatusCode, kind: &'static str, body: &impl Serialize) -> Answer {
    // Plain structs of strings and numbers always serialise; an empty body would still be true.
    let body = serde_json::to_vec(body).unwrap_or_default();
    let mut answer = Response::new(Full::new(Bytes::from(body)));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    answer
}

/// The part of a text that an error may have.
#[must_use]
pub fn shortened(text: &str) -> &str {
    let mut end = text.len().min(DETAIL_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or_default()
}

/// Seconds for `Retry-After`.
#[must_use]
pub fn seconds_to_wait(id: ErrorId, attempt: u32) -> u32 {
    retry_after(id, attempt, spread())
}

/// Seconds until the sender may come again: doubling with its attempts, spread by half of it to
/// each side, so that those who were refused together do not come back together.
fn retry_after(id: ErrorId, attempt: u32, random: u32) -> u32 {
    let (first, longest) = match id {
        ErrorId::EnvironmentPaused | ErrorId::NotAdmittedYet => (30, DECIDED_RETRY_AFTER_S_MAX),
        _ => (2, *RETRY_AFTER_S.end()),
    };
    // Spread by half, it still ends at the longest.
    let base = (first << attempt.min(8)).min(longest / 3 * 2);
    let seconds = base / 2 + random % (base + 1);
    seconds.max(*RETRY_AFTER_S.start())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_grows_with_the_senders_attempts_and_is_spread() {
        let spread = |id, attempt| {
            let all: Vec<u32> = (0..1_000).map(|n| retry_after(id, attempt, n)).collect();
            (*all.iter().min().unwrap(), *all.iter().max().unwrap())
        };
        assert_eq!(spread(ErrorId::KafkaSlow, 0), (1, 3));
        assert_eq!(spread(ErrorId::KafkaSlow, 3), (8, 24));
        assert_eq!(spread(ErrorId::KafkaSlow, 8), (20, 60));
        assert_eq!(spread(ErrorId::KafkaSlow, u32::MAX), (20, 60));
        assert_eq!(spread(ErrorId::EnvironmentPaused, u32::MAX), (200, 600));
    }

    #[test]
    fn every_error_is_explained_in_the_docs() {
        let docs = include_str!("../../../docs/errors.md");
        let ids = ErrorId::ALL.iter().map(|id| id.parts().0);
        for id in ids.chain(Refusal::ALL.iter().map(|refusal| refusal.as_str())) {
            assert!(docs.contains(&format!("\n### {id}\n")), "docs/errors.md lacks {id}");
        }
    }

    #[test]
    fn not_now_is_always_503_with_retry_after_and_close() {
        for id in ErrorId::ALL {
            let manner = Manner { attempt: 0, status_page: None, remote_write_429: false };
            let answer = problem(&Problem::new(id, "x"), manner);
            let later = answer.status() == StatusCode::SERVICE_UNAVAILABLE;
            let waits = later || answer.status() == StatusCode::TOO_MANY_REQUESTS;
            assert_eq!(answer.headers().contains_key(RETRY_AFTER), waits);
            assert_eq!(answer.headers().contains_key(CONNECTION), later);
            assert_ne!(answer.status(), StatusCode::INTERNAL_SERVER_ERROR);
        }
    }

    #[test]
    fn error_texts_are_short_and_hold_no_sender_s_magic_words() {
        let long = Problem::new(ErrorId::BadRequest, "ü".repeat(2_000));
        assert!(long.detail.len() <= DETAIL_BYTES_MAX);
        let magic = ["retention policy", "hinted handoff", "partial write", "unable to parse"];
        for id in ErrorId::ALL {
            assert!(magic.iter().all(|word| !id.parts().2.contains(word)));
        }
    }
}
