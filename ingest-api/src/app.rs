//! Wiring and the order of shutdown; nothing else is decided here.
//!
//! At SIGTERM: readiness turns false and answers close their connections; after a grace no new
//! connection is taken; requests in work are answered; the producer is emptied. What is left then
//! was never acknowledged to anyone, and makes the exit code 75.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use spillway_proto::partition::Partitioning;
use spillway_proto::verdict::RejectedBatch;
use spillway_publisher::{LogGate, Publisher, TopicsError};
use spillway_runtime::admin::{DependencyProbe, Health};
use spillway_runtime::backoff::Backoff;
use spillway_runtime::open_files;
use spillway_runtime::program::{Context, Drained, Misconfigured, RunError};
use spillway_runtime::shutdown::Shutdown;
use spillway_runtime::tokens::TokenFile;
use tokio::net::TcpListener;
use tokio::task::{JoinError, JoinHandle};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::admit::Admission;
use crate::authenticate::Caller;
use crate::http::Server;
use crate::http::respond::{ErrorId, Problem};
use crate::http::tls::Tls;
use crate::metrics::Metrics;
use crate::quota::Quotas;
use crate::settings::IngestSettings;

/// What one look at Kafka may take.
const KAFKA_WITHIN: Duration = Duration::from_secs(3);
/// Between looks at Kafka, once its topics are known to be right.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// Between checks of the topics, until they are known.
const CHECK_PAUSE: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(3));
/// Files and sockets beside the senders' connections: Kafka's, the admin page's, logs.
const OPEN_FILES_BESIDE: u64 = 256;
/// The part of the drain that is kept for emptying the producer.
const FLUSH_PART: u32 = 3;

/// Somebody else listens there, or the address is not up yet: not for good, so no exit code that
/// tells a supervisor to leave it at that.
#[derive(Debug, thiserror::Error)]
#[error("http.listen: can't bind {listen}: {cause}")]
struct CannotListen {
    listen: SocketAddr,
    cause: std::io::Error,
}

/// What every request sees.
#[derive(Debug)]
pub struct App {
    pub settings: IngestSettings,
    pub metrics: Metrics,
    pub tokens: TokenFile,
    pub admission: Admission,
    pub quotas: Quotas,
    pub publisher: Publisher,
    pub partitioning: Partitioning,
    pub health: Health,
    pub shutdown: Shutdown,
    /// No new connections, no new requests.
    pub closing: CancellationToken,
    problems: [LogGate; ErrorId::ALL.len()],
    rejections: LogGate,
    malformed: LogGate,
}

/// What an [`App`] reaches beyond itself.
#[derive(Debug)]
pub struct Outside {
    pub metrics: Metrics,
    pub publisher: Publisher,
    pub tokens: TokenFile,
}

impl App {
    #[must_use]
    pub fn new(
        settings: IngestSettings,
        context: &Context,
        partitioning: Partitioning,
        outside: Outside,
    ) -> Self {
        let closing = CancellationToken::new();
        let Outside { metrics, publisher, tokens } = outside;
        let reload = context.reload.clone();
        Self {
            admission: Admission::new(&settings, &metrics, reload, closing.clone()),
            metrics,
            tokens,
            quotas: Quotas::default(),
            publisher,
            partitioning,
            health: context.health.clone(),
            shutdown: context.shutdown.clone(),
            closing,
            problems: Default::default(),
            rejections: LogGate::default(),
            malformed: LogGate::default(),
            settings,
        }
    }

    /// Counts a request that was not taken, and logs it unless it is one of a flood.
    pub fn tell(&self, problem: &Problem) {
        let (id, status, _) = problem.id.parts();
        self.metrics.problem(id);
        // Each kind has its own gate: a flood of one must not hide the others.
        let gate = self.problems.get(problem.id as usize);
        if let Some(held_back) = gate.and_then(LogGate::pass) {
            let status = status.as_u16();
            tracing::warn!(id, status, held_back, "a request was not taken: {}", problem.detail());
        }
    }

    /// Counts a connection on which something else than HTTP/1.1 came, and logs it unless it is
    /// one of a flood.
    pub fn tell_of_malformed(&self, error: &hyper::Error, peer: SocketAddr) {
        self.metrics.connections_malformed.inc();
        if let Some(held_back) = self.malformed.pass() {
            tracing::warn!(%error, %peer, held_back, "a request could not be read");
        }
    }

    /// Logs a batch that was refused for good, unless it is one of a flood.
    pub fn tell_of_rejected(&self, rejected: &RejectedBatch, caller: &Caller) {
        if let Some(held_back) = self.rejections.pass() {
            let refusal = rejected.refusal.as_str();
            let environment = &*caller.environment;
            tracing::warn!(environment, refusal, held_back, "batch refused: {}", rejected.error);
        }
    }
}

/// ingest-api, its address bound.
pub struct Ingest {
    app: Arc<App>,
    server: Server,
    address: SocketAddr,
    probes: Probes,
}

struct Probes {
    kafka: DependencyProbe,
    tokens: DependencyProbe,
}

/// Runs until SIGTERM and drains.
///
/// # Errors
/// What keeps it from starting; [`Misconfigured`] when Kafka's topics do not fit the settings.
pub async fn run(settings: IngestSettings, context: Context) -> Result<Drained, RunError> {
    Ingest::start(settings, &context).await?.run().await
}

impl Ingest {
    /// Binds the address. Kafka and the tokens file need not be there.
    ///
    /// # Errors
    /// What keeps it from starting.
    pub async fn start(settings: IngestSettings, context: &Context) -> Result<Self, RunError> {
        let partitioning = settings.topics.partitioning();
        let partitioning = partitioning.ok_or(Misconfigured("topics: not valid".to_owned()))?;
        #[cfg(feature = "mutants")]
        let settings = crate::mutant::spoiled(settings);
        let register = |registry: &mut _| {
            (Metrics::register(registry), Publisher::start(&settings.kafka, registry))
        };
        let (metrics, publisher) = context.metrics.register(register);
        let tls = Tls::start(&settings.tls, context.reload.clone(), &metrics)?;
        let tokens = TokenFile::watch(&settings.tokens.file, context.reload.clone());
        let listen = settings.http.listen;
        let outside = Outside { metrics, publisher: publisher?, tokens };
        let app = Arc::new(App::new(settings, context, partitioning, outside));
        let cannot_listen = |cause| CannotListen { listen, cause };
        let listener = TcpListener::bind(listen).await.map_err(cannot_listen)?;
        let address = listener.local_addr()?;
        let probes = Probes {
            kafka: context.health.register("kafka"),
            tokens: context.health.register("tokens"),
        };
        allow_for_connections(&app.settings);
        tracing::info!(%address, tls = tls.is_some(), "listening");
        Ok(Self { server: Server::new(Arc::clone(&app), listener, tls), app, address, probes })
    }

    /// Where senders connect.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until SIGTERM, then drains.
    ///
    /// # Errors
    /// [`Misconfigured`] when Kafka's topics do not fit the settings.
    pub async fn run(self) -> Result<Drained, RunError> {
        let Self { app, server, probes, .. } = self;
        let cut_off = CancellationToken::new();
        let mut serving = tokio::spawn(server.run(cut_off.clone()));
        let mut watching = tokio::spawn(watch_dependencies(Arc::clone(&app), probes));
        app.health.set_ready(true);
        let wrong = tokio::select! {
            () = app.shutdown.wait() => None,
            watched = &mut watching => Some(unusable(watched)),
            // It ends after the others; a server without a listener is started again.
            ended = &mut serving => Some(unserved(ended)),
        };
        watching.abort();
        if let Some(wrong) = wrong {
            app.health.set_ready(false);
            serving.abort();
            return Err(wrong);
        }
        drain(&app, &mut serving, &cut_off).await
    }
}

/// Each connection is an open file.
fn allow_for_connections(settings: &IngestSettings) {
    let memory_mib_max = settings.memory_bytes_max() >> 20;
    let connections_max = settings.http.connections_max;
    tracing::info!(memory_mib_max, connections_max, "requests and connections are bounded");
    let needed = u64::from(connections_max) + OPEN_FILES_BESIDE;
    match open_files::raise() {
        Ok(Some(open_files)) if open_files < needed => {
            tracing::warn!(open_files, needed, "too few open files for http.connections_max");
        }
        Ok(_) => {}
        Err(error) => tracing::warn!(%error, "the limit of open files can't be raised"),
    }
}

fn unusable(watched: Result<TopicsError, JoinError>) -> RunError {
    match watched {
        Ok(topics) => Box::new(Misconfigured(topics.to_string())),
        Err(ended) => Box::new(ended),
    }
}

fn unserved(ended: Result<usize, JoinError>) -> RunError {
    ended.map_or_else(Into::into, |_| "the listener ended".into())
}

/// Finishes what is in work, within the deadline of the shutdown.
async fn drain(
    app: &App,
    serving: &mut JoinHandle<usize>,
    cut_off: &CancellationToken,
) -> Result<Drained, RunError> {
    let until = app.shutdown.drain_until();
    let left = |until: Instant| until.saturating_duration_since(Instant::now());
    let answers_until = until - left(until) / FLUSH_PART;
    tokio::time::sleep(app.settings.http.drain_grace.get().min(left(answers_until))).await;
    app.closing.cancel();
    let cut = tokio::select! {
        cut = &mut *serving => cut?,
        () = tokio::time::sleep_until(answers_until) => {
            cut_off.cancel();
            serving.await?
        }
    };
    let unknown = app.publisher.drain(left(until)).await;
    if cut == 0 && unknown == 0 {
        return Ok(Drained::Everything);
    }
    Ok(Drained::Left(format!(
        "{cut} connections were cut and {unknown} records have no word from Kafka; \
         none of it was acknowledged to its sender"
    )))
}

/// Lets batches in once the topics are what they must be, and tells `/deepz` how Kafka and the
/// tokens file are. Ends only with topics that an operator must mend.
async fn watch_dependencies(app: Arc<App>, probes: Probes) -> TopicsError {
    let mut pause = Backoff::new(CHECK_PAUSE.0, CHECK_PAUSE.1);
    let told = LogGate::default();
    loop {
        tell_of_tokens(&app, &probes.tokens);
        let began = Instant::now();
        let partitions = app.settings.topics.partitions;
        match app.publisher.check_topics(partitions, KAFKA_WITHIN).await {
            Ok(()) => {
                // `/deepz` is well only when batches are taken.
                app.admission.topics_are_checked();
                probes.kafka.ok(began.elapsed());
                break;
            }
            Err(error) if error.is_transient() => {
                probes.kafka.failed(&error);
                if let Some(held_back) = told.pass() {
                    tracing::warn!(%error, held_back, "no batches are taken yet");
                }
            }
            Err(error) => return error,
        }
        tokio::time::sleep(pause.next_delay()).await;
    }
    tracing::info!("Kafka's topics are as they must be: batches are taken");
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        tell_of_tokens(&app, &probes.tokens);
        match app.publisher.ping(KAFKA_WITHIN).await {
            Ok(latency) => probes.kafka.ok(latency),
            Err(error) => probes.kafka.failed(&error),
        }
    }
}

fn tell_of_tokens(app: &App, probe: &DependencyProbe) {
    match app.tokens.current() {
        Ok(_) => probe.ok(Duration::ZERO),
        Err(unavailable) => probe.failed(&unavailable),
    }
}
