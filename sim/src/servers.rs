//! The programs behind the network: ingest-api's own request handler and recovery-worker's own
//! loop, each with a life that can be ended at any await.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use spillway_ingest_api::app::{App, Outside};
use spillway_ingest_api::http::route;
use spillway_ingest_api::metrics::Metrics as ApiMetrics;
use spillway_ingest_api::settings::IngestSettings;
use spillway_proto::frame::{self, Header};
use spillway_proto::partition::Partitioning;
use spillway_proto::verdict::BatchesAnswer;
use spillway_publisher::{LogGate, Publisher};
use spillway_recovery_worker::bucket::Bucket as WorkerBucket;
use spillway_recovery_worker::drain::{Drain, Probes};
use spillway_recovery_worker::journey::{OPENED_AT_ONCE_MAX, Parts};
use spillway_recovery_worker::metrics::Metrics as WorkerMetrics;
use spillway_recovery_worker::pace::Pace;
use spillway_recovery_worker::private_keys::KeyFolder;
use spillway_recovery_worker::progress::GroupWatch;
use spillway_recovery_worker::republish::Way;
use spillway_recovery_worker::settings::DrainSettings;
use spillway_runtime::program::Context;
use spillway_runtime::settings::{Dur, Size};
use spillway_runtime::shutdown::Shutdown;
use spillway_runtime::tokens::{TokenFile, Tokens};
use tokio::sync::{Semaphore, oneshot};
use tokio::task::{JoinHandle, JoinSet};

use crate::broker::{Broker, Producer};
use crate::bucket::Bucket;
use crate::chance;
use crate::world::{PARTITION_GROUP, PARTITIONS, TOKENS_TOML, World};

fn tokens() -> TokenFile {
    TokenFile::fixed(Tokens::parse(TOKENS_TOML).expect("the simulation's own tokens are sound"))
}

fn partitioning() -> Partitioning {
    Partitioning::new(PARTITIONS, PARTITION_GROUP).expect("the simulation's own numbers fit")
}

/// An answer, or `None` if the server died with the request.
pub type Answered = Option<Response<Bytes>>;

/// One server of ingest-api.
pub struct Api {
    world: Arc<World>,
    broker: Arc<Broker>,
    process: Mutex<Option<ApiProcess>>,
}

struct ApiProcess {
    app: Arc<App>,
    on: Arc<AtomicBool>,
    requests: JoinSet<()>,
}

impl Api {
    #[must_use]
    pub fn new(world: &Arc<World>, broker: &Arc<Broker>) -> Self {
        let (world, broker) = (Arc::clone(world), Arc::clone(broker));
        Self { world, broker, process: Mutex::default() }
    }

    fn process(&self) -> MutexGuard<'_, Option<ApiProcess>> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn start(&self) {
        let context = Context::for_test("ingest-api");
        let on = Arc::new(AtomicBool::new(true));
        let producer = Producer { broker: Arc::clone(&self.broker), on: Arc::clone(&on) };
        let (metrics, publisher) = context.metrics.register(|registry| {
            let metrics = ApiMetrics::register(registry);
            (metrics, Publisher::simulated(Arc::new(producer), registry))
        });
        let outside = Outside { metrics, publisher, tokens: tokens() };
        let settings = IngestSettings::default();
        let app = Arc::new(App::new(settings, &context, partitioning(), outside));
        app.admission.topics_are_checked();
        app.health.set_ready(true);
        *self.process() = Some(ApiProcess { app, on, requests: JoinSet::new() });
    }

    /// `kill -9`, in the middle of whatever it does.
    pub fn kill(&self) {
        if let Some(process) = self.process().take() {
            process.on.store(false, Ordering::Relaxed);
            self.look_for_panics(&process);
        }
    }

    fn look_for_panics(&self, process: &ApiProcess) {
        if process.app.metrics.panics.get() > 0 {
            self.world.violate("a handler of ingest-api panicked".to_owned());
        }
    }

    /// Takes a request; the answer comes, or its sender is dropped with the process.
    #[must_use]
    pub fn take(
        &self,
        request: Request<Full<Bytes>>,
    ) -> Option<oneshot::Receiver<Response<Bytes>>> {
        let mut process = self.process();
        let process = process.as_mut()?;
        let (answer, answered) = oneshot::channel();
        let (app, world) = (Arc::clone(&process.app), Arc::clone(&self.world));
        while process.requests.try_join_next().is_some() {}
        process.requests.spawn(async move {
            let (head, body) = request.into_parts();
            let Ok(body) = body.collect().await;
            let body = body.to_bytes();
            let request = Request::from_parts(head, Full::new(body.clone()));
            let Ok(response) = route::answer(&app, request, false).await;
            let (head, content) = response.into_parts();
            let Ok(content) = content.collect().await;
            let content = content.to_bytes();
            if head.status.is_success() {
                judge(&world, &body, &content);
            }
            let _nobody_waits = answer.send(Response::from_parts(head, content)).is_err();
        });
        Some(answered)
    }
}

/// A 2xx: every frame that it counts as accepted must have been acknowledged by then.
fn judge(world: &World, body: &Bytes, content: &[u8]) {
    // Another parser would only say the same twice: what is read here is what an agent reads.
    let Some(answer) = answer_of(content) else {
        return world.violate("a 2xx without counts".to_owned());
    };
    for (index, frame) in frame::split(body).into_iter().enumerate() {
        let header = frame.and_then(|frame| Header::parse(&frame));
        let rejected = answer.rejected.iter().any(|rejected| rejected.index == index);
        if let (Ok(header), false) = (header, rejected) {
            world.oracle().answered(&header);
        }
    }
}

fn answer_of(content: &[u8]) -> Option<BatchesAnswer> {
    serde_json::from_slice(content).ok()
}

/// One recovery worker.
pub struct Worker {
    world: Arc<World>,
    broker: Arc<Broker>,
    bucket: Arc<Bucket>,
    name: &'static str,
    process: Mutex<Option<WorkerProcess>>,
}

struct WorkerProcess {
    on: Arc<AtomicBool>,
    running: JoinHandle<()>,
    metrics: WorkerMetrics,
}

impl Worker {
    #[must_use]
    pub fn new(
        world: &Arc<World>,
        broker: &Arc<Broker>,
        bucket: &Arc<Bucket>,
        name: &'static str,
    ) -> Self {
        Self {
            world: Arc::clone(world),
            broker: Arc::clone(broker),
            bucket: Arc::clone(bucket),
            name,
            process: Mutex::default(),
        }
    }

    pub fn start(&self) {
        let context = Context::for_test("recovery-worker");
        let on = Arc::new(AtomicBool::new(true));
        let producer = Producer { broker: Arc::clone(&self.broker), on: Arc::clone(&on) };
        let (metrics, publisher) = context.metrics.register(|registry| {
            let metrics = WorkerMetrics::register(registry);
            (metrics, Publisher::simulated(Arc::new(producer), registry))
        });
        let settings = drain_settings(self.name);
        let timeout = settings.publish_timeout.get();
        let parts = Parts {
            bucket: WorkerBucket::of(Arc::clone(&self.bucket) as _),
            keys: KeyFolder::fixed(self.bucket.keys().0),
            tokens: tokens(),
            way: Way { publisher, partitioning: partitioning(), timeout },
            pace: Arc::new(Pace::new(settings.bytes_per_second.get())),
            metrics: metrics.clone(),
            opening: Arc::new(Semaphore::new(OPENED_AT_ONCE_MAX)),
            log: Arc::new(LogGate::default()),
            patience: std::time::Duration::from_secs(5),
        };
        let probes = Probes {
            s3: context.health.register("s3"),
            kafka: context.health.register("kafka"),
            tokens: context.health.register("tokens"),
        };
        let watch = GroupWatch::of(Arc::clone(&self.broker) as _);
        let drain = Drain::new(parts, watch, &settings, probes);
        let shutdown = Shutdown::new(std::time::Duration::from_secs(10));
        let running = tokio::spawn(async move {
            drain.run(&shutdown).await;
        });
        let process = WorkerProcess { on, running, metrics };
        *self.process.lock().unwrap_or_else(PoisonError::into_inner) = Some(process);
        crate::note!(self.world.history, "{} starts", self.name);
    }

    pub fn kill(&self) {
        let process = self.process.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(process) = process {
            process.on.store(false, Ordering::Relaxed);
            if process.running.is_finished() {
                self.world.violate(format!("{} ended by itself", self.name));
            }
            process.running.abort();
            let drained = process.metrics.objects_drained.get();
            crate::note!(self.world.history, "{} killed, {drained} drained", self.name);
        }
    }
}

fn drain_settings(owner: &str) -> DrainSettings {
    DrainSettings {
        poll_period: Dur::from_secs(1),
        owner: owner.to_owned(),
        claim_life: Dur::from_secs(15),
        // Short often enough that it alone proves nothing.
        hold: if chance::percent(50) { Dur::from_millis(100) } else { Dur::from_secs(3) },
        bytes_per_second: Size::mib(1),
        objects_in_flight: 3,
        bytes_in_flight: Size::mib(16),
        objects_awaiting_max: 20,
        lag_records_max: 100,
        publish_timeout: Dur::from_secs(10),
        progress_timeout: Dur::from_secs(2),
    }
}
