//! Series of Datadog's agents: `POST /api/v1/series` (JSON), `/api/v2/series` (JSON or protobuf),
//! and `GET /api/v1/validate`, by which they try their key.
//!
//! <https://docs.datadoghq.com/api/latest/metrics/>; protobuf: `agent-payload`, MetricPayload.

mod payload;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{Request, StatusCode};
use hyper::body::Body;
use serde_json::json;

use crate::app::App;
use crate::http::body::BoxError;
use crate::http::dialect::{Dialect, in_json};
use crate::http::foreign;
use crate::http::respond::{Answer, DETAIL_BYTES_MAX, ErrorId, Problem};
use crate::unpack::Coding;

pub use payload::{Form, read};

const CODINGS: [Coding; 4] = [Coding::Identity, Coding::Deflate, Coding::Zstd, Coding::Gzip];

/// Takes series, or says why not.
///
/// # Errors
/// [`Problem`], to be worded by [`Dialect::Datadog`].
pub async fn handle<B>(app: &App, request: Request<B>, version: u8) -> Result<Answer, Problem>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<BoxError>,
{
    let (head, incoming) = request.into_parts();
    let unknown = |what| Problem::new(ErrorId::UnsupportedMediaType, what);
    let kind = head.headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    let kind = kind.unwrap_or("application/json").split(';').next().unwrap_or_default().trim();
    let form = match (version, kind.to_ascii_lowercase().as_str()) {
        (1, "application/json") => Form::V1,
        (_, "application/json") => Form::V2,
        (2, "application/x-protobuf") => Form::V2Protobuf,
        _ => return Err(unknown("send application/json, or application/x-protobuf to v2")),
    };
    let coding = Coding::of(&head.headers, &CODINGS)
        .ok_or_else(|| unknown("send Content-Encoding deflate, zstd, gzip or none"))?;
    let taken =
        foreign::take(app, &head, incoming, coding, move |body, intake| read(body, form, intake))
            .await?;
    if taken.refusals.points > 0 {
        let text = taken.refusals.text(DETAIL_BYTES_MAX);
        return Ok(Dialect::Datadog.refusal(StatusCode::BAD_REQUEST, &text));
    }
    let done = if version == 1 { json!({ "status": "ok" }) } else { json!({ "errors": [] }) };
    Ok(in_json(StatusCode::ACCEPTED, &done))
}

/// Whether a key is good.
///
/// # Errors
/// [`Problem`] when it is not.
pub fn validate<B>(app: &App, request: Request<B>) -> Result<Answer, Problem> {
    let (head, _) = request.into_parts();
    foreign::caller(app, &head)?;
    Ok(in_json(StatusCode::OK, &json!({ "valid": true })))
}
