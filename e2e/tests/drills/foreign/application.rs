//! An application that hands its measurements to an OpenTelemetry collector on its host and
//! remembers which of them were taken.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::json;
use spillway_e2e::rig::SETTLED_WITHIN;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::post;
use crate::sending::until;

/// Series of the application.
pub const SERIES: u64 = 50;
const MEASURES_EVERY: Duration = Duration::from_millis(250);
/// A collector on the same host answers at once or not at all.
const PATIENCE: Duration = Duration::from_secs(5);

type Taken = Arc<Mutex<Vec<(i64, u64)>>>;

pub struct Application {
    taken: Taken,
    measuring: JoinHandle<()>,
}

impl Drop for Application {
    fn drop(&mut self) {
        self.measuring.abort();
    }
}

impl Application {
    /// Measures, and says the same again until the collector has it.
    pub fn start(collector: SocketAddr) -> Self {
        let taken = Taken::default();
        let seen = Arc::clone(&taken);
        let measuring = tokio::spawn(async move {
            for number in 1.. {
                let ts_ms = now_ms();
                let body = measured(number, ts_ms);
                while !says(collector, &body).await {
                    tokio::time::sleep(MEASURES_EVERY).await;
                }
                seen.lock().unwrap_or_else(PoisonError::into_inner).push((ts_ms, number));
                tokio::time::sleep(MEASURES_EVERY).await;
            }
        });
        Self { taken, measuring }
    }

    /// Time in ms and number of each measurement that was taken so far.
    pub fn taken(&self) -> Vec<(i64, u64)> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Until so many more were taken.
    pub async fn measures(&self, more: usize) {
        let wanted = self.taken().len() + more;
        until("the collector takes", SETTLED_WITHIN, async || self.taken().len() >= wanted).await;
    }
}

async fn says(collector: SocketAddr, body: &str) -> bool {
    let kind = "Content-Type: application/json";
    let address = collector.to_string();
    let asked = timeout(PATIENCE, post(&address, "/v1/metrics", kind, body)).await;
    matches!(asked, Ok(Ok(200)))
}

/// `drill_series{n="0"}` is the number, and more for others.
fn measured(number: u64, ts_ms: i64) -> String {
    let point = |n: u64| {
        json!({
            "timeUnixNano": (ts_ms * 1_000_000).to_string(),
            "asDouble": (number + n) as f64,
            "attributes": [{"key": "n", "value": {"stringValue": n.to_string()}}],
        })
    };
    let points: Vec<_> = (0..SERIES).map(point).collect();
    let metric = json!({"name": "drill_series", "gauge": {"dataPoints": points}});
    let host = json!({"key": "host.name", "value": {"stringValue": "app-1"}});
    let scopes = json!([{"scope": {"name": "drill"}, "metrics": [metric]}]);
    json!({"resourceMetrics": [{"resource": {"attributes": [host]}, "scopeMetrics": scopes}]})
        .to_string()
}

fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock");
    i64::try_from(since.as_millis()).expect("a time")
}
