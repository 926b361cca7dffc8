//! Trying both ways out by hand, for `spillway-agent doctor`: one harmless request each.

use std::time::Duration;

use http::StatusCode;
use spillway_proto::kafka_record::Lane;

use super::StartError;
use super::ingest_api::IngestApi;
use super::s3_park::{ParkError, S3Park};
use crate::settings::Settings;

/// What an API server said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ApiProbe {
    /// 401 and 403 mean that the token is refused.
    pub status: u16,
    /// This clock minus the server's.
    pub clock_skew_ms: Option<i64>,
    pub took: Duration,
}

/// Why a way could not be tried, or does not work.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    #[error(transparent)]
    Settings(#[from] StartError),
    #[error("{0}")]
    NoAnswer(String),
    #[error(transparent)]
    Park(#[from] ParkError),
    #[error("there is no way to S3: spill.enabled is false")]
    NoSpill,
}

/// Sends a request without any batch to one server.
///
/// # Errors
/// The settings can't be used, or there was no answer within `deliver.request_timeout`.
pub async fn probe_api(settings: &Settings, endpoint: &str) -> Result<ApiProbe, ProbeError> {
    let mut settings = settings.clone();
    settings.deliver.endpoints = vec![endpoint.to_owned()];
    let told = IngestApi::new(&settings)?.send(Lane::Live, &[], 0).await;
    let status = told.status.map(|status: StatusCode| status.as_u16());
    match status {
        Some(status) => Ok(ApiProbe { status, clock_skew_ms: told.clock_skew_ms, took: told.took }),
        None => Err(ProbeError::NoAnswer(told.error.unwrap_or_default())),
    }
}

/// Puts one small sealed object without any batch into S3; the recovery worker retires it.
///
/// # Errors
/// The settings can't be used, or S3 did not take it within `spill.request_timeout`.
pub async fn probe_spill(settings: &Settings) -> Result<Duration, ProbeError> {
    let s3 = S3Park::new(settings)?.ok_or(ProbeError::NoSpill)?;
    let began = std::time::Instant::now();
    s3.park(&[]).await?;
    Ok(began.elapsed())
}
