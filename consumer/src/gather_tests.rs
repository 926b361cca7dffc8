//! What goes into a transaction, and in which order.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use spillway_runtime::settings::{Dur, Size};

use super::*;
use crate::books::Receipt;
use crate::receive::Appended;

fn record(lane: Lane, offset: i64) -> Record {
    Record {
        lane,
        partition: 0,
        offset,
        claim: 1,
        appended: Appended::At(0),
        key: None,
        value: Some(Bytes::from(vec![0; 1_000])),
        environment: None,
        receipt: Receipt::new(&Arc::default(), lane, 0),
    }
}

fn limits(records_max: u32) -> GatherSettings {
    GatherSettings {
        bytes_max: Size::mib(64),
        points_max: 1_000_000,
        records_max,
        linger: Dur::from_millis(200),
        backlog_percent: 20,
    }
}

fn filled(live: i64, backlog: i64) -> Intake {
    let intake = Intake::new(1 << 30, 1 << 30);
    (0..live).for_each(|at| {
        intake.offer(record(Lane::Live, at));
    });
    (0..backlog).for_each(|at| {
        intake.offer(record(Lane::Backlog, at));
    });
    intake
}

fn count(records: &[Record], lane: Lane) -> usize {
    records.iter().filter(|record| record.lane == lane).count()
}

#[tokio::test(start_paused = true)]
async fn live_goes_first_and_backlog_keeps_its_share() {
    let intake = filled(500, 500);
    let records = gather(&intake, &limits(100), |_| true).await;
    assert_eq!((count(&records, Lane::Live), count(&records, Lane::Backlog)), (80, 20));
    assert!(records[..80].iter().all(|record| record.lane == Lane::Live));
}

#[tokio::test(start_paused = true)]
async fn a_lane_alone_gets_everything() {
    let records = gather(&filled(500, 0), &limits(100), |_| true).await;
    assert_eq!(count(&records, Lane::Live), 100);
    let records = gather(&filled(3, 500), &limits(100), |_| true).await;
    assert_eq!((count(&records, Lane::Live), count(&records, Lane::Backlog)), (3, 97));
}

#[tokio::test(start_paused = true)]
async fn the_first_record_waits_for_company_only_so_long() {
    let began = Instant::now();
    let records = gather(&filled(1, 0), &limits(100), |_| true).await;
    assert_eq!(records.len(), 1);
    assert_eq!(began.elapsed(), Duration::from_millis(200));
}

#[tokio::test(start_paused = true)]
async fn bytes_are_a_limit_of_their_own() {
    let limits = GatherSettings { bytes_max: Size::bytes(10_000), ..limits(100) };
    let records = gather(&filled(500, 0), &limits, |_| true).await;
    assert_eq!(records.len(), 8);
}

#[tokio::test(start_paused = true)]
async fn records_of_an_older_claim_are_let_go() {
    let intake = filled(10, 0);
    let records = gather(&intake, &limits(100), |record| record.offset >= 4).await;
    assert_eq!(records.len(), 6);
    let intake = filled(10, 0);
    assert!(gather(&intake, &limits(100), |_| false).await.is_empty());
    assert_eq!(intake.bytes(Lane::Live), 0);
}

proptest::proptest! {
    #[test]
    fn each_lane_keeps_its_order_and_nothing_is_taken_twice(
        live in 0_i64..200, backlog in 0_i64..200, records_max in 1_u32..50,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let intake = filled(live, backlog);
            let mut taken = Vec::new();
            while taken.len() < (live + backlog) as usize {
                let records = gather(&intake, &limits(records_max), |_| true).await;
                assert!(records.len() <= records_max as usize);
                taken.extend(records);
            }
            for (lane, count) in [(Lane::Live, live), (Lane::Backlog, backlog)] {
                let of_lane = taken.iter().filter(|record| record.lane == lane);
                let offsets: Vec<i64> = of_lane.map(|record| record.offset).collect();
                assert_eq!(offsets, (0..count).collect::<Vec<_>>());
            }
        });
    }
}
