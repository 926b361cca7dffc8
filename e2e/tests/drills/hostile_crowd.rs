//! Strangers of a flood, on a processor of theirs and behind everybody else: what they cost
//! themselves is none of the server's doing. And what they talk to in the placebo: a sink that
//! reads the same requests and answers as many in a second, so that their own costs are the same
//! and the server is left out.

use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// The processor of strangers.
const THEIR_CPU: &str = "0";
/// They give way to everything else.
const THEIR_NICENESS: i32 = 19;
/// After a connection that was refused or broken.
const PAUSE: Duration = Duration::from_millis(5);
/// Of an answer: none is longer, and what is beyond it only wakes us once more.
const ANSWER_BYTES: usize = 64 << 10;
const ANSWER: &[u8] = b"HTTP/1.1 429 Too Many Requests\r\nContent-Length: 2\r\n\r\n{}";

/// A thread of strangers, until it is dropped.
pub struct Strangers {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Strangers {
    fn start(work: impl Future<Output = ()> + Send + 'static) -> Self {
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::spawn(move || {
            step_back();
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime").block_on(async {
                tokio::select! {
                    _ = stopped => {}
                    () = work => {}
                }
            });
        });
        Self { stop: Some(stop), thread: Some(thread) }
    }

    /// `connections` of them send `request` to `address` again and again, as fast as answers come,
    /// and count those.
    pub fn flood(
        address: &str,
        request: &Arc<Vec<u8>>,
        connections: usize,
        answers: &Arc<AtomicU64>,
    ) -> Self {
        let one = |_| pester(address.to_owned(), Arc::clone(request), Arc::clone(answers));
        let all: Vec<_> = (0..connections).map(one).collect();
        Self::start(async {
            let mut crowd = JoinSet::new();
            all.into_iter().for_each(|one| drop(crowd.spawn(one)));
            while crowd.join_next().await.is_some() {}
        })
    }
}

impl Drop for Strangers {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            thread.join().expect("strangers do not panic");
        }
    }
}

/// This thread goes to the strangers' processor, and behind all others.
fn step_back() {
    let link = std::fs::read_link("/proc/thread-self").expect("a thread has a number");
    let tid = link.file_name().expect("at its end").to_owned();
    let pin = std::process::Command::new("taskset").args(["-cp", THEIR_CPU]).arg(tid).output();
    assert!(pin.expect("taskset runs").status.success(), "there is a processor {THEIR_CPU}");
    // Of the thread alone, as Linux has it.
    rustix::process::setpriority_process(None, THEIR_NICENESS).expect("downwards is allowed");
}

async fn pester(address: String, request: Arc<Vec<u8>>, answers: Arc<AtomicU64>) {
    let mut buffer = vec![0; ANSWER_BYTES];
    loop {
        if let Ok(mut stream) = TcpStream::connect(&address).await {
            while stream.write_all(&request).await.is_ok() {
                match stream.read(&mut buffer).await {
                    Ok(count) if count > 0 => answers.fetch_add(1, Ordering::Relaxed),
                    Ok(_) | Err(_) => break,
                };
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Reads requests of one length and answers so many a second, all connections together.
pub struct Sink {
    pub address: SocketAddr,
    turns: Arc<Turns>,
    _thread: Strangers,
}

/// When the next answer is due.
struct Turns {
    every_ns: AtomicU64,
    next: Mutex<Instant>,
}

impl Sink {
    pub fn start(request_bytes: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        listener.set_nonblocking(true).expect("a socket");
        let address = listener.local_addr().expect("bound");
        let turns = Turns { every_ns: AtomicU64::new(1_000_000), next: Mutex::new(Instant::now()) };
        let turns = Arc::new(turns);
        let own = Arc::clone(&turns);
        let thread = Strangers::start(async move {
            let listener = tokio::net::TcpListener::from_std(listener).expect("a socket");
            let mut served = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                served.spawn(swallow(stream, request_bytes, Arc::clone(&own)));
            }
        });
        Self { address, turns, _thread: thread }
    }

    /// From now on so many answers a second.
    pub fn pace(&self, per_second: f64) {
        let every = Duration::from_secs_f64(1.0 / per_second.max(1.0));
        self.turns.every_ns.store(every.as_nanos() as u64, Ordering::Relaxed);
    }
}

impl Turns {
    fn next(&self) -> Instant {
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let due = (*next).max(Instant::now());
        *next = due + Duration::from_nanos(self.every_ns.load(Ordering::Relaxed));
        due
    }
}

async fn swallow(mut stream: TcpStream, request_bytes: usize, turns: Arc<Turns>) {
    let mut request = vec![0; request_bytes];
    while stream.read_exact(&mut request).await.is_ok() {
        tokio::time::sleep_until(turns.next()).await;
        if stream.write_all(ANSWER).await.is_err() {
            break;
        }
    }
}
