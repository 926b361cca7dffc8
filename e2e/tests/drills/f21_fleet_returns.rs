//! Row 21: after an outage 1,000 agents come back in the same moment, with S3 full of what they
//! parked meanwhile.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use spillway_e2e::ledger::Way;
use spillway_e2e::recipe::Recipe;
use spillway_e2e::rig::Rig;
use spillway_e2e::{Fate, Ledger, SenderOptions};
use spillway_proto::frame::Encoder;
use spillway_testkit::stack::StackOptions;
use tokio::sync::{Barrier, Mutex};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};
use uuid::Uuid;

use crate::sending::seal::Parking;
use crate::sending::{Door, HEALED_WITHIN, until};

const AGENTS: usize = 1_000;
/// Windows of each agent that lie in S3 when the API comes back.
const PARKED_WINDOWS: usize = 15;
/// …and those that it sends itself afterwards.
const LIVE_WINDOWS: usize = 3;
/// Agents whose parked windows share an object, all windows of an agent in one.
const AGENTS_PER_OBJECT: usize = 2;
/// One machine plays them all: how long answers take is read from the API's own clock.
const AGENTS_PATIENCE: Duration = Duration::from_secs(60);
/// The bound that the API's histogram has above its own deadline of 3 s.
const IN_TIME: (&str, &str) = ("le", "3.5");
const WORKER: &str = "recovery-worker-0";

/// One agent of the fleet: what it is, and what it saw.
struct Fleet {
    options: SenderOptions,
    ledger: Ledger,
    ids: Vec<(Uuid, Uuid)>,
    seen: Mutex<Seen>,
    current: AtomicUsize,
}

#[derive(Default)]
struct Seen {
    /// Seconds that the first refusal asked each agent to wait.
    first_retry_after_s: Vec<u32>,
    /// From a request to its answer, whatever it was, after the API was back.
    answers: Vec<Duration>,
    /// From the first attempt of a live batch to its 2xx.
    accepted: Vec<Duration>,
}

impl Fleet {
    fn new(rig: &Rig) -> Self {
        let options = SenderOptions {
            hosts: AGENTS,
            windows: PARKED_WINDOWS + LIVE_WINDOWS,
            series: 2,
            points: 2,
            name: "fleet".into(),
            ..rig.load("demo")
        };
        let ids = (0..AGENTS).map(|_| (Uuid::new_v4(), Uuid::now_v7())).collect();
        let (ledger, seen) = (Ledger::default(), Mutex::default());
        Self { options, ledger, ids, seen, current: AtomicUsize::new(0) }
    }

    fn batch(&self, agent: usize, window: usize) -> (Arc<Recipe>, Bytes) {
        let ids = *self.ids.get(agent).expect("one of the fleet");
        let recipe = Arc::new(self.options.recipe(agent, window, ids));
        let frame = Encoder::new().encode(&recipe.batch()).expect("a made-up batch is valid");
        (recipe, frame)
    }

    /// Fills S3: S3 has these, so they must arrive.
    async fn park(&self, parking: &Parking) {
        for first in (0..AGENTS).step_by(AGENTS_PER_OBJECT) {
            let mut frames = Vec::new();
            for agent in first..(first + AGENTS_PER_OBJECT).min(AGENTS) {
                for window in 0..PARKED_WINDOWS {
                    let (recipe, frame) = self.batch(agent, window);
                    self.ledger.attempt(&recipe, Way::S3).await;
                    self.ledger.answered(&recipe.id, Fate::Ok).await;
                    frames.push(frame);
                }
            }
            parking.park(&frames).await;
        }
    }

    /// One attempt, measured.
    async fn attempt(&self, door: &Door, frame: &Bytes, attempt: u32) -> (bool, Option<u32>) {
        let began = Instant::now();
        let answer = timeout(AGENTS_PATIENCE, door.try_post(frame, attempt)).await;
        let answer = answer.expect("every agent is answered in time").expect("an answer comes");
        self.seen.lock().await.answers.push(began.elapsed());
        if !answer.accepted() {
            answer.must_be_later();
        }
        (answer.accepted(), answer.retry_after_s)
    }

    /// One live batch, as an agent sends it: again after what the refusal asked for.
    async fn send(&self, door: &Door, agent: usize, window: usize, mut attempts: u32) {
        let (recipe, frame) = self.batch(agent, window);
        self.ledger.attempt(&recipe, Way::Http).await;
        let began = Instant::now();
        loop {
            let (accepted, retry_after_s) = self.attempt(door, &frame, attempts).await;
            if accepted {
                break;
            }
            attempts += 1;
            let pause = Duration::from_secs(retry_after_s.unwrap_or(1).into());
            tokio::time::sleep(pause).await;
        }
        self.ledger.answered(&recipe.id, Fate::Ok).await;
        self.seen.lock().await.accepted.push(began.elapsed());
        self.current.fetch_add(1, Ordering::Relaxed);
    }
}

fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    let at = (sorted.len() * percent / 100).min(sorted.len().saturating_sub(1));
    sorted.get(at).copied().unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_agents_at_once_are_spread_live_goes_first_and_the_past_fills_in_behind() {
    let rig = Rig::start(StackOptions { s3_unsigned_put: true, ..StackOptions::default() }).await;
    let fleet = Arc::new(Fleet::new(&rig));
    rig.stack.kill(WORKER).await.expect("it runs");
    fleet.park(&Parking::of(&rig, "demo")).await;
    let objects = rig.stack.parked_objects();
    // Kafka is silent: each first attempt is refused.
    rig.stack.freeze("kafka-0").expect("it runs");
    let (refused, back) = (Arc::new(Barrier::new(AGENTS + 1)), Arc::new(Barrier::new(AGENTS + 1)));
    let mut agents = JoinSet::new();
    for agent in 0..AGENTS {
        let (fleet, door) = (Arc::clone(&fleet), Door::of(&rig, "demo"));
        let (refused, back) = (Arc::clone(&refused), Arc::clone(&back));
        agents.spawn(async move {
            let (_, frame) = fleet.batch(agent, PARKED_WINDOWS);
            let (accepted, retry_after_s) = fleet.attempt(&door, &frame, 0).await;
            assert!(!accepted, "no 2xx without Kafka");
            let retry_after_s = retry_after_s.expect("a refusal says when to come again");
            fleet.seen.lock().await.first_retry_after_s.push(retry_after_s);
            refused.wait().await;
            back.wait().await;
            tokio::time::sleep(Duration::from_secs(retry_after_s.into())).await;
            for window in PARKED_WINDOWS..PARKED_WINDOWS + LIVE_WINDOWS {
                fleet.send(&door, agent, window, 1).await;
            }
        });
    }
    refused.wait().await;
    let before = answers(&rig).await;
    let outage = std::mem::take(&mut *fleet.seen.lock().await);
    rig.stack.thaw("kafka-0").expect("it is there");
    rig.stack.start_process(WORKER).await.expect("it starts again");
    back.wait().await;
    agents.join_all().await;
    let after = answers(&rig).await;
    let behind = live_is_readable(&rig, &fleet).await;
    let mut seen = std::mem::take(&mut *fleet.seen.lock().await);
    rig.judge_sent(&fleet.ledger, &fleet.options).await;
    until("the bucket is empty", HEALED_WITHIN, async || rig.stack.parked_objects() == 0).await;
    tell(&outage, &mut seen, objects, behind);
    spread(&outage.first_retry_after_s);
    let (all, in_time) = (after.0 - before.0, after.1 - before.1);
    eprintln!("{in_time} of {all} answers came within {} s by the API's clock", IN_TIME.1);
    assert!(in_time >= 0.99 * all, "p99 of live requests is bounded: {in_time} of {all} in time");
    let parked = AGENTS * PARKED_WINDOWS;
    assert!(behind > 0, "the drain of {parked} batches did not go before live ones");
}

/// Requests that the API has answered, and those of them in time.
async fn answers(rig: &Rig) -> (f64, f64) {
    let api = rig.metrics("ingest-api-0").await;
    let in_time = api.sum_where("spillway_ingest_request_seconds_bucket", &[IN_TIME]);
    (api.sum("spillway_ingest_request_seconds_count"), in_time)
}

/// Waits until every agent's last live window can be read; how many parked batches can't be by
/// then.
async fn live_is_readable(rig: &Rig, fleet: &Fleet) -> usize {
    let mysql = rig.mysql("demo");
    let options = &fleet.options;
    let last_ts = options.first_window_ts + (PARKED_WINDOWS + LIVE_WINDOWS - 1) as u32 * 10;
    let count = async |from: u32, to: u32| -> usize {
        let count = "SELECT COUNT(DISTINCT host, ts) FROM spillway.metrics_10s \
                     WHERE ts BETWEEN ? AND ? AND host LIKE 'fleet-%'";
        let count = sqlx::query_scalar::<_, i64>(count).bind(from).bind(to);
        usize::try_from(count.fetch_one(&mysql).await.expect("readable")).expect("a count")
    };
    until("live data is current", HEALED_WITHIN, async || count(last_ts, last_ts).await == AGENTS)
        .await;
    let parked_ts = options.first_window_ts + (PARKED_WINDOWS as u32 - 1) * 10;
    AGENTS * PARKED_WINDOWS - count(options.first_window_ts, parked_ts).await
}

fn tell(outage: &Seen, seen: &mut Seen, objects: usize, behind: usize) {
    seen.answers.sort();
    seen.accepted.sort();
    eprintln!(
        "{} agents refused at once, asked to wait {:?} s; then answers p50 {:?} p99 {:?} max {:?}, \
         live batches accepted after p50 {:?} p99 {:?}; {objects} objects in S3, {behind} of their \
         batches still behind when live data was current",
        outage.first_retry_after_s.len(),
        outage.first_retry_after_s.iter().collect::<std::collections::BTreeSet<_>>(),
        percentile(&seen.answers, 50),
        percentile(&seen.answers, 99),
        percentile(&seen.answers, 100),
        percentile(&seen.accepted, 50),
        percentile(&seen.accepted, 99),
    );
}

/// Those who were refused together do not come back together.
fn spread(asked: &[u32]) {
    assert_eq!(asked.len(), AGENTS);
    let mut seconds = std::collections::BTreeMap::<u32, usize>::new();
    asked.iter().for_each(|second| *seconds.entry(*second).or_default() += 1);
    let most = seconds.values().max().copied().unwrap_or_default();
    assert!(seconds.len() >= 3 && most < AGENTS / 2, "{seconds:?}");
}
