//! One simulation, from its seed to its verdict.

use std::sync::Arc;
use std::time::Duration;

use spillway_agent::settings::Settings;
use spillway_proto::object_key::SPILL_PREFIX;
use spillway_runtime::outside::Simulation;
use spillway_runtime::settings::{Dur, Secret, Size};
use tokio::runtime::Builder;
use tokio::time::Instant;

use crate::agents::Agent;
use crate::broker::Broker;
use crate::bucket::Bucket;
use crate::chance;
use crate::consumer::Consumer;
use crate::director::{Cast, Director};
use crate::mutant::Mutant;
use crate::network::Places;
use crate::servers::{Api, Worker};
use crate::world::{ENVIRONMENT, TOKEN, WALL_MS, World};

/// After everything is mended: spools must be empty within this…
const SPOOLS_EMPTY_WITHIN: Duration = Duration::from_secs(900);
/// …agents must have stopped within this…
const STOPPED_WITHIN: Duration = Duration::from_secs(120);
/// …and bucket and logs must be drained within this.
const DRAINED_WITHIN: Duration = Duration::from_secs(600);
/// Long enough for what was refused to be tried again, declared and carried.
const AFTERMATH: Duration = Duration::from_secs(35);

/// What a simulation came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    pub seed: u64,
    /// Of the whole history.
    pub digest: u64,
    pub events: u64,
    /// Batches that spools answered for, that were applied, that were declared; repetitions that
    /// were recognised.
    pub batches: (u64, u64, u64, u64),
    /// Simulated seconds.
    pub seconds: u64,
    pub violations: Vec<String>,
    /// The last events.
    pub tail: Vec<String>,
}

/// Runs the simulation of this seed.
#[must_use]
pub fn run(seed: u64, mutant: Option<Mutant>) -> Outcome {
    let runtime = Builder::new_current_thread().enable_time().start_paused(true).build();
    let runtime = runtime.expect("a runtime of this thread alone needs nothing from outside");
    runtime.block_on(async {
        let simulation = Simulation::begin(seed, WALL_MS);
        if mutant == Some(Mutant::EpochAgain) {
            simulation.repeat_epochs();
        }
        let began = Instant::now();
        let world = World::new(mutant);
        play(&world).await;
        let (kept, applied, declared) = world.oracle().counts();
        let duplicates = world.oracle().duplicates;
        let violations = world.oracle().violations.clone();
        Outcome {
            seed,
            digest: world.history.digest(),
            events: world.history.events(),
            batches: (kept, applied, declared, duplicates),
            seconds: began.elapsed().as_secs(),
            violations,
            tail: world.history.tail(),
        }
    })
}

async fn play(world: &Arc<World>) {
    let time = chance::ms(20_000, 60_000);
    let director = Director::draw(time);
    let (broker, bucket) = (Broker::new(world), Bucket::new(world));
    let apis: Vec<Api> = (0..2).map(|_| Api::new(world, &broker)).collect();
    apis.iter().for_each(Api::start);
    let apis = Arc::new(apis);
    let names = ["worker-0", "worker-1"];
    let workers = names.iter().take(1 + usize::from(chance::percent(40)));
    let workers: Vec<Worker> =
        workers.map(|name| Worker::new(world, &broker, &bucket, name)).collect();
    workers.iter().for_each(Worker::start);
    let consumer = Consumer::new(world, &broker);
    let consumer_kill = Arc::clone(&consumer.kill);
    let consuming = tokio::spawn(consumer.run());
    let places =
        Places { world: Arc::clone(world), apis: Arc::clone(&apis), bucket: Arc::clone(&bucket) };
    let small = chance::percent(30);
    let settings = settings(&bucket.keys().1, small);
    let ballast = if small { 16_384 } else { 512 };
    let count = 1 + usize::from(chance::percent(40));
    let agents: Vec<_> =
        (0..count).map(|number| Agent::new(number, &places, settings.clone(), ballast)).collect();
    let running: Vec<_> =
        agents.iter().map(|agent| tokio::spawn(Arc::clone(agent).run())).collect();
    let cast = Cast { world: Arc::clone(world), agents, apis, workers, consumer_kill };
    director.direct(&cast, time).await;
    rest(&cast, running, &broker, &bucket).await;
    cast.apis.iter().for_each(Api::kill);
    cast.workers.iter().for_each(Worker::kill);
    consuming.abort();
}

/// Everything comes to rest, and is judged.
async fn rest(
    cast: &Cast,
    running: Vec<tokio::task::JoinHandle<()>>,
    broker: &Arc<Broker>,
    bucket: &Arc<Bucket>,
) {
    let world = &cast.world;
    tokio::time::sleep(AFTERMATH).await;
    let empty = || cast.agents.iter().all(|agent| agent.waiting() == 0);
    until(world, SPOOLS_EMPTY_WITHIN, "a spool is not empty long after all is well", empty).await;
    cast.agents.iter().for_each(|agent| agent.stopping.cancel());
    let stopped = || running.iter().all(tokio::task::JoinHandle::is_finished);
    until(world, STOPPED_WITHIN, "an agent does not stop", stopped).await;
    let drained = || bucket.count(SPILL_PREFIX) == 0 && broker.lag() == 0;
    until(world, DRAINED_WITHIN, "objects or records are left long after all is well", drained)
        .await;
    if !world.is_broken() {
        let quarantined = bucket.quarantined();
        let mut oracle = world.oracle();
        oracle.state_failed = cast.agents.iter().any(|agent| agent.machine.state_failed());
        oracle.verdict(&quarantined);
    }
}

/// Waits, unless a promise is broken already.
async fn until(world: &World, limit: Duration, otherwise: &str, is: impl Fn() -> bool) {
    let last = Instant::now() + limit;
    while !is() {
        if world.is_broken() {
            return;
        }
        if Instant::now() >= last {
            return world.violate(otherwise.to_owned());
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

/// An agent in a hurry: everything that takes minutes takes seconds.
fn settings(public_key: &str, small: bool) -> Settings {
    let mut settings = Settings::default();
    settings.agent.environment = ENVIRONMENT.to_owned();
    settings.agent.token = Secret::new(TOKEN.to_owned());
    let spool = &mut settings.spool;
    spool.bytes_max = if small { Size::kib(512) } else { Size::mib(2) };
    spool.segment_bytes = Size::kib(64);
    spool.live_reserve = Size::kib(128);
    spool.free_space_floor = Size::mib(1);
    if chance::percent(15) {
        spool.age_max = Dur::from_secs(25);
    }
    let deliver = &mut settings.deliver;
    deliver.endpoints = vec!["http://api-0".to_owned(), "http://api-1".to_owned()];
    deliver.request_timeout = Dur::from_secs(4);
    deliver.backlog_after = Dur::from_secs(6);
    deliver.park_after = Dur::from_secs(8);
    deliver.probe_interval = Dur::from_secs(2);
    deliver.probe_interval_max = Dur::from_secs(8);
    deliver.retry_min = Dur::from_millis(200);
    deliver.retry_max = Dur::from_secs(3);
    deliver.warm_every = Dur::from_secs(30);
    deliver.quarantine_retry = Dur::from_secs(10);
    deliver.auth_park_bytes_max = Size::kib(16);
    let spill = &mut settings.spill;
    spill.enabled = !chance::percent(10);
    spill.endpoint = "http://s3".to_owned();
    spill.unsigned = true;
    spill.public_key = public_key.to_owned();
    spill.request_timeout = Dur::from_secs(4);
    settings
}
