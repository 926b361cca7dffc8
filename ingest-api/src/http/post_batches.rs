//! `POST /v1/batches`: one or more frames, one after the other. The way of a request, in order.

use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use http::request::Request;
use hyper::body::Body;
use jiff::Timestamp;
use spillway_proto::kafka_record::Lane;
use spillway_runtime::outside;
use tokio::time::Instant;

use crate::app::App;
use crate::authenticate;
use crate::http::respond::{self, Answer, ErrorId, Problem};
use crate::http::{body, doors};
use crate::publish;
use crate::verify::{self, Against};

/// Which topic the batches go to: `live` (the default) or `backlog`.
pub const HEADER_LANE: &str = "spillway-lane";
/// How often the sender has tried already; spreads its retries.
pub const HEADER_ATTEMPT: &str = "spillway-attempt";

/// What a body of frames may call itself, beside nothing at all.
const CONTENT_TYPES: [&str; 2] = ["application/octet-stream", "application/vnd.spillway.frames"];

/// Takes the batches of a request, or says why not.
pub async fn handle<B>(app: &App, request: Request<B>) -> Result<Answer, Problem>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<body::BoxError>,
{
    let (head, incoming) = request.into_parts();
    let within = app.settings.http.answer_within.get();
    let began = Instant::now();

    app.admission.open()?;
    let caller = authenticate::caller(&app.tokens, &head.headers, now())?;
    doors::prove(&head.extensions, &caller)?;
    let lane = kind(&head.headers)?;
    app.quotas.request(&caller)?;
    let needed = body::bytes_needed(&head.headers, app.settings.http.body_bytes_max.as_usize())?;
    let mut room = app.admission.room(&caller, needed, within).await?;

    let arriving = Instant::now();
    let body = body::read(incoming, &app.settings.http).await?;
    let bytes = body.len();
    // The sender's own pace is not counted against the answer.
    let paused: Duration = arriving.elapsed();
    room.shrink_to(body.len());
    app.metrics.body_bytes.inc_by(body.len() as u64);

    app.admission.agent(&body)?;
    let left = || (within + paused).saturating_sub(began.elapsed());
    let against = Against::new(&caller, app.partitioning);
    let checked = verify::body(body, against, &app.admission, left()).await?;
    let receipt = app.metrics.books.enter(&checked, 0);
    app.quotas.charge(&caller, bytes, checked.points());
    app.quotas.series(&caller, &checked.series)?;

    let published = publish::all(&app.publisher, lane, &caller, checked, left()).await;
    if let Some(ack_time) = publish::ack_time(&published, within) {
        app.admission.observe(ack_time);
    }
    let acknowledged = published?;
    receipt.acknowledged(&acknowledged);
    for rejection in &acknowledged.rejected {
        app.tell_of_rejected(&rejection.batch, &caller);
    }
    drop(room);
    Ok(respond::accepted(acknowledged, &caller))
}

fn now() -> Timestamp {
    Timestamp::from_millisecond(outside::wall_ms()).unwrap_or(Timestamp::MIN)
}

/// The lane, of a body that is what this route takes.
fn kind(head: &HeaderMap) -> Result<Lane, Problem> {
    let text = |name| head.get(name).map(|value| value.to_str().unwrap_or("?"));
    let essence = |value: &str| value.split(';').next().unwrap_or("").trim().to_ascii_lowercase();
    if let Some(kind) = text(CONTENT_TYPE.as_str())
        && !CONTENT_TYPES.contains(&essence(kind).as_str())
    {
        let detail = format!("send {} or no Content-Type", CONTENT_TYPES.join(" or "));
        return Err(Problem::new(ErrorId::UnsupportedMediaType, detail));
    }
    if let Some(encoding) = text(CONTENT_ENCODING.as_str())
        && !encoding.eq_ignore_ascii_case("identity")
    {
        let detail = "frames are compressed already: send no Content-Encoding";
        return Err(Problem::new(ErrorId::UnsupportedMediaType, detail));
    }
    let lane = text(HEADER_LANE).map_or(Some(Lane::Live), Lane::parse);
    lane.ok_or_else(|| Problem::new(ErrorId::BadRequest, "Spillway-Lane must be live or backlog"))
}

/// The sender's count of its attempts; absent or nonsense counts as the first.
#[must_use]
pub fn attempt(head: &HeaderMap) -> u32 {
    let value = head.get(HEADER_ATTEMPT).and_then(|value| value.to_str().ok());
    value.and_then(|text| text.trim().parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use http::header::HeaderName;

    use super::*;

    fn head(name: &'static str, value: &'static str) -> HeaderMap {
        [(HeaderName::from_static(name), HeaderValue::from_static(value))].into_iter().collect()
    }

    #[test]
    fn a_body_is_live_unless_it_says_backlog() {
        assert_eq!(kind(&HeaderMap::new()).unwrap(), Lane::Live);
        assert_eq!(kind(&head(HEADER_LANE, "backlog")).unwrap(), Lane::Backlog);
        assert_eq!(kind(&head(HEADER_LANE, "fast")).unwrap_err().id, ErrorId::BadRequest);
    }

    #[test]
    fn a_body_of_another_kind_is_refused_before_it_is_read() {
        for (name, value) in [("content-type", "application/json"), ("content-encoding", "gzip")] {
            let problem = kind(&head(name, value)).unwrap_err();
            assert_eq!(problem.id, ErrorId::UnsupportedMediaType);
        }
        assert!(kind(&head("content-type", "Application/Octet-Stream; x=y")).is_ok());
    }

    #[test]
    fn a_nonsense_attempt_counts_as_the_first() {
        assert_eq!(attempt(&head(HEADER_ATTEMPT, "7")), 7);
        assert_eq!(attempt(&head(HEADER_ATTEMPT, "-7")), 0);
        assert_eq!(attempt(&HeaderMap::new()), 0);
    }
}
