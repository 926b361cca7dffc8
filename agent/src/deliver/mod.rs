//! Delivery: from the spool to ingest-api, or round it to S3.
//!
//! Two lanes take batches in hand: live, newest first, and backlog, oldest first and at a limited
//! rate, so that after an outage dashboards are current at once and history fills in behind. The
//! route (`route.rs`) says which way; the sinks (`ingest_api.rs`, `s3_park.rs`) make one attempt
//! and tell what is known of it; `carry.rs` and `refuse.rs` end each custody by what was told.
//! Nothing but a typed refusal of a batch's own content ends its attempts, and then it is in
//! quarantine.
//!
//! S3 is kept warm: now and then one real batch goes there as well (`warm.rs`).

use std::sync::Arc;

use serde::Serialize;
use spillway_proto::kafka_record::Lane;
use spillway_runtime::admin::DependencyProbe;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::credential::{Credential, NoToken};
use crate::folder::Folder;
use crate::identity::CustodyLog;
use crate::metrics::Metrics;
use crate::settings::Settings;
use crate::spool::Spool;

mod route;
mod pace;
pub mod http_client;
mod ingest_api;
mod seal;
mod s3_park;
mod carry;
mod quarantine;
mod refuse;
mod warm;
mod lanes;
mod status;

pub mod probe;

#[cfg(test)]
mod deliver_tests;
#[cfg(test)]
mod test_server;

pub use self::quarantine::ids_in as quarantined;
pub use self::s3_park::{ParkError, S3Park};
pub use self::status::{DeliverySnapshot, DeliveryStatus};

use self::carry::Carrier;
use self::http_client::Network;

/// Where refused batches lie, in the state directory.
pub const QUARANTINE_DIR: &str = "quarantine";

/// What delivery is made of.
pub struct Parts {
    pub settings: Arc<Settings>,
    pub spool: Spool,
    pub log: Arc<dyn CustodyLog>,
    pub metrics: Metrics,
    pub status: Arc<DeliveryStatus>,
    pub api_health: DependencyProbe,
    pub s3_health: DependencyProbe,
    pub network: Arc<dyn Network>,
    pub credential: Credential,
    /// Where refused batches lie.
    pub quarantine: Arc<dyn Folder>,
}

/// How delivery ends: `drain` asks it to send what there is and stop, `now` to stop.
#[derive(Clone)]
pub struct Stop {
    pub drain: CancellationToken,
    pub now: CancellationToken,
}

/// What was not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Leftover {
    pub batches: u64,
    pub volatile_batches: u64,
}

/// Why delivery can't start: the settings don't fit.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("the HTTP client can't be set up")]
    Client(#[from] http_client::BuildError),
    #[error(transparent)]
    Key(#[from] seal::KeyError),
    #[error("{url:?} is not the base URL of an ingest-api")]
    Url { url: String },
    #[error(transparent)]
    Token(#[from] NoToken),
    #[error("a task of delivery ended by itself")]
    Task(#[from] tokio::task::JoinError),
}

/// Sends what the spool holds until `stop` fires. An error means that it could not start, or a
/// bug.
///
/// # Errors
/// A certificate file, a key or a URL that can't be used.
pub async fn run(parts: Parts, stop: Stop) -> Result<Leftover, StartError> {
    let spool = parts.spool.clone();
    let in_flight = parts.settings.deliver.live_in_flight;
    let carrier = Arc::new(Carrier::new(parts, stop).await?);
    let mut lanes = JoinSet::new();
    for _ in 0..in_flight {
        lanes.spawn(lanes::serve(Arc::clone(&carrier), Lane::Live));
    }
    lanes.spawn(lanes::serve(Arc::clone(&carrier), Lane::Backlog));
    let second_try =
        AbortOnDropHandle::new(tokio::spawn(lanes::try_quarantine(Arc::clone(&carrier))));
    let mut ended = Ok(());
    while let Some(lane) = lanes.join_next().await {
        ended = ended.and(lane);
    }
    second_try.abort();
    carrier.end_warming().await;
    let totals = spool.settled_totals().await;
    ended?;
    Ok(Leftover { batches: totals.batches, volatile_batches: totals.volatile_batches })
}
