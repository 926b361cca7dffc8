//! The batch's record: at the place the ledger names, or among those that still wait.

use spillway_proto::BatchId;
use spillway_proto::kafka_record::Lane;
use spillway_runtime::program::chain;
use spillway_runtime::shards::ShardMap;

use super::Hop;
use super::mysql::{Audit, Stored, time};
use crate::desk::Desk;
use crate::failure::Failure;
use crate::reach::kafka::Found;

const HOP: &str = "kafka";

pub async fn look(desk: &Desk, map: &ShardMap, id: &BatchId, stored: Option<&Stored>) -> Hop {
    let found = match stored.and_then(|stored| stored.audit.as_ref()) {
        Some(audit) => at_its_place(desk, id, audit).await,
        None => among_waiting(desk, map, id, stored).await,
    };
    found.unwrap_or_else(|failure| Hop::new(HOP, "unknown", failure.sentence()))
}

async fn at_its_place(desk: &Desk, id: &BatchId, audit: &Audit) -> Result<Hop, Failure> {
    let place =
        format!("{} partition {} offset {}", audit.lane.topic(), audit.partition, audit.offset);
    let record = desk.kafka()?.record(audit.lane, audit.partition, audit.offset).await;
    Ok(match record {
        Ok(Some(found)) if found.id == Some(*id) && found.crc == Some(audit.crc) => Hop::new(
            HOP,
            "passed",
            format!("{place}, {}; the very bytes that were applied are still there", when(&found)),
        ),
        Ok(Some(_)) => Hop::new(
            HOP,
            "wrong",
            format!("{place} holds another record: the topic was recreated; see the runbook"),
        ),
        Ok(None) => {
            Hop::new(HOP, "passed", format!("{place}; trimmed since, as applied records are"))
        }
        Err(fault) => {
            let text = format!("it was at {place}; Kafka can't be asked now: {}", chain(&fault));
            Hop::new(HOP, "passed", text)
        }
    })
}

/// Between where its partition stands and the end. An epoch's batches lie in one partition, so
/// where the epoch is unknown all partitions are looked through, as far as that goes.
async fn among_waiting(
    desk: &Desk,
    map: &ShardMap,
    id: &BatchId,
    stored: Option<&Stored>,
) -> Result<Hop, Failure> {
    let kafka = desk.kafka()?;
    let ends = kafka.ends(Lane::ALL.to_vec(), map.partitions).await?;
    let of_epoch = stored.and_then(|stored| {
        let epoch = stored.epoch.as_ref()?;
        let (live, backlog) = stored.next?;
        Some((epoch.partition, live, backlog))
    });
    let noted = kafka.noted(map.partitions).await.unwrap_or_default();
    let mut ranges = Vec::new();
    for ((lane, partition), ends) in &ends {
        let from = match of_epoch {
            Some((own, ..)) if own != *partition => continue,
            Some((_, live, _)) if *lane == Lane::Live => live,
            Some((_, _, backlog)) => backlog,
            None => noted.get(&(*lane, *partition)).copied().unwrap_or(ends.low),
        };
        ranges.push((*lane, *partition, from.max(ends.low), ends.high));
    }
    let search = kafka.search(*id, ranges).await?;
    Ok(match search.found {
        Some(found) => Hop::new(
            HOP,
            "here",
            format!(
                "{} partition {} offset {}, {}, {} bytes; waits to be applied",
                found.lane.topic(),
                found.partition,
                found.offset,
                when(&found),
                found.bytes
            ),
        ),
        None if search.whole => {
            let text =
                format!("not among the {} records that wait to be applied", search.looked_at);
            Hop::new(HOP, "absent", text)
        }
        None => {
            let text = format!(
                "not among the first {} records that wait; there are more than this looks at",
                search.looked_at
            );
            Hop::new(HOP, "unknown", text)
        }
    })
}

fn when(found: &Found) -> String {
    match found.appended_ms {
        Some(at_ms) => format!("appended {}", time(at_ms)),
        None => "appended at an unknown time".to_owned(),
    }
}
