//! What delivery tells of itself: for `status`, and for the host info in batches.

use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::Serialize;

use super::route::State;

/// Errors are shown up to this length.
const ERROR_BYTES_MAX: usize = 300;

/// Written by the lanes, read by anybody.
#[derive(Debug, Default)]
pub struct DeliveryStatus(Mutex<DeliverySnapshot>);

/// One look at it. Times are ms since the Unix epoch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DeliverySnapshot {
    /// `direct`, `park` or `probe`.
    pub route: &'static str,
    pub route_since_ms: i64,
    /// The API server in use.
    pub endpoint: Option<String>,
    pub last_ack_ms: Option<i64>,
    pub last_park_ms: Option<i64>,
    pub last_warm_ms: Option<i64>,
    pub last_error: Option<String>,
    pub last_error_ms: Option<i64>,
    /// This clock minus the server's.
    pub clock_skew_ms: Option<i64>,
    pub auth_refused: bool,
}

impl Default for DeliverySnapshot {
    fn default() -> Self {
        Self {
            route: State::Direct.as_str(),
            route_since_ms: now_ms(),
            endpoint: None,
            last_ack_ms: None,
            last_park_ms: None,
            last_warm_ms: None,
            last_error: None,
            last_error_ms: None,
            clock_skew_ms: None,
            auth_refused: false,
        }
    }
}

impl DeliveryStatus {
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    #[must_use]
    pub fn snapshot(&self) -> DeliverySnapshot {
        self.get().clone()
    }

    fn get(&self) -> MutexGuard<'_, DeliverySnapshot> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether this is news.
    pub(super) fn route(&self, state: State, auth_refused: bool) -> bool {
        let mut status = self.get();
        status.auth_refused = auth_refused;
        let changed = status.route != state.as_str();
        if changed {
            status.route = state.as_str();
            status.route_since_ms = now_ms();
        }
        changed
    }

    pub(super) fn acked(&self, endpoint: &str) {
        let mut status = self.get();
        status.last_ack_ms = Some(now_ms());
        if status.endpoint.as_deref() != Some(endpoint) {
            status.endpoint = Some(endpoint.to_owned());
        }
    }

    pub(super) fn parked(&self) {
        self.get().last_park_ms = Some(now_ms());
    }

    pub(super) fn warmed(&self) {
        self.get().last_warm_ms = Some(now_ms());
    }

    pub(super) fn skew(&self, skew_ms: i64) {
        self.get().clock_skew_ms = Some(skew_ms);
    }

    pub(super) fn failed(&self, error: &str) {
        let mut status = self.get();
        status.last_error = Some(error.chars().take(ERROR_BYTES_MAX).collect());
        status.last_error_ms = Some(now_ms());
    }
}

/// The wall clock.
pub(super) fn now_ms() -> i64 {
    spillway_runtime::outside::wall_ms()
}
