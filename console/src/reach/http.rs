//! Small HTTP requests to our own programs: the API and their admin pages.

use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use spillway_runtime::deadline::{DeadlineExceeded, within};

/// More than any answer of ours; a metrics page has some 100 KiB.
const ANSWER_BYTES_MAX: usize = 4 << 20;

/// Why there is no usable answer.
#[derive(Debug, thiserror::Error)]
pub enum HttpFault {
    #[error("{url} does not answer: {cause}")]
    Unreachable { url: String, cause: hyper_util::client::legacy::Error },
    #[error("{url}: {cause}")]
    Late { url: String, cause: DeadlineExceeded },
    #[error("{url} sent an answer that can't be read or is larger than 4 MiB")]
    Body { url: String },
    #[error("{url} is no address: {cause}")]
    Address { url: String, cause: http::Error },
    #[error("the system's certificates can't be read: {0}")]
    Certificates(std::io::Error),
}

/// A client that may be cloned and shared.
#[derive(Debug, Clone)]
pub struct Http {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    deadline: Duration,
}

/// An answer with its whole body.
#[derive(Debug, Clone)]
pub struct Answered {
    pub status: StatusCode,
    pub body: Bytes,
}

impl Answered {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

impl Http {
    pub fn new(deadline: Duration) -> Result<Self, HttpFault> {
        let connector = hyper_rustls::HttpsConnectorBuilder::new()
            .with_native_roots()
            .map_err(HttpFault::Certificates)?
            .https_or_http()
            .enable_http1()
            .build();
        let client = Client::builder(TokioExecutor::new()).build(connector);
        Ok(Self { client, deadline })
    }

    pub async fn get(&self, url: &str) -> Result<Answered, HttpFault> {
        self.send(url, Request::get(url).body(Full::default())).await
    }

    /// Posts `body` with `headers`.
    pub async fn post(
        &self,
        url: &str,
        headers: &[(&'static str, &str)],
        body: Bytes,
    ) -> Result<Answered, HttpFault> {
        let mut request = Request::post(url);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.send(url, request.body(Full::new(body))).await
    }

    async fn send(
        &self,
        url: &str,
        request: Result<Request<Full<Bytes>>, http::Error>,
    ) -> Result<Answered, HttpFault> {
        let url = url.to_owned();
        let request = match request {
            Ok(request) => request,
            Err(cause) => return Err(HttpFault::Address { url, cause }),
        };
        let exchange = async {
            let unreachable = |cause| HttpFault::Unreachable { url: url.clone(), cause };
            let response = self.client.request(request).await.map_err(unreachable)?;
            let status = response.status();
            let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
            let body = body.map_err(|_| HttpFault::Body { url: url.clone() })?.to_bytes();
            Ok(Answered { status, body })
        };
        match within(self.deadline, exchange).await {
            Ok(answer) => answer,
            Err(cause) => Err(HttpFault::Late { url, cause }),
        }
    }
}

/// `base` with `path` behind it, whether or not `base` ends in a slash.
pub fn join(base: &str, path: &str) -> String {
    format!("{}{path}", base.trim_end_matches('/'))
}

/// host:port of an address, for tables.
pub fn host_of(url: &str) -> String {
    let uri = url.parse::<Uri>().ok();
    uri.and_then(|uri| uri.authority().map(ToString::to_string)).unwrap_or_else(|| url.to_owned())
}
