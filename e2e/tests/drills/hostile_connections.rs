//! Connections that are held and not used, thousands of them, beside hundreds that misbehave, under
//! a hard memory limit, while honest senders of another environment go on.
//!
//! Held to: memory below its limit, places below theirs, no honest batch refused by anything but
//! "not now", what was closed counted by its reason. Printed: the rows of docs/security.md. About
//! a minute each.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use spillway_e2e::rig::Rig;
use spillway_testkit::stack::StackOptions;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;

use crate::hostile_load::{Neighbour, percentile_ms};
use crate::hostile_target::Target;
use crate::hostile_wire::{post, post_as};

/// What the kernel gives the program.
const MEMORY_BYTES_MAX: u64 = 512 << 20;
const HOLDERS: usize = 5_000;
/// So many of them share one address, which is more than it may have (1,024 by default).
const CROWDED: usize = 1_400;
/// The addresses of the others, who are more than there are places left.
const HOLDERS_ADDRESSES: usize = 7;
const RASCALS: usize = 200;
/// How long the whole crowd is there.
const SIEGE: Duration = Duration::from_secs(40);
/// Between a connection's end and the next one of the same sender.
const PAUSE: Duration = Duration::from_secs(5);
/// Between two looks at the metrics.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// More patience than by default (10 s, 30 s), so that whoever holds a connection keeps it.
const PATIENT_API: &str = "[http]\nhead_within = \"2m\"\nfirst_byte_within = \"2m\"\n";
/// The settings' default, those who are leaving, and those who left and are not counted out yet.
const PLACES_MAX: f64 = 4_096.0 + 64.0 + 256.0;
/// One in so many of the neighbour's connections may be closed as it comes, which every sender
/// tries again: those who make room need a moment to leave, and more may come within it.
const CLOSED_PART_MAX: usize = 20;

/// What one connection does before it waits for its end.
#[derive(Clone)]
struct Habit {
    say: Vec<u8>,
    /// Said again and again behind it, a pause between.
    again: Vec<u8>,
    pause: Duration,
}

impl Habit {
    fn quiet(say: &[u8]) -> Self {
        Self { say: say.to_vec(), again: Vec::new(), pause: PAUSE }
    }
}

/// Nothing; half a head; a head almost as large as may be; a request, then nothing.
fn holders() -> Vec<Habit> {
    let half = b"POST /v1/batches HTTP/1.1\r\nHost: drill\r\nX-A: ".to_vec();
    let large = [half.as_slice(), &vec![b'a'; 30 << 10]].concat();
    let request = b"GET /livez HTTP/1.1\r\nHost: drill\r\n\r\n";
    vec![Habit::quiet(b""), Habit::quiet(&half), Habit::quiet(&large), Habit::quiet(request)]
}

/// Slow heads, slow bodies, bombs, endless chunks, HTTP/2 in the clear.
fn rascals(token: &str) -> Vec<Habit> {
    let bearer = format!("Bearer {token}");
    let chunked = [("Authorization", bearer.as_str()), ("Transfer-Encoding", "chunked")];
    let chunk = [b"10000\r\n".as_slice(), &[b'a'; 0x10000], b"\r\n"].concat();
    let drip = |say: Vec<u8>| Habit { say, again: vec![b'a'], pause: Duration::from_secs(1) };
    let at = |path: &str, request: Vec<u8>| {
        let text = String::from_utf8_lossy(&request).replacen("/v1/batches", path, 1);
        text.into_bytes()
    };
    let bomb = |path: &str, plain: &[u8], more: &[(&str, &str)]| {
        let body = snappy(plain);
        let mut request = at(path, post_as(token, more, b""));
        let length = format!("Content-Length: {}", body.len());
        let text = String::from_utf8_lossy(&request).replacen("Content-Length: 0", &length, 1);
        request = [text.as_bytes(), &body].concat();
        Habit { say: request.clone(), again: request, pause: Duration::from_secs(2) }
    };
    let endless = Habit { say: at("/write", post(&chunked, b"")), again: chunk, pause: LOOK_EVERY };
    let settings = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec();
    vec![
        drip(b"POST /v1/bat".to_vec()),
        drip(post(&[chunked[0], ("Content-Length", "8000000")], b"")),
        bomb("/api/v1/write", &vec![0; 16 << 20], &[]),
        bomb("/api/v1/write", &[0x0a, 0].repeat(8 << 20), &[]),
        endless,
        Habit { say: settings.clone(), again: settings, pause: PAUSE },
    ]
}

/// Snappy's block format, by copies of what stands there: 16 MiB of one pattern in under 1 MiB.
fn snappy(plain: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut length = plain.len();
    while length > 0x7f {
        out.push((length & 0x7f) as u8 | 0x80);
        length >>= 7;
    }
    out.push(length as u8);
    // A literal of four bytes, then copies of 4 to 64 bytes from four bytes before.
    out.push(3 << 2);
    out.extend_from_slice(&plain[..4]);
    let mut left = plain.len() - 4;
    while left > 0 {
        let copied = left.min(64);
        out.extend_from_slice(&[((copied - 1) << 2) as u8 | 2, 4, 0]);
        left -= copied;
    }
    out
}

/// Connects from `source`, does as its habit is until the server ends it, and comes again.
async fn haunt(address: SocketAddr, source: SocketAddr, habit: Arc<Habit>, came: Arc<AtomicU64>) {
    loop {
        if let Ok(mut stream) = connect(address, source).await {
            came.fetch_add(1, Ordering::Relaxed);
            // Whatever the server does about it is what it should do.
            let _ended = misbehave(&mut stream, &habit).await.is_err();
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn connect(address: SocketAddr, source: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(source)?;
    socket.connect(address).await
}

async fn misbehave(stream: &mut TcpStream, habit: &Habit) -> std::io::Result<()> {
    let (mut read, mut write) = stream.split();
    let talking = async {
        write.write_all(&habit.say).await?;
        while !habit.again.is_empty() {
            tokio::time::sleep(habit.pause).await;
            write.write_all(&habit.again).await?;
        }
        std::future::pending::<std::io::Result<()>>().await
    };
    let mut heard = [0; 4_096];
    let listening = async {
        while read.read(&mut heard).await? > 0 {}
        Ok(())
    };
    tokio::select! {
        ended = talking => ended,
        ended = listening => ended,
    }
}

/// An address of this machine, one of many.
fn source(net: u8, nth: usize) -> SocketAddr {
    SocketAddr::from(([127, 0, net, nth as u8 + 1], 0))
}

async fn most_connections(rig: &Rig, during: Duration) -> f64 {
    let until = tokio::time::Instant::now() + during;
    let mut most: f64 = 0.0;
    while tokio::time::Instant::now() < until {
        if let Ok(metrics) = rig.stack.metrics("ingest-api-0").await {
            most = most.max(metrics.sum("spillway_ingest_connections"));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    most
}

#[tokio::test(flavor = "multi_thread")]
async fn thousands_of_idle_and_hundreds_of_hostile_connections_meet_their_bounds() {
    spillway_runtime::open_files::raise().expect("sockets for the crowd");
    let rig = Rig::start(StackOptions::default().set("ingest-api", PATIENT_API)).await;
    let file = rig.stack.file();
    let url = file.api.first().expect("there is an API").trim_start_matches("http://").to_owned();
    let address: SocketAddr = url.parse().expect("an address");
    let process = file.processes.iter().find(|process| process.name == "ingest-api-0");
    let pid = process.and_then(|process| process.pid).expect("it runs");
    let log = rig.stack.log_path("ingest-api-0").expect("it has a log");
    let target = Target::limited(pid, log, MEMORY_BYTES_MAX);
    let token = |name: &str| file.tokens.get(name).expect("it has a token").clone();
    let neighbour = Neighbour::start(url, token("globex"), "globex");
    tokio::time::sleep(SIEGE / 4).await;
    let alone = neighbour.take();
    target.forget_peak();

    let (came, mut crowd) = (Arc::new(AtomicU64::new(0)), JoinSet::new());
    let holder = |nth| if nth < CROWDED { 0 } else { 1 + nth % HOLDERS_ADDRESSES };
    let holders = holders().into_iter().map(Arc::new).collect::<Vec<_>>();
    let rascals = rascals(&token("acme")).into_iter().map(Arc::new).collect::<Vec<_>>();
    let holders = holders.iter().cycle().take(HOLDERS).enumerate();
    let rascals = rascals.iter().cycle().take(RASCALS).enumerate();
    let crowds = holders.map(|(nth, habit)| (source(1, holder(nth)), habit));
    for (source, habit) in crowds.chain(rascals.map(|(nth, habit)| (source(2, nth), habit))) {
        crowd.spawn(haunt(address, source, Arc::clone(habit), Arc::clone(&came)));
    }
    let most = most_connections(&rig, SIEGE).await;
    let beside = neighbour.take();
    let peak = target.peak();
    crowd.shutdown().await;

    let metrics = rig.metrics("ingest-api-0").await;
    let count = |name: &str| metrics.sum(&format!("spillway_ingest_connections_{name}_total"));
    let statuses = |status: u16| beside.iter().filter(|(_, got)| *got == status).count();
    println!(
        "| {HOLDERS} idle, {RASCALS} hostile | came {} | at most {most} open | refused {} \
         | shed {} | malformed {} | peak {} MiB of {} |",
        came.load(Ordering::Relaxed),
        count("refused"),
        count("shed"),
        count("malformed"),
        peak >> 20,
        MEMORY_BYTES_MAX >> 20,
    );
    println!(
        "| the neighbour | alone {} answers, p50 {:.0}, p99 {:.0} ms | beside {} answers: {} 200, \
         {} 503, {} closed, p50 {:.0}, p99 {:.0} ms |",
        alone.len(),
        percentile_ms(&alone, 50),
        percentile_ms(&alone, 99),
        beside.len(),
        statuses(200),
        statuses(503),
        statuses(0),
        percentile_ms(&beside, 50),
        percentile_ms(&beside, 99),
    );
    assert!(peak < MEMORY_BYTES_MAX, "{peak} bytes");
    assert!(most <= PLACES_MAX, "{most} connections");
    assert!(most > PLACES_MAX / 2.0, "the crowd was there: {most}");
    assert!(count("refused") > 0.0 && count("shed") > 0.0);
    assert!(statuses(200) > 0, "the neighbour was served");
    let closed = statuses(0);
    assert_eq!(statuses(200) + statuses(503) + closed, beside.len(), "and refused by nothing else");
    assert!(closed * CLOSED_PART_MAX <= beside.len(), "{closed} connections were closed");
    assert_eq!(metrics.sum("spillway_ingest_panics_total"), 0.0);
}
