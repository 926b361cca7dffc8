//! What a shard's replicas have applied. Any of them may become primary, and consumers then go back
//! to where its `positions` stand: so Kafka keeps what the last of them still lacks, however old.
//!
//! One that does not answer counts as standing where it was last seen, for it may come back and
//! take over; one that was never seen, as having nothing. If it is gone for good, taking it out of
//! shards.toml says so.

use std::collections::HashMap;
use std::time::Duration;

use spillway_runtime::deadline::within;
use thiserror::Error;

use crate::kafka::Place;
use crate::lag::{LagError, positions};
use crate::shard::ShardHandle;

/// One replica's answer, log-in included: a round of trimming waits for each.
const ANSWER_DEADLINE: Duration = Duration::from_secs(5);

/// A replica that did not say what it has.
#[derive(Debug, Error)]
#[error(
    "replica {address} does not tell what it has applied ({cause}), so Kafka is trimmed no further \
     than it was seen to be; is it gone for good, take it out of shards.toml"
)]
pub struct UnknownReplica {
    /// host:port
    pub address: String,
    pub cause: String,
}

/// A shard's replicas, and where each was last seen.
pub struct Replicas(Vec<(ShardHandle, Option<HashMap<Place, i64>>)>);

impl Replicas {
    #[must_use]
    pub fn of(shard: &ShardHandle) -> Self {
        Self(shard.replicas.iter().map(|replica| (replica.clone(), None)).collect())
    }

    /// Asks every one of them; the last one that gave no answer is told.
    pub async fn ask(&mut self) -> Result<(), UnknownReplica> {
        let mut asked = Ok(());
        for (replica, seen) in &mut self.0 {
            let cause = match within(ANSWER_DEADLINE, look(replica)).await {
                Ok(Ok(positions)) => {
                    *seen = Some(positions);
                    continue;
                }
                Ok(Err(error)) => error.to_string(),
                Err(late) => late.to_string(),
            };
            asked = Err(UnknownReplica { address: replica.name.clone(), cause });
        }
        asked
    }

    /// The offset below which all of them have applied everything, as far as is known; without
    /// replicas any.
    #[must_use]
    pub fn applied(&self, place: Place) -> Option<i64> {
        let seen = |(_, seen): &(ShardHandle, Option<HashMap<Place, i64>>)| {
            seen.as_ref()?.get(&place).copied()
        };
        self.0.iter().map(seen).try_fold(i64::MAX, |lowest, seen| Some(lowest.min(seen?)))
    }
}

async fn look(replica: &ShardHandle) -> Result<HashMap<Place, i64>, LagError> {
    let mut session = replica.session().await?;
    let positions = positions(&mut session, replica).await?;
    session.give_back();
    Ok(positions.into_iter().collect())
}
