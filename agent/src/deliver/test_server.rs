//! A server for tests that answers as it is told, down to the bytes, and can misbehave.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// One request as it came.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Request line and headers, in lower case.
    pub head: String,
    pub body: Vec<u8>,
    /// Which connection, counted from 0.
    pub connection: usize,
}

impl Seen {
    pub fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.into_iter().find(|(found, _)| *found == name).map(|(_, value)| value)
    }
}

/// What the server does with a request.
#[derive(Clone, Debug)]
pub enum Reply {
    /// These bytes, and the connection stays.
    Raw(Vec<u8>),
    /// These bytes, and the connection closes.
    RawThenClose(Vec<u8>),
    /// Nothing, for ever.
    Silence,
}

/// A whole answer.
pub fn answer(status: u16, headers: &str, body: &str) -> Reply {
    let length = body.len();
    let text = format!("HTTP/1.1 {status} X\r\ncontent-length: {length}\r\n{headers}\r\n{body}");
    Reply::Raw(text.into_bytes())
}

/// An answer of ours with an error.
pub fn problem(status: u16, headers: &str, body: &str) -> Reply {
    answer(status, &format!("content-type: application/problem+json\r\n{headers}"), body)
}

/// A 200 for so many batches.
pub fn accepted(batches: usize) -> Reply {
    let body = format!(r#"{{"accepted":{batches},"rejected":[],"environment":"demo"}}"#);
    answer(200, "content-type: application/json\r\n", &body)
}

type Script = dyn Fn(&Seen) -> Reply + Send + Sync;

pub struct TestServer {
    pub url: String,
    seen: watch::Sender<Vec<Seen>>,
    script: Arc<Mutex<Arc<Script>>>,
    task: JoinHandle<()>,
}

impl Drop for TestServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl TestServer {
    pub async fn start(script: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let seen = watch::Sender::new(Vec::new());
        let script: Arc<Mutex<Arc<Script>>> = Arc::new(Mutex::new(Arc::new(script)));
        let (noting, playing) = (seen.clone(), Arc::clone(&script));
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            for connection in 0.. {
                let (stream, _) = listener.accept().await.unwrap();
                connections.spawn(serve(stream, connection, noting.clone(), playing.clone()));
            }
        });
        Self { url, seen, script, task }
    }

    /// From now on, this.
    pub fn play(&self, script: impl Fn(&Seen) -> Reply + Send + Sync + 'static) {
        *self.script.lock().unwrap() = Arc::new(script);
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.seen.borrow().clone()
    }

    /// Waits until so many requests have come.
    pub async fn wait_for(&self, requests: usize) -> Vec<Seen> {
        let mut seen = self.seen.subscribe();
        let limit = Duration::from_secs(30);
        let come = tokio::time::timeout(limit, seen.wait_for(|seen| seen.len() >= requests));
        come.await.expect("the requests did not come").unwrap().clone()
    }
}

async fn serve(
    mut stream: TcpStream,
    connection: usize,
    noting: watch::Sender<Vec<Seen>>,
    script: Arc<Mutex<Arc<Script>>>,
) {
    while let Some((head, body)) = read_request(&mut stream).await {
        let seen = Seen { head, body, connection };
        let play = Arc::clone(&script.lock().unwrap());
        let reply = play(&seen);
        noting.send_modify(|all| all.push(seen));
        match reply {
            Reply::Raw(bytes) => {
                if stream.write_all(&bytes).await.is_err() {
                    return;
                }
            }
            Reply::RawThenClose(bytes) => {
                let _gone = stream.write_all(&bytes).await.is_err();
                return;
            }
            Reply::Silence => std::future::pending().await,
        }
    }
}

async fn read_request(stream: &mut TcpStream) -> Option<(String, Vec<u8>)> {
    let mut bytes = Vec::new();
    let end = loop {
        if let Some(at) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            break at;
        }
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    };
    let body = bytes.split_off(end + 4);
    let head = String::from_utf8(bytes).ok()?.to_lowercase();
    let seen = Seen { head: head.clone(), body: Vec::new(), connection: 0 };
    let length: usize = seen.header("content-length").unwrap_or("0").parse().ok()?;
    let mut whole = body;
    while whole.len() < length {
        if stream.read_buf(&mut whole).await.ok()? == 0 {
            return None;
        }
    }
    Some((head, whole))
}
