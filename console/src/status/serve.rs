//! `spillway status serve`: looks at everything again and again, and serves the last look.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, RwLock};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use spillway_runtime::deadline::within;
use spillway_runtime::program::{Context, Drained, RunError};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use super::gather::{self, Gatherer};
use super::page;
use super::snapshot::Snapshot;
use crate::settings::{ConsoleSettings, StatusSettings};

/// Readers at once.
const CONNECTIONS_MAX: usize = 256;
/// A client that has not sent its request's head by then is cut off.
const HEADER_DEADLINE: Duration = Duration::from_secs(5);
/// Kept-alive connections are closed after this long.
const CONNECTION_LIFE_MAX: Duration = Duration::from_secs(60);
/// After a failed accept, so that the loop does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Why the page is not served.
#[derive(Debug, thiserror::Error)]
#[error("status.listen {listen}: {cause}; is another program on this port?")]
pub struct ListenError {
    listen: SocketAddr,
    cause: std::io::Error,
}

/// The last look, as it is served.
#[derive(Debug, Default)]
struct Rendered {
    html: Bytes,
    json: Bytes,
}

type Shared = Arc<RwLock<Rendered>>;

/// Serves until told to stop.
pub async fn run(settings: ConsoleSettings, context: Context) -> Result<Drained, RunError> {
    let listen = settings.status.listen;
    let failed = |cause| ListenError { listen, cause };
    let listener = TcpListener::bind(listen).await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    let shared = Shared::default();
    let first = gather::first(&settings).await;
    let (mut gatherer, snapshot) = first.map_err(|failure| failure.sentence())?;
    publish(&shared, &settings.status, &snapshot);
    tracing::info!(%address, "status page: / and /status.json");
    context.health.set_ready(true);
    tokio::select! {
        () = accept(listener, Arc::clone(&shared)) => {}
        () = refresh(&mut gatherer, &settings.status, &shared) => {}
        () = context.shutdown.wait() => {}
    }
    Ok(Drained::Everything)
}

async fn refresh(gatherer: &mut Gatherer, settings: &StatusSettings, shared: &Shared) {
    loop {
        tokio::time::sleep(settings.refresh.get()).await;
        let snapshot = gatherer.look().await;
        publish(shared, settings, &snapshot);
    }
}

fn publish(shared: &Shared, settings: &StatusSettings, snapshot: &Snapshot) {
    let html = page::render(&settings.title, settings.refresh.as_secs(), snapshot);
    let mut json = serde_json::json!({
        "verdict": snapshot.verdict().as_str(),
        "headline": snapshot.headline(),
    });
    if let (Some(object), Ok(serde_json::Value::Object(rest))) =
        (json.as_object_mut(), serde_json::to_value(snapshot))
    {
        object.extend(rest);
    }
    let rendered = Rendered { html: html.into(), json: format!("{json:#}\n").into() };
    *shared.write().unwrap_or_else(std::sync::PoisonError::into_inner) = rendered;
}

async fn accept(listener: TcpListener, shared: Shared) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else { continue };
        let shared = Arc::clone(&shared);
        tokio::spawn(async move {
            converse(stream, shared).await;
            drop(place);
        });
    }
}

async fn converse(stream: TcpStream, shared: Shared) {
    let answer = service_fn(move |request: Request<Incoming>| {
        let response = respond(request.method(), request.uri().path(), &shared);
        async move { Ok::<_, Infallible>(response) }
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

fn respond(method: &Method, path: &str, shared: &Shared) -> Response<Full<Bytes>> {
    const TEXT: &str = "text/plain; charset=utf-8";
    if method != Method::GET && method != Method::HEAD {
        return reply(StatusCode::METHOD_NOT_ALLOWED, TEXT, Bytes::from_static(b"only GET\n"));
    }
    let rendered = shared.read().unwrap_or_else(std::sync::PoisonError::into_inner);
    match path {
        "/" => reply(StatusCode::OK, "text/html; charset=utf-8", rendered.html.clone()),
        "/status.json" => reply(StatusCode::OK, "application/json", rendered.json.clone()),
        "/livez" => reply(StatusCode::OK, TEXT, Bytes::from_static(b"live\n")),
        _ => {
            let text = Bytes::from_static(b"here are / and /status.json\n");
            reply(StatusCode::NOT_FOUND, TEXT, text)
        }
    }
}

fn reply(status: StatusCode, content_type: &'static str, body: Bytes) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, header::HeaderValue::from_static(content_type));
    headers.insert(header::CACHE_CONTROL, header::HeaderValue::from_static("no-store"));
    let policy = "default-src 'none'; style-src 'unsafe-inline'";
    let policy = header::HeaderValue::from_static(policy);
    headers.insert(header::CONTENT_SECURITY_POLICY, policy);
    response
}
