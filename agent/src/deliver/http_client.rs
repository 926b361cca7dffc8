//! The HTTP client under both ways out: HTTP/1.1 over TCP or TLS, straight or through a proxy,
//! each step with its deadline.
//!
//! Addresses are remembered: when DNS fails, the last good answer is used.

use std::collections::HashMap;
use std::error::Error;
use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper_rustls::{ConfigBuilderExt as _, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::dns::Name;
use hyper_util::client::legacy::connect::proxy::Tunnel;
use hyper_util::client::legacy::{Client, Error as ClientError};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
use spillway_runtime::deadline::within;
use tower_service::Service;

/// A resolver that has not answered after this is taken for dead.
const RESOLVE_DEADLINE: Duration = Duration::from_secs(3);
/// Addresses remembered per name, and names.
const ADDRESSES_MAX: usize = 16;
const NAMES_MAX: usize = 64;
/// Connections kept for the next request; older ones are often cut by something in between.
const IDLE_MAX: usize = 4;
const IDLE_TIMEOUT: Duration = Duration::from_secs(45);
const KEEPALIVE: Duration = Duration::from_secs(30);
/// Read at once from a connection. hyper would grow this to 400 KiB and keep it with each idle
/// connection: hundreds of scraped targets would cost more than what they say.
const READ_BUFFER_BYTES_MAX: usize = 32 * 1024;

/// Whatever a transport says.
pub type BoxError = Box<dyn Error + Send + Sync>;
type BoxFuture<T> = Pin<Box<dyn Future<Output = Result<T, BoxError>> + Send>>;
type Tcp = HttpConnector<Remembering>;
type Secured<C> = Deadlined<HttpsConnector<C>>;

/// Why a client can't be built.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    #[error("the certificates in {file} can't be read")]
    CaFile { file: PathBuf, source: rustls::pki_types::pem::Error },
    #[error("the key in {file} can't be read")]
    KeyFile { file: PathBuf, source: rustls::pki_types::pem::Error },
    #[error("{file} holds no certificate")]
    NoCertificate { file: PathBuf },
    #[error("the system's certificates can't be read; set ca_file")]
    SystemCertificates(#[source] std::io::Error),
    #[error("TLS can't be set up")]
    Tls(#[from] rustls::Error),
    #[error("{url:?} is not an http:// or https:// URL")]
    Url { url: String },
}

/// Why a request has no answer.
#[derive(Debug, thiserror::Error)]
pub enum Unanswered {
    #[error("no connection")]
    NotSent(#[source] BoxError),
    #[error("the connection broke")]
    Broken(#[source] BoxError),
    #[error("the answer broke off, or is too long")]
    Answer(#[source] BoxError),
    #[error("no answer within {0:?}")]
    Late(Duration),
}

impl Unanswered {
    /// Whether the server surely saw nothing of it.
    pub fn surely_not_sent(&self) -> bool {
        matches!(self, Self::NotSent(_))
    }
}

/// A whole answer.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

/// What a client is made for.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    pub tls: bool,
    pub ca_file: Option<&'a Path>,
    /// The client's own certificate and its key, for servers that ask for one.
    pub own: Option<(&'a Path, &'a Path)>,
    pub proxy: Option<&'a str>,
    pub connect_timeout: Duration,
}

/// What gives a way out its connections.
pub trait Network: Send + Sync {
    /// # Errors
    /// [`BuildError`], never because of a server.
    fn client(&self, wanted: Wanted<'_>) -> Result<HttpClient, BuildError>;
}

/// The network of this host.
#[derive(Clone, Copy, Debug)]
pub struct Internet;

impl Network for Internet {
    fn client(&self, wanted: Wanted<'_>) -> Result<HttpClient, BuildError> {
        Ok(HttpClient::of(Arc::new(Connections::build(wanted)?)))
    }
}

/// What carries a request there and its answer back. It may take for ever.
#[async_trait]
pub trait Exchange: Send + Sync {
    async fn exchange(
        &self,
        request: Request<Full<Bytes>>,
        body_bytes_max: usize,
    ) -> Result<Answer, Unanswered>;
}

/// A client; clones share its connections.
#[derive(Clone)]
pub struct HttpClient {
    exchange: Arc<dyn Exchange>,
}

impl HttpClient {
    #[must_use]
    pub fn of(exchange: Arc<dyn Exchange>) -> Self {
        Self { exchange }
    }

    /// Sends a request and reads the answer, at most `body_bytes_max` of it, within `limit`.
    pub async fn send(
        &self,
        request: Request<Full<Bytes>>,
        limit: Duration,
        body_bytes_max: usize,
    ) -> Result<Answer, Unanswered> {
        let exchange = self.exchange.exchange(request, body_bytes_max);
        within(limit, exchange).await.unwrap_or(Err(Unanswered::Late(limit)))
    }
}

/// Connections kept open by hyper.
pub enum Connections {
    Straight(Client<Secured<Tcp>, Full<Bytes>>),
    Proxied(Client<Secured<Tunnel<Tcp>>, Full<Bytes>>),
}

impl Connections {
    /// # Errors
    /// [`BuildError`], never because of a server.
    pub fn build(wanted: Wanted<'_>) -> Result<Self, BuildError> {
        let tls = tls(wanted)?;
        let mut tcp = HttpConnector::new_with_resolver(Remembering::default());
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_keepalive(Some(KEEPALIVE));
        tcp.set_connect_timeout(Some(wanted.connect_timeout));
        let Some(proxy) = wanted.proxy else {
            return Ok(Self::Straight(client(secured(tls, tcp, wanted.connect_timeout))));
        };
        let uri = proxy.parse().map_err(|_| BuildError::Url { url: proxy.to_owned() })?;
        let tunnel = Tunnel::new(uri, tcp);
        Ok(Self::Proxied(client(secured(tls, tunnel, wanted.connect_timeout))))
    }

    /// Sends a request; the answer's body is still to be read. It may take for ever.
    pub async fn open(
        &self,
        request: Request<Full<Bytes>>,
    ) -> Result<Response<Incoming>, Unanswered> {
        let sent = match self {
            Self::Straight(client) => client.request(request).await,
            Self::Proxied(client) => client.request(request).await,
        };
        sent.map_err(unsent_or_broken)
    }
}

#[async_trait]
impl Exchange for Connections {
    async fn exchange(
        &self,
        request: Request<Full<Bytes>>,
        body_bytes_max: usize,
    ) -> Result<Answer, Unanswered> {
        let (head, body) = self.open(request).await.map(Response::into_parts)?;
        let body = Limited::new(body, body_bytes_max).collect().await;
        let body = body.map_err(Unanswered::Answer)?.to_bytes();
        Ok(Answer { status: head.status, headers: head.headers, body })
    }
}

fn unsent_or_broken(error: ClientError) -> Unanswered {
    match error.is_connect() {
        true => Unanswered::NotSent(error.into()),
        false => Unanswered::Broken(error.into()),
    }
}

fn secured<C>(tls: ClientConfig, inner: C, limit: Duration) -> Secured<C> {
    let https = HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1();
    Deadlined { inner: https.wrap_connector(inner), limit }
}

fn client<C>(connector: C) -> Client<C, Full<Bytes>>
where
    C: hyper_util::client::legacy::connect::Connect + Clone,
{
    Client::builder(TokioExecutor::new())
        .timer(TokioTimer::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(IDLE_TIMEOUT)
        .pool_max_idle_per_host(IDLE_MAX)
        .http1_max_buf_size(READ_BUFFER_BYTES_MAX)
        .build(connector)
}

fn tls(wanted: Wanted<'_>) -> Result<ClientConfig, BuildError> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder =
        ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    let trusting = match wanted.ca_file {
        _ if !wanted.tls => builder.with_root_certificates(RootCertStore::empty()),
        None => builder.with_native_roots().map_err(BuildError::SystemCertificates)?,
        Some(file) => builder.with_root_certificates(roots(file)?),
    };
    let Some((certificate, key)) = wanted.own else { return Ok(trusting.with_no_client_auth()) };
    let unreadable = |source| BuildError::KeyFile { file: key.to_owned(), source };
    let key = PrivateKeyDer::from_pem_file(key).map_err(unreadable)?;
    Ok(trusting.with_client_auth_cert(certificates(certificate)?, key)?)
}

fn roots(file: &Path) -> Result<RootCertStore, BuildError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(file)? {
        roots.add(certificate)?;
    }
    Ok(roots)
}

/// All certificates of a PEM file, of which there must be one at least.
fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, BuildError> {
    let unreadable = |source| BuildError::CaFile { file: file.to_owned(), source };
    let found =
        CertificateDer::pem_file_iter(file).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let found = found.map_err(unreadable)?;
    if found.is_empty() {
        return Err(BuildError::NoCertificate { file: file.to_owned() });
    }
    Ok(found)
}

/// A connector whose whole work, TLS included, has a deadline.
#[derive(Clone)]
pub struct Deadlined<C> {
    inner: C,
    limit: Duration,
}

impl<C> Service<Uri> for Deadlined<C>
where
    C: Service<Uri>,
    C::Future: Send + 'static,
    C::Error: Into<BoxError>,
{
    type Response = C::Response;
    type Error = BoxError;
    type Future = BoxFuture<C::Response>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let connecting = self.inner.call(uri);
        let limit = self.limit;
        Box::pin(async move { within(limit, connecting).await?.map_err(Into::into) })
    }
}

/// A resolver that answers with the last good addresses when the name server does not.
#[derive(Clone, Default)]
pub struct Remembering {
    known: Arc<Mutex<HashMap<String, Vec<IpAddr>>>>,
}

impl Remembering {
    fn learn(&self, name: &str, found: Vec<IpAddr>) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() < NAMES_MAX || known.contains_key(name) {
            known.insert(name.to_owned(), found);
        }
    }

    fn remembered(&self, name: &str) -> Option<Vec<IpAddr>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    async fn resolve(
        &self,
        name: &str,
        lookup: impl Future<Output = std::io::Result<Vec<IpAddr>>>,
    ) -> Result<Vec<IpAddr>, BoxError> {
        let failed: BoxError = match within(RESOLVE_DEADLINE, lookup).await {
            Ok(Ok(found)) if !found.is_empty() => {
                self.learn(name, found.clone());
                return Ok(found);
            }
            Ok(Ok(_)) => "the name has no address".into(),
            Ok(Err(error)) => error.into(),
            Err(late) => late.into(),
        };
        match self.remembered(name) {
            Some(known) => {
                tracing::warn!(name, error = %failed, "DNS failed; using the last good addresses");
                Ok(known)
            }
            None => Err(failed),
        }
    }
}

async fn lookup(name: String) -> std::io::Result<Vec<IpAddr>> {
    let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
    Ok(found.map(|address| address.ip()).take(ADDRESSES_MAX).collect())
}

impl Service<Name> for Remembering {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = BoxError;
    type Future = BoxFuture<Self::Response>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let resolver = self.clone();
        Box::pin(async move {
            let name = name.as_str();
            let found = resolver.resolve(name, lookup(name.to_owned())).await?;
            // The connector puts the port in.
            let addresses: Vec<_> = found.into_iter().map(|ip| (ip, 0).into()).collect();
            Ok(addresses.into_iter())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn when_dns_fails_the_last_good_addresses_are_used() {
        let resolver = Remembering::default();
        let broken = || async { Err(std::io::Error::from(std::io::ErrorKind::NotFound)) };
        assert!(resolver.resolve("a", broken()).await.is_err());
        let good: Vec<IpAddr> = vec![[10, 0, 0, 1].into()];
        let lookup = std::future::ready(Ok(good.clone()));
        assert_eq!(resolver.resolve("a", lookup).await.unwrap(), good);
        assert_eq!(resolver.resolve("a", broken()).await.unwrap(), good);
        let silent = std::future::pending();
        assert_eq!(resolver.resolve("a", silent).await.unwrap(), good, "and when it is silent");
        assert!(resolver.resolve("b", broken()).await.is_err());
    }
}
