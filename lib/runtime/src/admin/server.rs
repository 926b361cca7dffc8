//! The admin address: bare HTTP/1 with every wait and every number bounded.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use super::{Health, Metrics};
use crate::deadline::within;

/// More than any scraper and load balancer need, and few enough to cost nothing.
pub const ADMIN_CONNECTIONS_MAX: usize = 64;

/// A client that has not sent its request's head by then is cut off.
const HEADER_DEADLINE: Duration = Duration::from_secs(5);

/// Kept-alive connections are closed after this long, so that none is kept for ever.
const CONNECTION_LIFE_MAX: Duration = Duration::from_secs(120);

/// The longest request head: our routes take no parameters.
const HEADER_BYTES_MAX: usize = 16 << 10;

/// After a failed accept (no file descriptors left), so that the loop does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Why the admin address is not served.
#[derive(Debug, thiserror::Error)]
#[error("admin.listen {listen}: {cause}; is another program on this port?")]
pub struct AdminError {
    listen: SocketAddr,
    cause: std::io::Error,
}

/// Binds, and serves for as long as the process lives; returns the address in use.
pub(crate) async fn serve(
    listen: SocketAddr,
    health: Health,
    metrics: Metrics,
) -> Result<SocketAddr, AdminError> {
    let failed = |cause| AdminError { listen, cause };
    let listener = TcpListener::bind(listen).await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    tokio::spawn(accept(listener, health, metrics));
    tracing::info!(%address, "admin page: /livez /readyz /deepz /metrics");
    Ok(address)
}

async fn accept(listener: TcpListener, health: Health, metrics: Metrics) {
    let places = Arc::new(Semaphore::new(ADMIN_CONNECTIONS_MAX));
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        // Full: the connection is dropped at once rather than left waiting.
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else { continue };
        let (health, metrics) = (health.clone(), metrics.clone());
        tokio::spawn(async move {
            converse(stream, health, metrics).await;
            drop(place);
        });
    }
}

async fn converse(stream: TcpStream, health: Health, metrics: Metrics) {
    let answer = service_fn(move |request: Request<Incoming>| {
        let response = respond(request.method(), request.uri().path(), &health, &metrics);
        async move { Ok::<_, Infallible>(response) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_DEADLINE)
        .max_buf_size(HEADER_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), answer);
    match within(CONNECTION_LIFE_MAX, connection).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "an admin connection ended early"),
        Err(late) => tracing::debug!(%late, "an admin connection was closed for its age"),
    }
}

fn respond(
    method: &Method,
    path: &str,
    health: &Health,
    metrics: &Metrics,
) -> Response<Full<Bytes>> {
    const TEXT: &str = "text/plain; charset=utf-8";
    const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    if method != Method::GET && method != Method::HEAD {
        return reply(StatusCode::METHOD_NOT_ALLOWED, TEXT, "only GET\n".to_owned());
    }
    match path {
        "/livez" => match health.dead() {
            None => reply(StatusCode::OK, TEXT, "live\n".to_owned()),
            Some(reason) => reply(StatusCode::SERVICE_UNAVAILABLE, TEXT, format!("{reason}\n")),
        },
        "/readyz" if health.is_ready() => reply(StatusCode::OK, TEXT, "ready\n".to_owned()),
        "/readyz" => {
            let text = "not ready: starting or draining\n".to_owned();
            reply(StatusCode::SERVICE_UNAVAILABLE, TEXT, text)
        }
        "/deepz" => {
            let report = health.report();
            let status = match report.all_ok() {
                true => StatusCode::OK,
                false => StatusCode::SERVICE_UNAVAILABLE,
            };
            let json = serde_json::to_string_pretty(&report).unwrap_or_default();
            reply(status, "application/json", json)
        }
        "/metrics" => reply(StatusCode::OK, OPEN_METRICS, metrics.encode()),
        _ => {
            let text = "here are /livez /readyz /deepz /metrics\n".to_owned();
            reply(StatusCode::NOT_FOUND, TEXT, text)
        }
    }
}

fn reply(status: StatusCode, content_type: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    let value = header::HeaderValue::from_static(content_type);
    response.headers_mut().insert(header::CONTENT_TYPE, value);
    response
}

#[cfg(test)]
#[path = "server_tests.rs"]
mod tests;
