//! `spillway status serve`: looks at everything again and again, keeps the history, and serves the
//! last look; the public variant on a door of its own if it has one.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use spillway_runtime::deadline::within;
use spillway_runtime::program::{Context, Drained, RunError};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use super::gather::{self, Gatherer};
use super::history::HistoryFile;
use super::incidents;
use super::page::Facts;
use super::probe;
use super::rendered::Rendered;
use super::routes::{self, Desk, Door};
use super::snapshot::Snapshot;
use super::watch;
use crate::settings::{ConsoleSettings, StatusSettings};

/// Readers at once, on each door.
const CONNECTIONS_MAX: usize = 256;
/// A client that has not sent its request's head by then is cut off.
const HEADER_DEADLINE: Duration = Duration::from_secs(5);
/// Kept-alive connections are closed after this long.
const CONNECTION_LIFE_MAX: Duration = Duration::from_secs(60);
/// After a failed accept, so that the loop does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Why the page is not served.
#[derive(Debug, thiserror::Error)]
#[error("{setting} {listen}: {cause}; is another program on this port?")]
pub struct ListenError {
    setting: &'static str,
    listen: SocketAddr,
    cause: std::io::Error,
}

/// The last look, as it is served.
pub type Shared = Arc<RwLock<Rendered>>;

/// Serves until told to stop.
pub async fn run(settings: ConsoleSettings, context: Context) -> Result<Drained, RunError> {
    let front = listen("status.listen", settings.status.listen).await?;
    let public = match settings.status.public_listen {
        Some(address) => Some(listen("status.public_listen", address).await?),
        None => None,
    };
    let shared = Shared::default();
    let metrics = context.metrics.register(watch::Metrics::register);
    let tried = context.metrics.register(probe::Metrics::register);
    let mut history = HistoryFile::open(&settings.status.history_file);
    let (mut gatherer, snapshot) =
        gather::first(&settings).await.map_err(|failure| failure.sentence())?;
    metrics.note(&snapshot);
    publish(&shared, &settings.status, &snapshot, &mut history).await;
    tracing::info!(address = %settings.status.listen, "status page: / and /status.json");
    context.health.set_ready(true);
    let hurried = Arc::clone(gatherer.settings());
    let desk = Desk::new(Arc::clone(&hurried), Arc::clone(&shared));
    let keep = Keep { history: &mut history, metrics: &metrics };
    tokio::select! {
        () = accept(front, desk.clone(), Door::Operators) => {}
        () = accept_if(public, desk) => {}
        () = watch::run(Arc::clone(&hurried), metrics.clone()) => {}
        () = probe::run(Arc::new(settings.clone()), tried) => {}
        () = refresh(&mut gatherer, &settings.status, &shared, keep) => {}
        () = context.shutdown.wait() => {}
    }
    match history.save().await {
        Ok(()) => Ok(Drained::Everything),
        Err(error) => {
            tracing::warn!(%error, "the last minute of history is not kept");
            Ok(Drained::Everything)
        }
    }
}

async fn listen(setting: &'static str, listen: SocketAddr) -> Result<TcpListener, ListenError> {
    TcpListener::bind(listen).await.map_err(|cause| ListenError { setting, listen, cause })
}

/// What every look goes into, beside the page.
struct Keep<'a> {
    history: &'a mut HistoryFile,
    metrics: &'a watch::Metrics,
}

async fn refresh(
    gatherer: &mut Gatherer,
    settings: &StatusSettings,
    shared: &Shared,
    keep: Keep<'_>,
) {
    loop {
        tokio::time::sleep(settings.refresh.get()).await;
        let snapshot = gatherer.look().await;
        keep.metrics.note(&snapshot);
        publish(shared, settings, &snapshot, keep.history).await;
    }
}

async fn publish(
    shared: &Shared,
    settings: &StatusSettings,
    snapshot: &Snapshot,
    history: &mut HistoryFile,
) {
    let mut snapshot = snapshot.clone();
    if let Err(error) = history.note(&snapshot).await {
        tracing::warn!(%error, "the status page's history is kept in memory only");
    }
    let incidents = incidents::read(&settings.incidents_file).unwrap_or_else(|error| {
        snapshot.troubles.push(error.to_string());
        Vec::new()
    });
    let facts = Facts { snapshot: &snapshot, history: history.history(), incidents: &incidents };
    match Rendered::new(&settings.title, settings.refresh.as_secs(), facts) {
        Ok(rendered) => *shared.write().unwrap_or_else(PoisonError::into_inner) = rendered,
        Err(error) => tracing::error!(%error, "the page can't be rendered; the last one stays"),
    }
}

async fn accept_if(listener: Option<TcpListener>, desk: Desk) {
    match listener {
        Some(listener) => accept(listener, desk, Door::Everybody).await,
        None => std::future::pending().await,
    }
}

/// Answers all who come to `listener`, for ever.
pub async fn accept(listener: TcpListener, desk: Desk, door: Door) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else { continue };
        let desk = desk.clone();
        tokio::spawn(async move {
            converse(stream, desk, door).await;
            drop(place);
        });
    }
}

async fn converse(stream: TcpStream, desk: Desk, door: Door) {
    let answer = service_fn(move |request: Request<Incoming>| {
        let (desk, method, uri) = (desk.clone(), request.method().clone(), request.uri().clone());
        async move { Ok::<_, Infallible>(routes::respond(&desk, door, &method, &uri).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_DEADLINE)
        .serve_connection(TokioIo::new(stream), answer);
    match within(CONNECTION_LIFE_MAX, connection).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "a reader's connection ended early"),
        Err(late) => tracing::debug!(%late, "a reader's connection was closed for its age"),
    }
}
