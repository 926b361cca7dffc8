//! A request's body, read at a pace that is bounded below and up to a size that is bounded above.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http::header::CONTENT_LENGTH;
use http_body_util::BodyExt;
use hyper::body::Body;
use spillway_runtime::deadline;
use tokio::time::Instant;

use crate::settings::HttpSettings;

/// Before the pace of a body is judged.
const GRACE: Duration = Duration::from_secs(2);

/// What a connection says of its end.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Why a body was not read to its end.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    #[error("the body is longer than the limit of {bytes_max} bytes")]
    TooLarge { bytes_max: usize },
    #[error("the body came too slowly: {bytes} bytes in {} ms", took.as_millis())]
    TooSlow { bytes: usize, took: Duration },
    #[error("the Content-Length is no number")]
    Length,
    #[error("the body broke off: {0}")]
    Broken(#[source] BoxError),
}

/// What a body will need of memory: its stated length, or the limit when it states none.
///
/// # Errors
/// [`BodyError::TooLarge`] before a byte of it is read, or [`BodyError::Length`].
pub fn bytes_needed(head: &HeaderMap, bytes_max: usize) -> Result<usize, BodyError> {
    let Some(stated) = head.get(CONTENT_LENGTH) else { return Ok(bytes_max) };
    let stated = stated.to_str().ok().and_then(|text| text.trim().parse::<u64>().ok());
    match usize::try_from(stated.ok_or(BodyError::Length)?) {
        Ok(bytes) if bytes <= bytes_max => Ok(bytes),
        Ok(_) | Err(_) => Err(BodyError::TooLarge { bytes_max }),
    }
}

/// Reads `body` to its end. One chunk is passed on as it is; more are put together once.
///
/// # Errors
/// [`BodyError`]; what was read is gone.
pub async fn read<B>(mut body: B, bounds: &HttpSettings) -> Result<Bytes, BodyError>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<BoxError>,
{
    let bytes_max = bounds.body_bytes_max.as_usize();
    let stated = body.size_hint().exact().and_then(|bytes| usize::try_from(bytes).ok());
    let began = Instant::now();
    let mut first = Bytes::new();
    let mut whole = BytesMut::new();
    let mut bytes = 0;
    loop {
        let patience = patience(bounds, bytes).saturating_sub(began.elapsed());
        let Ok(frame) = deadline::within(patience, body.frame()).await else {
            return Err(BodyError::TooSlow { bytes, took: began.elapsed() });
        };
        let Some(frame) = frame else { break };
        // Trailers carry nothing of ours.
        let frame = frame.map_err(|cause| BodyError::Broken(cause.into()))?;
        let Ok(chunk) = frame.into_data() else { continue };
        bytes += chunk.len();
        if bytes > bytes_max {
            return Err(BodyError::TooLarge { bytes_max });
        }
        if first.is_empty() && whole.is_empty() {
            first = chunk;
            continue;
        }
        if whole.is_empty() {
            whole.reserve(stated.unwrap_or(bytes));
            whole.extend_from_slice(&std::mem::take(&mut first));
        }
        whole.extend_from_slice(&chunk);
    }
    Ok(if whole.is_empty() { first } else { whole.freeze() })
}

/// When the byte after the first `bytes` must be here, from the begin of the body.
fn patience(bounds: &HttpSettings, bytes: usize) -> Duration {
    let per_second = bounds.body_bytes_per_second_min.get().max(1) as f64;
    let paced = GRACE + Duration::from_secs_f64((bytes + 1) as f64 / per_second);
    paced.min(bounds.body_within.get())
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use spillway_runtime::settings::{Dur, Size};

    use super::*;

    fn stated(length: &str) -> HeaderMap {
        [(CONTENT_LENGTH, HeaderValue::from_str(length).unwrap())].into_iter().collect()
    }

    #[test]
    fn a_stated_length_is_judged_before_a_byte_is_read() {
        assert_eq!(bytes_needed(&stated("100"), 100).unwrap(), 100);
        assert_eq!(bytes_needed(&HeaderMap::new(), 100).unwrap(), 100);
        let large = bytes_needed(&stated("101"), 100);
        assert!(matches!(large, Err(BodyError::TooLarge { bytes_max: 100 })));
        let huge = bytes_needed(&stated("18446744073709551615"), 100);
        assert!(matches!(huge, Err(BodyError::TooLarge { .. })));
        assert!(matches!(bytes_needed(&stated("-1"), 100), Err(BodyError::Length)));
    }

    #[test]
    fn a_body_must_keep_its_pace() {
        let bounds = HttpSettings {
            body_within: Dur::from_secs(30),
            body_bytes_per_second_min: Size::bytes(1_000),
            ..HttpSettings::default()
        };
        assert_eq!(patience(&bounds, 0).as_millis(), 2_001);
        assert_eq!(patience(&bounds, 4_999).as_millis(), 7_000);
        assert_eq!(patience(&bounds, 1_000_000), Duration::from_secs(30));
    }
}
