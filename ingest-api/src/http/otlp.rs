//! OTLP/HTTP metrics: `POST /v1/metrics`, in protobuf or JSON.
//!
//! <https://opentelemetry.io/docs/specs/otlp/#otlphttp>. Points that can't be stored are counted in
//! `partialSuccess`; a failure's body is a `google.rpc.Status`, in the request's encoding.

mod from_json;
mod from_protobuf;
mod points;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, Request, StatusCode};
use hyper::body::Body;
use prost::encoding::{int64, string};
use serde_json::json;

use crate::app::App;
use crate::cut::Refusals;
use crate::http::body::BoxError;
use crate::http::dialect::{bare, in_json};
use crate::http::foreign;
use crate::http::respond::{self, Answer, ErrorId, Problem};
use crate::unpack::Coding;

pub use from_json::read as read_json;
pub use from_protobuf::read as read_protobuf;

const PROTOBUF: &str = "application/x-protobuf";
const JSON: &str = "application/json";
const CODINGS: [Coding; 4] = [Coding::Identity, Coding::Gzip, Coding::Deflate, Coding::Zstd];

/// Takes a body, or says why not.
///
/// # Errors
/// [`Problem`], to be worded by [`crate::http::dialect::Dialect::Otlp`].
pub async fn handle<B>(app: &App, request: Request<B>) -> Result<Answer, Problem>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<BoxError>,
{
    let (head, incoming) = request.into_parts();
    let unknown = |what| Problem::new(ErrorId::UnsupportedMediaType, what);
    let json = match essence(&head.headers).as_str() {
        PROTOBUF => false,
        JSON => true,
        _ => return Err(unknown("send application/x-protobuf or application/json")),
    };
    let coding = Coding::of(&head.headers, &CODINGS)
        .ok_or_else(|| unknown("send Content-Encoding gzip, deflate, zstd or none"))?;
    let taken = foreign::take(app, &head, incoming, coding, move |body, intake| {
        if json { from_json::read(body, intake) } else { from_protobuf::read(body, intake) }
    })
    .await?;
    Ok(success(&taken.refusals, json))
}

/// Whether a request is in JSON, and so is its answer.
#[must_use]
pub fn is_json(head: &HeaderMap) -> bool {
    essence(head) == JSON
}

fn essence(head: &HeaderMap) -> String {
    let kind = head.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

/// An `ExportMetricsServiceResponse`.
fn success(refusals: &Refusals, json: bool) -> Answer {
    let text = refusals.text(respond::DETAIL_BYTES_MAX);
    let refused = i64::try_from(refusals.points).unwrap_or(i64::MAX);
    match (json, refusals.points) {
        (true, 0) => in_json(StatusCode::OK, &json!({})),
        (true, _) => {
            let partial =
                json!({ "rejectedDataPoints": refused.to_string(), "errorMessage": text });
            in_json(StatusCode::OK, &json!({ "partialSuccess": partial }))
        }
        (false, 0) => bare(StatusCode::OK, Vec::new(), PROTOBUF),
        (false, _) => {
            let mut partial = Vec::new();
            int64::encode(1, &refused, &mut partial);
            string::encode(2, &text, &mut partial);
            let mut body = Vec::new();
            prost::encoding::bytes::encode(1, &partial, &mut body);
            bare(StatusCode::OK, body, PROTOBUF)
        }
    }
}

/// A `google.rpc.Status`.
#[must_use]
pub fn status(status: StatusCode, text: &str, json: bool) -> Answer {
    // google.rpc.Code: what each HTTP status stands for there.
    let code: i32 = match status.as_u16() {
        401 => 16,
        403 => 7,
        404 | 405 => 12,
        413 | 429 => 8,
        503 => 14,
        _ => 3,
    };
    if json {
        return in_json(status, &json!({ "code": code, "message": text }));
    }
    let mut body = Vec::new();
    prost::encoding::int32::encode(1, &code, &mut body);
    string::encode(2, &text.to_owned(), &mut body);
    bare(status, body, PROTOBUF)
}
