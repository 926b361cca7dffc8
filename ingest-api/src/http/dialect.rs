//! How an answer is worded for those who send with a protocol of their own: the statuses that
//! their clients understand (docs/clients.md has the table), in the form that they read.

use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use http_body_util::Full;
use serde_json::json;

use crate::http::respond::{self, Answer, ErrorId, Manner, Problem};
use crate::http::{otlp, remote_write};

/// InfluxDB's clients read an error here first.
const INFLUXDB_ERROR: HeaderName = HeaderName::from_static("x-influxdb-error");

/// Whom an answer is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// Our agent, and everything else that is ours.
    Own,
    /// Prometheus remote write; 2.0 wants to hear what was written, also on failure.
    RemoteWrite {
        counts: bool,
    },
    /// OTLP/HTTP, which answers in the request's encoding.
    Otlp {
        json: bool,
    },
    InfluxV1,
    InfluxV2,
    Datadog,
}

impl Dialect {
    /// The dialect of a request.
    #[must_use]
    pub fn of(path: &str, head: &HeaderMap) -> Self {
        match path {
            "/api/v1/write" | "/api/v1/push" => Self::RemoteWrite {
                counts: remote_write::version(head) == Some(remote_write::Version::V2),
            },
            "/v1/metrics" => Self::Otlp { json: otlp::is_json(head) },
            "/write" | "/query" => Self::InfluxV1,
            "/api/v2/write" => Self::InfluxV2,
            "/api/v1/series" | "/api/v2/series" | "/api/v1/validate" => Self::Datadog,
            _ => Self::Own,
        }
    }

    /// The status of a problem, where it is not its own.
    fn status(self, id: ErrorId, manner: Manner<'_>) -> StatusCode {
        use StatusCode as S;
        match (self, id) {
            (Self::RemoteWrite { .. }, ErrorId::BodyTooLarge) => S::BAD_REQUEST,
            (Self::RemoteWrite { .. }, ErrorId::OverQuota) if manner.remote_write_429 => {
                S::TOO_MANY_REQUESTS
            }
            (Self::RemoteWrite { .. } | Self::InfluxV1, ErrorId::OverQuota) => {
                S::SERVICE_UNAVAILABLE
            }
            (Self::Datadog, ErrorId::Unauthorized | ErrorId::TokenRevoked) => S::FORBIDDEN,
            (Self::Own, id) => id.parts().1,
            // A client that hears 403 gives up for good; a token may be mended.
            (_, ErrorId::TokenRevoked) => S::UNAUTHORIZED,
            (_, id) => id.parts().1,
        }
    }

    /// The answer to a request that was not taken.
    #[must_use]
    pub fn problem(self, problem: &Problem, manner: Manner<'_>) -> Answer {
        if self == Self::Own {
            return respond::problem(problem, manner);
        }
        let status = self.status(problem.id, manner);
        let mut answer = self.refusal(status, problem.detail());
        let head = answer.headers_mut();
        if matches!(status, StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS) {
            let seconds = respond::seconds_to_wait(problem.id, manner.attempt);
            head.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        if status == StatusCode::SERVICE_UNAVAILABLE {
            respond::close(&mut answer);
        } else if status == StatusCode::UNAUTHORIZED {
            let scheme = match self {
                Self::InfluxV1 => "Basic realm=\"spillway\"",
                Self::InfluxV2 => "Token realm=\"spillway\"",
                _ => "Bearer",
            };
            head.insert(WWW_AUTHENTICATE, HeaderValue::from_static(scheme));
        } else if status == StatusCode::METHOD_NOT_ALLOWED {
            head.insert(ALLOW, HeaderValue::from_static(problem.allow()));
        }
        answer
    }

    /// An error in the dialect's own form.
    #[must_use]
    pub fn refusal(self, status: StatusCode, text: &str) -> Answer {
        let text = respond::shortened(text);
        match self {
            Self::Own => bare(status, text.into(), "text/plain; charset=utf-8"),
            Self::RemoteWrite { counts } => {
                let mut answer = bare(status, text.into(), "text/plain; charset=utf-8");
                if counts {
                    remote_write::count(&mut answer, remote_write::Written::default());
                }
                answer
            }
            Self::Otlp { json } => otlp::status(status, text, json),
            Self::InfluxV1 => {
                let mut answer = in_json(status, &json!({ "error": text }));
                if let Ok(value) = HeaderValue::from_str(&one_line(text)) {
                    answer.headers_mut().insert(INFLUXDB_ERROR, value);
                }
                answer
            }
            Self::InfluxV2 => {
                in_json(status, &json!({ "code": influx_code(status), "message": text }))
            }
            Self::Datadog => in_json(status, &json!({ "errors": [text] })),
        }
    }
}

/// InfluxDB 2's words for statuses.
fn influx_code(status: StatusCode) -> &'static str {
    match status.as_u16() {
        401 => "unauthorized",
        403 => "forbidden",
        404 => "not found",
        405 => "method not allowed",
        413 => "request too large",
        415 => "unsupported media type",
        429 => "too many requests",
        503 => "unavailable",
        _ => "invalid",
    }
}

/// What a header may hold.
fn one_line(text: &str) -> String {
    let plain = |c: char| if c.is_ascii_graphic() || c == ' ' { c } else { '?' };
    text.chars().map(plain).collect()
}

/// An answer without any error.
#[must_use]
pub fn empty(status: StatusCode) -> Answer {
    let mut answer = Response::new(Full::new(Bytes::new()));
    *answer.status_mut() = status;
    answer
}

/// An answer of these bytes.
#[must_use]
pub fn bare(status: StatusCode, body: Vec<u8>, kind: &'static str) -> Answer {
    let mut answer = Response::new(Full::new(Bytes::from(body)));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    answer
}

/// An answer in JSON.
#[must_use]
pub fn in_json(status: StatusCode, body: &serde_json::Value) -> Answer {
    bare(status, body.to_string().into_bytes(), "application/json")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Remote write, OTLP, Influx 1 and 2, Datadog.
    const ALL: [Dialect; 5] = [
        Dialect::RemoteWrite { counts: true },
        Dialect::Otlp { json: true },
        Dialect::InfluxV1,
        Dialect::InfluxV2,
        Dialect::Datadog,
    ];

    fn statuses(id: ErrorId, remote_write_429: bool) -> [u16; 5] {
        let manner = Manner { attempt: 0, status_page: None, remote_write_429 };
        ALL.map(|dialect| dialect.problem(&Problem::new(id, "x"), manner).status().as_u16())
    }

    #[test]
    fn each_situation_has_the_status_of_docs_clients_md() {
        assert_eq!(statuses(ErrorId::UndecodableBody, false), [400; 5]);
        assert_eq!(statuses(ErrorId::UnsupportedMediaType, false), [415; 5]);
        assert_eq!(statuses(ErrorId::BodyTooLarge, false), [400, 413, 413, 413, 413]);
        assert_eq!(statuses(ErrorId::OverQuota, false), [503, 429, 503, 429, 429]);
        assert_eq!(statuses(ErrorId::OverQuota, true), [429, 429, 503, 429, 429]);
        assert_eq!(statuses(ErrorId::Unauthorized, false), [401, 401, 401, 401, 403]);
        assert_eq!(statuses(ErrorId::TokenRevoked, false), [401, 401, 401, 401, 403]);
    }

    #[test]
    fn not_now_is_503_for_all_and_500_is_for_none() {
        use ErrorId as E;
        let later = [
            E::BodyTooSlow,
            E::Draining,
            E::EnvironmentPaused,
            E::KafkaUnavailable,
            E::KafkaSlow,
            E::NotAdmittedYet,
            E::Overloaded,
            E::TokensUnavailable,
            E::Internal,
        ];
        for id in ErrorId::ALL {
            assert_eq!(later.contains(&id), statuses(id, false) == [503; 5], "{id:?}");
            assert!(!statuses(id, false).contains(&500));
        }
    }

    #[test]
    fn an_error_s_text_is_short_in_every_form() {
        for dialect in ALL {
            let answer = dialect.refusal(StatusCode::BAD_REQUEST, &"\"ü".repeat(2_000));
            let header = answer.headers().get(INFLUXDB_ERROR).map_or(0, HeaderValue::len);
            assert!(header <= respond::DETAIL_BYTES_MAX);
        }
    }
}
