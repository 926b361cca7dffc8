//! Delivery as a whole, between a real spool and servers that fail.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use spillway_proto::BatchId;
use spillway_runtime::program::Context;
use spillway_runtime::settings::{Dur, Secret, Size};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::http_client::Internet;
use super::test_server::{Reply, Seen, TestServer, accepted, answer, problem};
use super::{DeliveryStatus, Leftover, Parts, StartError, Stop, run};
use crate::credential::Credential;
use crate::folder::RealFolder;
use crate::identity::{CustodyLog, GivenUpReason};
use crate::metrics::Metrics;
use crate::settings::Settings;
use crate::spool::test_books::Books;
use crate::spool::{NewRecord, Spool, SpoolTotals};

const FRAME_BYTES: usize = 100;
const PUBLIC_KEY: &str = "0900000000000000000000000000000000000000000000000000000000000000";
/// No test waits longer than this for what must come.
const PATIENCE: Duration = Duration::from_secs(30);

fn frame(seq: u64) -> Bytes {
    vec![seq as u8; FRAME_BYTES].into()
}

fn id(seq: u64) -> BatchId {
    BatchId::Sequenced { agent_id: Uuid::from_u128(1), epoch: Uuid::from_u128(2), seq }
}

fn seqs_of(seen: &[Seen]) -> Vec<u64> {
    let frames = seen.iter().flat_map(|seen| seen.body.chunks(FRAME_BYTES));
    let mut seqs: Vec<_> = frames.map(|frame| u64::from(frame[0])).collect();
    seqs.sort_unstable();
    seqs
}

/// Takes all batches of a request.
fn take_all(seen: &Seen) -> Reply {
    accepted(seen.body.len() / FRAME_BYTES)
}

struct Bench {
    _dir: tempfile::TempDir,
    spool: Spool,
    books: Arc<Books>,
    log: Arc<dyn CustodyLog>,
    metrics: Metrics,
    status: Arc<DeliveryStatus>,
    stop: Stop,
    running: JoinHandle<Result<Leftover, StartError>>,
}

impl Bench {
    async fn start(api: &TestServer, s3: Option<&TestServer>, set: impl Fn(&mut Settings)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut settings = Settings::default();
        settings.agent.environment = "demo".to_owned();
        settings.agent.token = Secret::new("spw_id_secret".to_owned());
        settings.agent.state_dir = dir.path().to_owned();
        settings.spool.free_space_floor = Size::bytes(0);
        settings.deliver.endpoints = vec![api.url.clone()];
        settings.deliver.request_timeout = Dur::from_secs(20);
        settings.deliver.retry_min = Dur::from_millis(10);
        settings.deliver.retry_max = Dur::from_millis(50);
        settings.deliver.probe_interval = Dur::from_millis(50);
        settings.deliver.probe_interval_max = Dur::from_millis(100);
        settings.deliver.park_after = Dur::from_millis(30);
        settings.deliver.backlog_after = Dur::from_millis(1);
        settings.deliver.backlog_rate = 10_000.0;
        settings.deliver.quarantine_retry = Dur::from_millis(20);
        if let Some(s3) = s3 {
            settings.spill.enabled = true;
            settings.spill.endpoint = s3.url.clone();
            settings.spill.unsigned = true;
            settings.spill.public_key = PUBLIC_KEY.to_owned();
        }
        set(&mut settings);
        let metrics = Metrics::for_tests();
        let opened =
            Spool::open(&settings, &settings.spool_dir(), &metrics, &HashSet::new()).unwrap();
        let books = Arc::new(Books::default());
        let log: Arc<dyn CustodyLog> = Arc::clone(&books) as _;
        let status = Arc::new(DeliveryStatus::new());
        let stop = Stop { drain: CancellationToken::new(), now: CancellationToken::new() };
        let context = Context::for_test("agent");
        let token = settings.agent.token.clone();
        let credential = match settings.agent.token_file.clone() {
            Some(file) => Credential::in_file(token, file, context.reload.clone()),
            None => Credential::fixed(token),
        };
        let parts = Parts {
            settings: Arc::new(settings),
            spool: opened.spool.clone(),
            log: Arc::clone(&log),
            metrics: metrics.clone(),
            status: Arc::clone(&status),
            api_health: context.health.register("ingest-api"),
            s3_health: context.health.register("s3"),
            network: Arc::new(Internet),
            credential,
            quarantine: Arc::new(RealFolder::new(&dir.path().join(super::QUARANTINE_DIR))),
        };
        let running = tokio::spawn(run(parts, stop.clone()));
        Self { _dir: dir, spool: opened.spool, books, log, metrics, status, stop, running }
    }

    async fn append(&self, seqs: std::ops::RangeInclusive<u64>) {
        for seq in seqs {
            let record = NewRecord { id: id(seq), window_ts: 10, points: 2, frame: frame(seq) };
            self.spool.append(record, &self.log).await.unwrap().release();
        }
    }

    async fn until(&self, is: impl FnMut(&SpoolTotals) -> bool) {
        let mut changes = self.spool.changes();
        let come = tokio::time::timeout(PATIENCE, changes.wait_for(is)).await;
        come.expect("it did not happen");
    }

    async fn empty(&self) {
        self.until(|totals| totals.batches == 0).await;
    }

    async fn drained(self) -> Leftover {
        self.stop.drain.cancel();
        let ended = tokio::time::timeout(PATIENCE, self.running).await;
        ended.expect("it did not end").unwrap().unwrap()
    }
}

const NOTHING: Leftover = Leftover { batches: 0, volatile_batches: 0 };

#[tokio::test]
async fn what_is_spooled_arrives_once_and_the_books_are_told() {
    let api = TestServer::start(take_all).await;
    let bench = Bench::start(&api, None, |_| {}).await;
    bench.append(1..=50).await;
    bench.empty().await;
    assert_eq!(seqs_of(&api.seen()), (1..=50).collect::<Vec<_>>());
    assert_eq!(bench.metrics.batches_acked.get(), 50);
    assert_eq!(bench.metrics.points_acked.get(), 100);
    let mut told = bench.books.accepted();
    told.sort_unstable();
    assert_eq!(told, (1..=50).collect::<Vec<_>>());
    assert_eq!(bench.drained().await, NOTHING);
}

#[tokio::test]
async fn a_swallowed_answer_means_the_same_bytes_again() {
    let api = TestServer::start(|_| Reply::RawThenClose(Vec::new())).await;
    let bench = Bench::start(&api, None, |_| {}).await;
    bench.append(1..=1).await;
    let seen = api.wait_for(3).await;
    assert!(seen.iter().all(|seen| seen.body == frame(1)));
    assert!(seen.iter().any(|seen| seen.header("spillway-attempt") == Some("1")));
    api.play(take_all);
    bench.empty().await;
    assert_eq!(bench.metrics.batches_acked.get(), 1);
    bench.drained().await;
}

#[tokio::test]
async fn a_long_outage_goes_to_s3_and_the_first_probe_that_succeeds_ends_it() {
    let api = TestServer::start(|_| answer(503, "retry-after: 0\r\n", "")).await;
    // Not before all of them are there, however long a disk takes to sync each.
    let s3 = TestServer::start(|_| answer(503, "", "")).await;
    let set = |settings: &mut Settings| settings.deliver.backlog_after = Dur::from_millis(500);
    let bench = Bench::start(&api, Some(&s3), set).await;
    bench.append(1..=20).await;
    let refused = s3.seen().len();
    s3.play(|_| answer(200, "", ""));
    bench.empty().await;
    assert_eq!(bench.metrics.batches_parked.get(), 20);
    assert_eq!(bench.metrics.batches_acked.get(), 0);
    assert!(bench.books.accepted().is_empty(), "S3 is not the API");
    assert!(bench.books.seqs().is_empty());
    assert!(s3.seen().len() <= refused + 3, "several batches in one object");
    api.play(take_all);
    // Until a probe is due a batch may still age and be parked: then the next one is probed with.
    let mut last = 20;
    while bench.status.snapshot().route != "direct" {
        last += 1;
        assert!(last <= 60, "the API is well and no probe has found out");
        bench.append(last..=last).await;
        bench.empty().await;
    }
    last += 1;
    bench.append(last..=last).await;
    bench.empty().await;
    assert!(seqs_of(&api.seen()).contains(&last), "a way that is direct leads to the API");
    bench.drained().await;
}

#[tokio::test]
async fn when_both_ways_fail_nothing_is_lost_and_nothing_is_given_up() {
    let api = TestServer::start(|_| answer(500, "", "")).await;
    let s3 = TestServer::start(|_| answer(403, "", "")).await;
    let bench = Bench::start(&api, Some(&s3), |_| {}).await;
    bench.append(1..=20).await;
    api.wait_for(3).await;
    s3.wait_for(3).await;
    assert_eq!(bench.spool.settled_totals().await.batches, 20);
    assert!(bench.books.seqs().is_empty());
    api.play(take_all);
    bench.empty().await;
    assert_eq!(bench.metrics.batches_acked.get(), 20);
    assert_eq!(bench.drained().await, NOTHING);
}

#[tokio::test]
async fn a_refused_token_loses_nothing_and_parks_no_more_than_its_cap() {
    let api = TestServer::start(|_| answer(401, "", "")).await;
    let s3 = TestServer::start(|_| answer(200, "", "")).await;
    let set = |settings: &mut Settings| {
        settings.deliver.auth_park_bytes_max = Size::bytes(1);
        settings.spill.object_bytes_max = Size::bytes(FRAME_BYTES as u64);
    };
    let bench = Bench::start(&api, Some(&s3), set).await;
    bench.append(1..=10).await;
    s3.wait_for(1).await;
    let probes = api.seen().len();
    api.wait_for(probes + 3).await;
    assert_eq!(s3.seen().len(), 1);
    assert!(bench.status.snapshot().auth_refused);
    api.play(take_all);
    bench.empty().await;
    assert_eq!((bench.metrics.batches_parked.get(), bench.metrics.batches_acked.get()), (1, 9));
    bench.drained().await;
}

/// Takes batches of whoever has the new token.
fn only_new_token(seen: &Seen) -> Reply {
    match seen.head.contains("spw_id_new") {
        true => take_all(seen),
        false => answer(401, "", ""),
    }
}

#[tokio::test]
async fn a_token_that_is_replaced_in_its_file_is_used_without_a_restart() {
    let api = TestServer::start(only_new_token).await;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("token");
    std::fs::write(&file, "spw_id_old").unwrap();
    let token_file = file.clone();
    let set = |settings: &mut Settings| settings.agent.token_file = Some(token_file.clone());
    let bench = Bench::start(&api, None, set).await;
    bench.append(1..=3).await;
    let refused = async {
        while !bench.status.snapshot().auth_refused {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), refused).await.expect("the token is refused");
    let new = dir.path().join("new");
    std::fs::write(&new, "spw_id_new").unwrap();
    std::fs::rename(&new, &file).unwrap();
    bench.empty().await;
    assert_eq!(bench.metrics.batches_acked.get(), 3);
    bench.drained().await;
}

/// Refuses batch 3 for its content, takes the others.
fn refuse_3(seen: &Seen) -> Reply {
    let frames: Vec<_> = seen.body.chunks(FRAME_BYTES).collect();
    let Some(index) = frames.iter().position(|frame| frame[0] == 3) else { return take_all(seen) };
    let accepted = frames.len() - 1;
    let rejected = format!(r#"{{"index":{index},"error":"no","type":"invalid-content"}}"#);
    answer(200, "", &format!(r#"{{"accepted":{accepted},"rejected":[{rejected}]}}"#))
}

#[tokio::test]
async fn a_batch_that_is_refused_twice_is_declared_and_the_others_arrive() {
    let api = TestServer::start(refuse_3).await;
    let bench = Bench::start(&api, None, |_| {}).await;
    bench.append(1..=5).await;
    bench.empty().await;
    bench.books.until_given_up().await;
    assert_eq!(bench.books.seqs(), [3]);
    assert_eq!(bench.books.reasons(), [GivenUpReason::Refused]);
    assert_eq!(bench.metrics.batches_quarantined.get(), 1);
    assert_eq!(bench.metrics.batches_acked.get(), 4);
    let metrics = &bench.metrics;
    // Declared, it lies there as evidence, and nobody waits for it.
    let settled = async {
        while metrics.quarantine_batches.get() + metrics.quarantine_points.get() != 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, settled).await.expect("it is waited for");
    assert_eq!((metrics.batches_in_flight.get(), metrics.points_in_flight.get()), (0, 0));
    bench.drained().await;
}

#[tokio::test]
async fn a_request_that_is_too_large_is_sent_in_parts() {
    let limit = 3 * FRAME_BYTES;
    let api = TestServer::start(move |seen| match seen.body.len() > limit {
        true => problem(413, "", &format!(r#"{{"limit_bytes":{limit}}}"#)),
        false => take_all(seen),
    });
    let api = api.await;
    let bench = Bench::start(&api, None, |_| {}).await;
    bench.append(1..=30).await;
    bench.empty().await;
    assert_eq!(bench.metrics.batches_acked.get(), 30);
    bench.drained().await;
}

#[tokio::test]
async fn the_way_to_s3_is_kept_warm_without_touching_the_count_of_what_is_parked() {
    let api = TestServer::start(take_all).await;
    let s3 = TestServer::start(|_| answer(200, "", "")).await;
    let set = |settings: &mut Settings| settings.deliver.backlog_after = Dur::from_secs(60);
    let bench = Bench::start(&api, Some(&s3), set).await;
    bench.append(1..=5).await;
    bench.empty().await;
    s3.wait_for(1).await;
    let (metrics, status) = (bench.metrics.clone(), Arc::clone(&bench.status));
    assert_eq!(bench.drained().await, NOTHING);
    assert_eq!(s3.seen().len(), 1, "one batch, not each");
    assert_eq!((metrics.batches_warmed.get(), metrics.batches_parked.get()), (1, 0));
    assert!(status.snapshot().last_warm_ms.is_some());
}

#[tokio::test]
async fn a_stop_in_the_middle_of_a_request_leaves_the_batch_in_the_spool() {
    let api = TestServer::start(|_| Reply::Silence).await;
    let set = |settings: &mut Settings| settings.deliver.request_timeout = Dur::from_secs(3_600);
    let bench = Bench::start(&api, None, set).await;
    bench.append(1..=3).await;
    api.wait_for(1).await;
    bench.stop.now.cancel();
    assert_eq!(bench.drained().await, Leftover { batches: 3, volatile_batches: 0 });
}

#[tokio::test]
async fn a_drain_ends_early_when_the_api_fails_and_the_rest_is_safe_on_disk() {
    let api = TestServer::start(|_| answer(503, "", "")).await;
    let bench = Bench::start(&api, None, |_| {}).await;
    bench.append(1..=3).await;
    api.wait_for(4).await;
    assert_eq!(bench.drained().await.batches, 3);
}

#[tokio::test]
async fn what_only_memory_holds_is_parked_when_the_agent_stops() {
    let api = TestServer::start(|_| answer(503, "", "")).await;
    let s3 = TestServer::start(|_| answer(200, "", "")).await;
    let set = |settings: &mut Settings| {
        settings.spool.kind = crate::settings::SpoolKind::Memory;
        settings.deliver.park_after = Dur::from_secs(3_600);
        settings.deliver.park_fill = 1.0;
    };
    let bench = Bench::start(&api, Some(&s3), set).await;
    bench.append(1..=3).await;
    api.wait_for(1).await;
    let metrics = bench.metrics.clone();
    assert_eq!(bench.drained().await, NOTHING);
    assert_eq!(metrics.batches_parked.get(), 3);
}
