//! S3 in this process (s3s over a folder), behind a service that can spoil its answers.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use http_body_util::{BodyExt, Full, combinators::BoxBody};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use s3s::auth::SimpleAuth;
use s3s::service::{S3Service, S3ServiceBuilder};
use s3s_fs::FileSystem;
use tokio::net::TcpListener;
use tokio::task::AbortHandle;

pub const BUCKET: &str = "spillway";
pub const ACCESS_KEY: &str = "worker";
pub const SECRET_KEY: &str = "secret-of-the-worker";

type Body = BoxBody<bytes::Bytes, Box<dyn std::error::Error + Send + Sync>>;

/// What happens to a request instead of what should.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// This status, with an S3 error code.
    Status(u16, &'static str),
    /// No answer at all.
    Hang,
    /// The right head, and half of the body.
    Truncate,
    /// The right answer with one byte changed.
    Garble,
}

/// Requests whose method and path fit are spoiled.
#[derive(Clone, Copy, Debug)]
pub struct Spoil {
    pub method: &'static str,
    /// Part of path and query.
    pub part: &'static str,
    pub fault: Fault,
    /// How many requests it spoils.
    pub times: u64,
}

#[derive(Default)]
pub struct Faults {
    spoils: Mutex<Vec<Spoil>>,
    listings: AtomicU64,
    gets: AtomicU64,
    deletes: Mutex<Vec<String>>,
}

impl Faults {
    pub fn add(&self, spoil: Spoil) {
        self.spoils.lock().unwrap().push(spoil);
    }

    pub fn heal(&self) {
        self.spoils.lock().unwrap().clear();
    }

    /// How many faults of this list have been used up or not.
    pub fn left(&self) -> u64 {
        self.spoils.lock().unwrap().iter().map(|spoil| spoil.times).sum()
    }

    fn meet(&self, method: &str, target: &str) -> Option<Fault> {
        match method {
            "GET" if target.contains("list-type=2") => {
                self.listings.fetch_add(1, Ordering::SeqCst);
            }
            "GET" if target.contains("/spill/") => {
                self.gets.fetch_add(1, Ordering::SeqCst);
            }
            "DELETE" => self.deletes.lock().unwrap().push(target.to_owned()),
            _ => {}
        }
        let mut spoils = self.spoils.lock().unwrap();
        let spoil = spoils.iter_mut().find(|spoil| {
            spoil.times > 0 && spoil.method == method && target.contains(spoil.part)
        })?;
        spoil.times -= 1;
        Some(spoil.fault)
    }
}

pub struct S3 {
    address: std::net::SocketAddr,
    faults: Arc<Faults>,
    accepting: AbortHandle,
}

impl S3 {
    pub async fn start(root: &Path) -> Self {
        std::fs::create_dir_all(root.join(BUCKET)).unwrap();
        let mut builder = S3ServiceBuilder::new(FileSystem::new(root).unwrap());
        builder.set_auth(SimpleAuth::from_single(ACCESS_KEY, SECRET_KEY));
        let service = builder.build();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let faults = Arc::new(Faults::default());
        let accepting = tokio::spawn(accept(listener, service, Arc::clone(&faults)));
        Self { address, faults, accepting: accepting.abort_handle() }
    }

    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn faults(&self) -> &Faults {
        &self.faults
    }

    pub fn listings(&self) -> u64 {
        self.faults.listings.load(Ordering::SeqCst)
    }

    /// Objects under spill/ that were read.
    pub fn gets(&self) -> u64 {
        self.faults.gets.load(Ordering::SeqCst)
    }

    /// Paths of all deletions, in order.
    pub fn deletes(&self) -> Vec<String> {
        self.faults.deletes.lock().unwrap().clone()
    }
}

impl Drop for S3 {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(listener: TcpListener, service: S3Service, faults: Arc<Faults>) {
    while let Ok((socket, _)) = listener.accept().await {
        let (service, faults) = (service.clone(), Arc::clone(&faults));
        tokio::spawn(async move {
            let answer = service_fn(move |request: Request<Incoming>| {
                let (service, faults) = (service.clone(), Arc::clone(&faults));
                async move { Ok::<_, hyper::Error>(answer(&service, &faults, request).await) }
            });
            let builder = Builder::new(TokioExecutor::new());
            builder.serve_connection(TokioIo::new(socket), answer).await.ok();
        });
    }
}

async fn answer(
    service: &S3Service,
    faults: &Faults,
    request: Request<Incoming>,
) -> Response<Body> {
    let target = request.uri().path_and_query().map(ToString::to_string).unwrap_or_default();
    let fault = faults.meet(request.method().as_str(), &target);
    match fault {
        None => {}
        Some(Fault::Status(status, code)) => return refusal(status, code),
        Some(Fault::Hang) => std::future::pending().await,
        Some(Fault::Truncate | Fault::Garble) => {}
    }
    let answer = hyper::service::Service::call(service, request).await;
    let (head, body) = answer.unwrap().into_parts();
    let Some(spoil @ (Fault::Truncate | Fault::Garble)) = fault else {
        return Response::from_parts(head, body.map_err(Into::into).boxed());
    };
    let mut bytes = body.collect().await.unwrap().to_bytes().to_vec();
    if spoil == Fault::Garble {
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        return Response::from_parts(head, full(bytes));
    }
    bytes.truncate(bytes.len() / 2);
    // The head still promises the whole; the connection ends before it.
    let cut = cut_off(bytes);
    Response::from_parts(head, cut)
}

/// Half a body, and then an error.
fn cut_off(bytes: Vec<u8>) -> Body {
    let mut parts = std::collections::VecDeque::from([
        Ok(hyper::body::Frame::data(bytes::Bytes::from(bytes))),
        Err("cut off".into()),
    ]);
    let stream = Parts { next: Box::new(move || parts.pop_front()) };
    BodyExt::boxed(stream)
}

type NextFrame = Result<hyper::body::Frame<bytes::Bytes>, Box<dyn std::error::Error + Send + Sync>>;

struct Parts {
    next: Box<dyn FnMut() -> Option<NextFrame> + Send + Sync>,
}

impl hyper::body::Body for Parts {
    type Data = bytes::Bytes;
    type Error = Box<dyn std::error::Error + Send + Sync>;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<NextFrame>> {
        std::task::Poll::Ready((self.next)())
    }
}

fn refusal(status: u16, code: &str) -> Response<Body> {
    let xml = format!("<Error><Code>{code}</Code><Message>as the test wants it</Message></Error>");
    let mut response = Response::new(full(xml.into_bytes()));
    *response.status_mut() = StatusCode::from_u16(status).unwrap();
    response
}

fn full(bytes: Vec<u8>) -> Body {
    Full::new(bytes::Bytes::from(bytes)).map_err(|never| match never {}).boxed()
}
