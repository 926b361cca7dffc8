//! InfluxDB's write routes for programs on this host: `POST /write` (v1), `POST /api/v2/write`,
//! `GET /ping`, and UDP. A body is taken whole or not at all; 204 means that all its points lie in
//! the tray, which hands them on even when the agent stops in the next moment.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, RETRY_AFTER};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use spillway_runtime::deadline::within;
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use super::Labels;
use super::line_protocol::{self, BadLines, Precision};
use super::paced::Surroundings;
use super::tray::{Full as TrayFull, Unpackable};
use crate::metrics::Input;
use crate::settings::InfluxSettings;

/// Names in metrics and status: one of the two may work while the other can't.
const INPUT: &str = "influx";
const INPUT_UDP: &str = "influx_udp";
/// A request's head and its body each get this long.
const READ_DEADLINE: Duration = Duration::from_secs(10);
/// When there is no room: by then the next window was handed on.
const RETRY_AFTER_S: &str = "10";
/// Pause before an address that could not be bound is tried again.
const RETRY: Duration = Duration::from_secs(10);
/// The largest datagram UDP can carry.
const DATAGRAM_BYTES_MAX: usize = 65_535;

/// The listener; clones share everything.
#[derive(Clone)]
pub struct Influx {
    settings: Arc<InfluxSettings>,
    around: Surroundings,
    connections: Arc<Semaphore>,
}

impl Influx {
    #[must_use]
    pub fn new(settings: &InfluxSettings, around: Surroundings) -> Self {
        let connections = Arc::new(Semaphore::new(settings.connections_max as usize));
        Self { settings: Arc::new(settings.clone()), around, connections }
    }

    /// Listens where the settings say, until `stop`.
    pub fn start(&self, tasks: &TaskTracker, stop: &CancellationToken) {
        if !self.settings.enabled {
            return;
        }
        if !self.settings.listen.is_empty() {
            let (this, stop) = (self.clone(), stop.clone());
            tasks.spawn(async move {
                let http = this.keep_listening(INPUT, || this.http(&stop));
                stop.run_until_cancelled(http).await
            });
        }
        if !self.settings.udp.is_empty() {
            let (this, stop) = (self.clone(), stop.clone());
            tasks.spawn(async move {
                stop.run_until_cancelled(this.keep_listening(INPUT_UDP, || this.udp())).await
            });
        }
    }

    /// Where it listens, for a list of inputs.
    pub fn shown(&self) -> Option<String> {
        let settings = &self.settings;
        let addresses = [&settings.listen, &settings.udp].map(String::as_str);
        let addresses: Vec<_> = addresses.into_iter().filter(|text| !text.is_empty()).collect();
        settings.enabled.then(|| format!("influx {}", addresses.join(" ")))
    }

    async fn keep_listening<F>(&self, input: &'static str, listen: impl Fn() -> F)
    where
        F: Future<Output = std::io::Result<()>>,
    {
        loop {
            if let Err(cause) = listen().await {
                self.around.metrics.inputs_failed.get_or_create(&Input { input }).inc();
                let text = format!("can't listen: {cause}; tried again every {RETRY:?}");
                self.around.troubles.note(input, Some(text));
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    async fn http(&self, stop: &CancellationToken) -> std::io::Result<()> {
        let listener = TcpListener::bind(&self.settings.listen).await?;
        self.around.troubles.note(INPUT, None);
        info!(address = %listener.local_addr()?, "listening for line protocol");
        self.accept(listener, stop).await
    }

    async fn accept(&self, listener: TcpListener, stop: &CancellationToken) -> std::io::Result<()> {
        loop {
            let Ok(permit) = Arc::clone(&self.connections).acquire_owned().await else {
                return Ok(());
            };
            let (connection, _) = listener.accept().await?;
            let (this, stop) = (self.clone(), stop.clone());
            tokio::spawn(async move {
                stop.run_until_cancelled(this.serve(connection)).await;
                drop(permit);
            });
        }
    }

    async fn serve(&self, connection: TcpStream) {
        let answer = |request| {
            let this = self.clone();
            async move { Ok::<_, std::convert::Infallible>(this.answer(request).await) }
        };
        let served = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(READ_DEADLINE)
            .serve_connection(TokioIo::new(connection), service_fn(answer))
            .await;
        if let Err(cause) = served {
            tracing::debug!(%cause, "a line protocol connection broke");
        }
    }

    async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let path = request.uri().path();
        match (request.method(), path) {
            (&Method::GET | &Method::HEAD, "/ping" | "/health") => {
                return plain(StatusCode::NO_CONTENT);
            }
            (&Method::POST, "/write" | "/api/v2/write") => {}
            _ => {
                return told(
                    StatusCode::NOT_FOUND,
                    "only /write, /api/v2/write and /ping are here",
                );
            }
        }
        if request.headers().get(CONTENT_ENCODING).is_some_and(|of| of != "identity") {
            let text = "bodies on this host are taken uncompressed (Telegraf: content_encoding)";
            return told(StatusCode::UNSUPPORTED_MEDIA_TYPE, text);
        }
        let query = request.uri().query().unwrap_or_default();
        let precision = query.split('&').find_map(|pair| pair.strip_prefix("precision="));
        let Some(precision) = Precision::named(precision.unwrap_or_default()) else {
            return told(StatusCode::BAD_REQUEST, "the precision is none of ns, us, ms, s, m, h");
        };
        let most = self.settings.body_bytes_max.as_usize();
        let body = Limited::new(request.into_body(), most).collect();
        match within(READ_DEADLINE, body).await {
            Err(_) => told(StatusCode::REQUEST_TIMEOUT, "the body did not come in time"),
            Ok(Err(cause)) if cause.is::<http_body_util::LengthLimitError>() => {
                told(StatusCode::PAYLOAD_TOO_LARGE, "the body is over influx.body_bytes_max")
            }
            Ok(Err(_)) => told(StatusCode::BAD_REQUEST, "the body broke off"),
            Ok(Ok(body)) => self.take(&body.to_bytes(), precision),
        }
    }

    fn take(&self, body: &[u8], precision: Precision) -> Response<Full<Bytes>> {
        let mut pack = self.around.tray.pack(Labels::new());
        let now = self.around.clock.wall_ms();
        let read = line_protocol::read(body, precision, now, &mut pack);
        let full = |full: TrayFull| told(StatusCode::SERVICE_UNAVAILABLE, &full.to_string());
        match read {
            Ok(_) => match self.around.tray.put(pack) {
                Ok(()) => plain(StatusCode::NO_CONTENT),
                Err(stopped) => full(stopped),
            },
            Err(BadLines::Unpackable { why: Unpackable::Full(none), .. }) => full(none),
            Err(bad) => {
                self.around.metrics.inputs_failed.get_or_create(&Input { input: INPUT }).inc();
                told(StatusCode::BAD_REQUEST, &bad.to_string())
            }
        }
    }

    async fn udp(&self) -> std::io::Result<()> {
        let socket = UdpSocket::bind(&self.settings.udp).await?;
        self.around.troubles.note(INPUT_UDP, None);
        info!(address = %socket.local_addr()?, "listening for line protocol datagrams");
        let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
        loop {
            let bytes = socket.recv(&mut buffer).await?;
            let datagram = buffer.get(..bytes).unwrap_or_default();
            let answer = self.take(datagram, Precision::Nanoseconds);
            if answer.status() == StatusCode::SERVICE_UNAVAILABLE {
                warn!("a datagram found no room and is lost: UDP can't be told to wait");
            }
        }
    }
}

fn plain(status: StatusCode) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::default());
    *response.status_mut() = status;
    response
}

/// An answer in InfluxDB's form, which its clients show.
fn told(status: StatusCode, text: &str) -> Response<Full<Bytes>> {
    let body = serde_json::json!({ "error": text, "message": text }).to_string();
    let mut response = Response::new(Full::from(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(http::header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if status == StatusCode::SERVICE_UNAVAILABLE {
        headers.insert(RETRY_AFTER, HeaderValue::from_static(RETRY_AFTER_S));
    }
    response
}

#[cfg(test)]
#[path = "influx_tests.rs"]
mod tests;
