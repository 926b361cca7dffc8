//! What a worker holds, from assignment to COMMIT.

use std::sync::Arc;

use bytes::Bytes;
use spillway_proto::kafka_record::Lane;

use super::*;
use crate::books::Receipt;
use crate::receive::Appended;

fn assignment(number: u64, whole: &[u16], half: &[u16]) -> Assignment {
    let set = |of: &[u16]| of.iter().copied().collect();
    Assignment { number, whole: set(whole), half: set(half) }
}

fn claimed(partition: u16, next: PerLane<i64>) -> Claimed {
    Claimed { partition, fence: 4, shard_epoch: 1, next, crc: [None; 2] }
}

fn record(lane: Lane, partition: u16, offset: i64, claim: u64) -> Record {
    Record {
        lane,
        partition,
        offset,
        claim,
        appended: Appended::At(0),
        key: None,
        value: Some(Bytes::from(offset.to_le_bytes().to_vec())),
        environment: None,
        receipt: Receipt::new(&Arc::default(), lane, 1),
    }
}

#[tokio::test(start_paused = true)]
async fn a_partition_whose_other_lane_is_elsewhere_is_never_claimed() {
    let mut partitions = Partitions::default();
    assert!(partitions.follow(&assignment(1, &[1, 2], &[3]), |_| true));
    assert_eq!(partitions.due(), [1, 2]);
    assert_eq!(partitions.not_read().get("half-assigned"), Some(&1));
    assert!(!partitions.follow(&assignment(1, &[1, 2], &[3]), |_| true));
}

#[tokio::test(start_paused = true)]
async fn a_new_assignment_voids_every_hold() {
    let mut partitions = Partitions::default();
    partitions.follow(&assignment(1, &[1], &[]), |_| true);
    partitions.hold(&claimed(1, [5, 5]), 10);
    assert!(partitions.is_current(&record(Lane::Live, 1, 5, 10)));
    assert!(!partitions.is_current(&record(Lane::Live, 1, 5, 9)));
    partitions.follow(&assignment(2, &[1], &[]), |_| true);
    assert!(!partitions.is_current(&record(Lane::Live, 1, 5, 10)));
    assert_eq!(partitions.due(), [1]);
}

#[tokio::test(start_paused = true)]
async fn a_shard_that_lost_what_was_applied_is_noticed() {
    let mut partitions = Partitions::default();
    partitions.follow(&assignment(1, &[1], &[]), |_| true);
    assert!(!partitions.hold(&claimed(1, [50, 5]), 1));
    assert!(!partitions.hold(&claimed(1, [60, 5]), 2));
    assert!(partitions.hold(&claimed(1, [59, 5]), 3));
    assert!(!partitions.hold(&claimed(1, [59, 5]), 4));
}

#[tokio::test(start_paused = true)]
async fn what_an_operator_must_mend_is_looked_at_again_but_a_flood_is_not() {
    let mut partitions = Partitions::default();
    partitions.follow(&assignment(1, &[1, 2], &[]), |_| true);
    partitions.stop(1, Obstacle::NoPosition);
    partitions.stop(2, Obstacle::DeadLetterFlood);
    assert_eq!(partitions.due(), Vec::<u16>::new());
    tokio::time::advance(OPERATOR_PAUSE).await;
    assert_eq!(partitions.due(), [1]);
    partitions.follow(&assignment(2, &[1, 2], &[]), |_| true);
    assert_eq!(partitions.due(), [1], "a rebalance is no operator");
    assert!(partitions.is_stopped(2));
}

#[tokio::test(start_paused = true)]
async fn the_transaction_moves_each_lane_behind_its_last_record() {
    let mut partitions = Partitions::default();
    partitions.follow(&assignment(1, &[1, 2], &[]), |_| true);
    partitions.hold(&claimed(1, [5, 0]), 1);
    partitions.hold(&claimed(2, [7, 7]), 2);
    let records =
        [record(Lane::Live, 1, 5, 1), record(Lane::Live, 1, 6, 1), record(Lane::Backlog, 2, 7, 2)];
    let advances = partitions.advances(&records);
    let moved: Vec<_> = advances.iter().map(|a| (a.partition, a.from, a.to)).collect();
    assert_eq!(moved, [(1, [5, 0], [7, 0]), (2, [7, 7], [7, 8])]);
    assert_eq!(advances[0].crc, [Some(records[1].crc()), None]);
    assert_eq!(advances[1].crc, [None, Some(records[2].crc())]);
}
