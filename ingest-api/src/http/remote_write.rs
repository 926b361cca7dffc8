//! Prometheus remote write 1.0 and 2.0: `POST /api/v1/write`, `/api/v1/push`.
//!
//! <https://prometheus.io/docs/specs/prw/remote_write_spec/>, and `_spec_2_0`. A series that breaks
//! a rule of the labels is refused alone: 400, with true counts, and everything else is in Kafka.

mod native_histogram;
mod series;
mod v1;
mod v2;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, USER_AGENT};
use http::{HeaderMap, HeaderName, HeaderValue, Request, StatusCode};
use hyper::body::Body;

use crate::app::App;
use crate::http::body::BoxError;
use crate::http::dialect::{self, Dialect};
use crate::http::foreign::{self, parameter};
use crate::http::respond::{self, Answer, ErrorId, Problem};
use crate::unpack::Coding;

pub use series::Reading;
pub use v1::read as read_v1;
pub use v2::read as read_v2;

const WRITTEN: [HeaderName; 3] = [
    HeaderName::from_static("x-prometheus-remote-write-samples-written"),
    HeaderName::from_static("x-prometheus-remote-write-histograms-written"),
    HeaderName::from_static("x-prometheus-remote-write-exemplars-written"),
];

/// The protocol's two versions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    V1,
    V2,
}

/// What of a body was written, as 2.0 wants to hear it. Exemplars never are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Written {
    pub samples: usize,
    pub histograms: usize,
}

/// Takes a body, or says why not.
///
/// # Errors
/// [`Problem`], to be worded by [`Dialect::RemoteWrite`].
pub async fn handle<B>(app: &App, request: Request<B>) -> Result<Answer, Problem>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<BoxError>,
{
    let (head, incoming) = request.into_parts();
    let unknown = |what| Problem::new(ErrorId::UnsupportedMediaType, what);
    let version = version(&head.headers).ok_or_else(|| {
        let kinds = "prometheus.WriteRequest or io.prometheus.write.v2.Request";
        unknown(format!("send application/x-protobuf of {kinds}"))
    })?;
    let coding = Coding::of(&head.headers, &[Coding::Snappy])
        .ok_or_else(|| unknown("send Content-Encoding: snappy".to_owned()))?;
    let grid_ms = match parameter(head.uri.query(), "scrape_interval") {
        None => None,
        Some(text) => Some(grid(&text).ok_or_else(|| {
            let what = "scrape_interval must be between 1s and 60m, like 15s";
            Problem::new(ErrorId::BadRequest, what)
        })?),
    };
    let reading = Reading { sorts: sender_does_not_sort(&head.headers), grid_ms };
    let taken = foreign::take(app, &head, incoming, coding, move |body, intake| match version {
        Version::V1 => v1::read(body, reading, intake),
        Version::V2 => v2::read(body, reading, intake),
    })
    .await?;
    let dialect = Dialect::RemoteWrite { counts: version == Version::V2 };
    let mut answer = if taken.refusals.points == 0 {
        dialect::empty(StatusCode::NO_CONTENT)
    } else {
        let text = taken.refusals.text(respond::DETAIL_BYTES_MAX);
        dialect.refusal(StatusCode::BAD_REQUEST, &text)
    };
    if version == Version::V2 {
        count(&mut answer, taken.tally);
    }
    Ok(answer)
}

/// The version that a head speaks of; `None` when it is neither.
#[must_use]
pub fn version(head: &HeaderMap) -> Option<Version> {
    let Some(kind) = head.get(CONTENT_TYPE) else { return Some(Version::V1) };
    let kind = kind.to_str().ok()?;
    let mut parts = kind.split(';').map(str::trim);
    if !parts.next()?.eq_ignore_ascii_case("application/x-protobuf") {
        return None;
    }
    for part in parts {
        let Some((name, value)) = part.split_once('=') else { continue };
        if name.trim().eq_ignore_ascii_case("proto") {
            return match value.trim().trim_matches('"') {
                "prometheus.WriteRequest" => Some(Version::V1),
                "io.prometheus.write.v2.Request" => Some(Version::V2),
                _ => None,
            };
        }
    }
    Some(Version::V1)
}

/// Seconds or minutes, as milliseconds.
fn grid(text: &str) -> Option<i64> {
    let seconds = match text.strip_suffix('s') {
        Some(seconds) => seconds.parse::<i64>().ok()?,
        None => text.strip_suffix('m')?.parse::<i64>().ok()?.checked_mul(60)?,
    };
    (1..=3_600).contains(&seconds).then_some(seconds * 1_000)
}

/// vmagent leaves labels in the order it met them (`-sortLabels` is off by default), and drops what
/// is answered 400: its labels are sorted here.
fn sender_does_not_sort(head: &HeaderMap) -> bool {
    let agent = head.get(USER_AGENT).and_then(|agent| agent.to_str().ok()).unwrap_or_default();
    agent.to_ascii_lowercase().starts_with("vmagent")
}

/// Says what was written.
pub fn count(answer: &mut Answer, written: Written) {
    let counts = [written.samples, written.histograms, 0];
    for (name, count) in WRITTEN.into_iter().zip(counts) {
        answer.headers_mut().insert(name, HeaderValue::from(count));
    }
}
