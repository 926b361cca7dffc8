//! Connections: taken, bounded, served, closed in order. HTTP/1.1, by hyper alone.
//!
//! Bounds: open connections over all, per address and per token, handshakes under way, the wait for
//! the first byte, the time of a head, requests and age of a connection. What a request itself may
//! cost is bounded in its handler.

pub mod post_batches;

pub mod remote_write;

pub mod otlp;

pub mod influx;

pub mod datadog;

pub mod foreign;

pub mod dialect;

pub mod body;

pub mod doors;

pub mod respond;

pub mod route;

pub mod tls;

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use spillway_publisher::LogGate;
use spillway_runtime::deadline;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use self::doors::{Doors, Seat};
use self::tls::Tls;
use crate::app::App;

/// Header section and read buffer of one connection. Each of them may be filled by a head that
/// never ends, so that all connections together hold 128 MiB at worst.
const READ_BUFFER_BYTES_MAX: usize = 32 * 1024;
/// Header lines of one request.
const HEADERS_MAX: usize = 100;
/// Between attempts to accept when the system has no more file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What a refused sender may still send before its connection is closed, and for how long: two of
/// the largest bodies that our own settings let senders make.
const LINGER_BYTES_MAX: u64 = 16 * 1024 * 1024;
const LINGER_WITHIN: Duration = Duration::from_secs(2);

/// The senders' side of the program.
pub struct Server {
    app: Arc<App>,
    listener: TcpListener,
    tls: Option<Tls>,
    failures: LogGate,
}

impl Server {
    #[must_use]
    pub fn new(app: Arc<App>, listener: TcpListener, tls: Option<Tls>) -> Self {
        Self { app, listener, tls, failures: LogGate::default() }
    }

    /// Takes connections until the app is closing, then serves those it has until they end or
    /// `cut_off` comes. Returns how many it had to cut.
    pub async fn run(self, cut_off: CancellationToken) -> usize {
        let doors = Doors::new(&self.app.settings.http, &self.app.metrics);
        let gauge = self.app.metrics.connections.clone();
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                () = self.app.closing.cancelled() => break,
                accepted = self.listener.accept() => match accepted {
                    Ok((stream, peer)) => {
                        // Otherwise closed at once, so that the sender tries another server.
                        if let Ok(seat) = doors.enter(peer.ip()) {
                            let (app, seat) = (Arc::clone(&self.app), Arc::new(seat));
                            let tls = self.tls.as_ref().map(Tls::acceptor);
                            connections.spawn(while_wanted(app, seat, (stream, peer), tls));
                        }
                    }
                    Err(error) => self.not_accepted(&error).await,
                },
                Some(_) = connections.join_next() => {}
            }
            gauge.set(i64::try_from(connections.len()).unwrap_or(i64::MAX));
        }
        drop(self.listener);
        tokio::select! {
            () = cut_off.cancelled() => {}
            () = async { while connections.join_next().await.is_some() {} } => {}
        }
        let cut = connections.len();
        connections.shutdown().await;
        gauge.set(0);
        cut
    }

    async fn not_accepted(&self, error: &std::io::Error) {
        if let Some(held_back) = self.failures.pass() {
            tracing::warn!(%error, held_back, "a connection could not be accepted");
        }
        tokio::time::sleep(ACCEPT_PAUSE).await;
    }
}

async fn while_wanted(
    app: Arc<App>,
    seat: Arc<Seat>,
    (stream, peer): (TcpStream, SocketAddr),
    tls: Option<TlsAcceptor>,
) {
    tokio::select! {
        () = connection(app, &seat, (stream, peer), tls) => {}
        () = seat.wanted() => tracing::debug!(%peer, "made room for another connection"),
    }
}

async fn connection(
    app: Arc<App>,
    seat: &Arc<Seat>,
    (stream, peer): (TcpStream, SocketAddr),
    tls: Option<TlsAcceptor>,
) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, %peer, "no TCP_NODELAY");
    }
    // hyper's own timer starts with the head, and TLS has none; a socket that is silent must cost
    // no more than itself.
    let first_byte_within = app.settings.http.first_byte_within.get();
    let silent = async {
        let waited = deadline::within(first_byte_within, stream.peek(&mut [0])).await;
        !matches!(waited, Ok(Ok(1)))
    };
    tokio::select! {
        silent = silent => if silent { return },
        () = app.closing.cancelled() => return,
    }
    let Some(acceptor) = tls else { return serve(app, seat, stream, peer).await };
    let Ok(under_way) = seat.handshake() else { return };
    let shaken = deadline::within(first_byte_within, acceptor.accept(stream)).await;
    drop(under_way);
    match shaken {
        Ok(Ok(stream)) => serve(app, seat, stream, peer).await,
        Ok(Err(error)) => tracing::debug!(%error, %peer, "no TLS"),
        Err(_) => tracing::debug!(%peer, "no TLS in time"),
    }
}

async fn serve<S>(app: Arc<App>, seat: &Arc<Seat>, mut stream: S, peer: SocketAddr)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    answer_all(&app, seat, &mut stream, peer).await;
    tokio::select! {
        () = linger(&mut stream) => {}
        // Whatever was in work is answered and read to its end.
        () = app.closing.cancelled() => {}
    }
}

/// A sender that is refused in the middle of its body goes on sending. Closed at once, its
/// connection would be reset, and with it the answer might be lost that says why (RFC 9112, 9.6).
async fn linger<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S) {
    let ending = async {
        stream.shutdown().await?;
        tokio::io::copy(&mut stream.take(LINGER_BYTES_MAX), &mut tokio::io::sink()).await
    };
    if !matches!(deadline::within(LINGER_WITHIN, ending).await, Ok(Ok(_))) {
        tracing::debug!("a sender neither ends nor closes");
    }
}

async fn answer_all<S>(app: &Arc<App>, seat: &Arc<Seat>, stream: &mut S, peer: SocketAddr)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let http = &app.settings.http;
    let served = AtomicU32::new(0);
    let service = service_fn(|mut request: Request<Incoming>| {
        request.extensions_mut().insert(Arc::clone(seat));
        let count = served.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        route::answer(app, request, count >= http.connection_requests_max)
    });
    let mut connection = pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(http.head_within.get())
            .max_buf_size(READ_BUFFER_BYTES_MAX)
            .max_headers(HEADERS_MAX)
            .serve_connection(TokioIo::new(stream), service)
    );
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = until_it_must_end(app) => {
            // The request in work is answered, then the connection is closed.
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    match ended {
        // What hyper answers by itself (400, 431) is seen by no handler.
        Err(error) if error.is_parse() => app.tell_of_malformed(&error, peer),
        Err(error) => tracing::debug!(%error, %peer, "connection ended"),
        Ok(()) => {}
    }
}

async fn until_it_must_end(app: &App) {
    tokio::select! {
        () = app.closing.cancelled() => {}
        () = tokio::time::sleep(app.settings.http.connection_age_max.get()) => {}
    }
}
