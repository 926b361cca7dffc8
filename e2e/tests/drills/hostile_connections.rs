//! Connections that are held and not used, thousands of them, beside hundreds that misbehave, under
//! a hard memory limit, while honest senders of another environment go on: in the clear, and by TLS
//! with half handshakes and plain text between them.
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
use tokio::task::JoinSet;

use crate::hostile_load::{Neighbour, Timed, percentile_ms};
use crate::hostile_target::Target;
use crate::hostile_way::{Way, Wire};
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
const PLACES_MAX: f64 = PLACES + 64.0 + 256.0;
/// `connections_max`, as shipped.
const PLACES: f64 = 4_096.0;
/// One in so many of the neighbour's connections may be closed as it comes, which every sender
/// tries again: those who make room need a moment to leave, and more may come within it.
const CLOSED_PART_MAX: usize = 20;

/// Of TLS: connections that are made and held, handshakes that stop after the client's first words
/// or within them, and plain text where TLS is spoken.
const TLS_HOLDERS: usize = 2_500;
const TLS_HALF: usize = 1_500;
/// So many of these share one address, which is more than it may have (128 by default).
const TLS_HALF_CROWDED: usize = 500;
const TLS_PLAIN: usize = 300;

/// What one connection does before it waits for its end.
#[derive(Clone)]
struct Habit {
    way: Way,
    say: Vec<u8>,
    /// Said again and again behind it, a pause between.
    again: Vec<u8>,
    pause: Duration,
}

impl Habit {
    fn quiet(say: &[u8]) -> Self {
        Self { way: Way::Plain, say: say.to_vec(), again: Vec::new(), pause: PAUSE }
    }

    fn by(self, way: &Way) -> Arc<Self> {
        Arc::new(Self { way: way.clone(), ..self })
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
    let habit = |say, again, pause| Habit { way: Way::Plain, say, again, pause };
    let drip = |say: Vec<u8>| habit(say, vec![b'a'], Duration::from_secs(1));
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
        habit(request.clone(), request, Duration::from_secs(2))
    };
    let endless = habit(at("/write", post(&chunked, b"")), chunk, LOOK_EVERY);
    let settings = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec();
    vec![
        drip(b"POST /v1/bat".to_vec()),
        drip(post(&[chunked[0], ("Content-Length", "8000000")], b"")),
        bomb("/api/v1/write", &vec![0; 16 << 20], &[]),
        bomb("/api/v1/write", &[0x0a, 0].repeat(8 << 20), &[]),
        endless,
        habit(settings.clone(), settings, PAUSE),
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
        if let Ok(stream) = habit.way.connect(address, Some(source)).await {
            came.fetch_add(1, Ordering::Relaxed);
            // Whatever the server does about it is what it should do.
            let _ended = misbehave(stream, &habit).await.is_err();
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn misbehave(stream: Wire, habit: &Habit) -> std::io::Result<()> {
    let (mut read, mut write) = tokio::io::split(stream);
    let talking = async {
        write.write_all(&habit.say).await?;
        write.flush().await?;
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

/// The crowd, each with its address and its habit.
type Crowd = Vec<(SocketAddr, Arc<Habit>)>;

/// Strangers of one habit after the other, over these addresses of this net.
fn spread(habits: &[Arc<Habit>], count: usize, net: u8, addresses: usize) -> Crowd {
    let habits = habits.iter().cycle().take(count).enumerate();
    habits.map(|(nth, habit)| (source(net, nth % addresses), Arc::clone(habit))).collect()
}

/// Has them all come for a while, beside the neighbour, and judges.
async fn besiege(rig: &Rig, crowd: Crowd, way: Way, name: &str) {
    let file = rig.stack.file();
    let url = file.api.first().expect("there is an API").trim_start_matches("http://").to_owned();
    let address: SocketAddr = url.parse().expect("an address");
    let process = file.processes.iter().find(|process| process.name == "ingest-api-0");
    let pid = process.and_then(|process| process.pid).expect("it runs");
    let log = rig.stack.log_path("ingest-api-0").expect("it has a log");
    let target = Target::limited(pid, log, MEMORY_BYTES_MAX);
    let token = file.tokens.get("globex").expect("it has a token").clone();
    let neighbour = Neighbour::over(way, &url, token, "globex");
    tokio::time::sleep(SIEGE / 4).await;
    let alone = neighbour.take();
    target.forget_peak();

    let (came, mut haunting) = (Arc::new(AtomicU64::new(0)), JoinSet::new());
    for (source, habit) in crowd {
        haunting.spawn(haunt(address, source, habit, Arc::clone(&came)));
    }
    let most = most_connections(rig, SIEGE).await;
    let beside = neighbour.take();
    let peak = target.peak();
    haunting.shutdown().await;

    let metrics = rig.metrics("ingest-api-0").await;
    let count = |name: &str| metrics.sum(&format!("spillway_ingest_connections_{name}_total"));
    println!(
        "| {name} | came {} | at most {most} open | refused {} | shed {} | malformed {} \
         | peak {} MiB of {} |",
        came.load(Ordering::Relaxed),
        count("refused"),
        count("shed"),
        count("malformed"),
        peak >> 20,
        MEMORY_BYTES_MAX >> 20,
    );
    judge(&alone, &beside);
    assert!(peak < MEMORY_BYTES_MAX, "{peak} bytes");
    assert!(most <= PLACES_MAX, "{most} connections");
    assert!(most > PLACES_MAX / 2.0, "the crowd was there: {most}");
    assert!(count("refused") > 0.0, "no address had its part");
    // Nobody has to make room in a house that is not full.
    assert!(count("shed") > 0.0 || most < PLACES, "nobody made room");
    assert_eq!(metrics.sum("spillway_ingest_panics_total"), 0.0);
}

/// The neighbour was served, and refused by nothing but "not now".
fn judge(alone: &[Timed], beside: &[Timed]) {
    let statuses = |status: u16| beside.iter().filter(|(_, got)| *got == status).count();
    println!(
        "| the neighbour | alone {} answers, p50 {:.0}, p99 {:.0} ms | beside {} answers: {} 200, \
         {} 503, {} closed, p50 {:.0}, p99 {:.0} ms |",
        alone.len(),
        percentile_ms(alone, 50),
        percentile_ms(alone, 99),
        beside.len(),
        statuses(200),
        statuses(503),
        statuses(0),
        percentile_ms(beside, 50),
        percentile_ms(beside, 99),
    );
    assert!(statuses(200) > 0, "the neighbour was served");
    let closed = statuses(0);
    assert_eq!(statuses(200) + statuses(503) + closed, beside.len(), "and refused by nothing else");
    assert!(closed * CLOSED_PART_MAX <= beside.len(), "{closed} connections were closed");
}

fn acme(rig: &Rig) -> String {
    rig.stack.file().tokens.get("acme").expect("it has a token").clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn thousands_of_idle_and_hundreds_of_hostile_connections_meet_their_bounds() {
    spillway_runtime::open_files::raise().expect("sockets for the crowd");
    let rig = Rig::start(StackOptions::default().set("ingest-api", PATIENT_API)).await;
    let plain = |habits: Vec<Habit>| habits.into_iter().map(Arc::new).collect::<Vec<_>>();
    let (holders, rascals) = (plain(holders()), plain(rascals(&acme(&rig))));
    let mut crowd = spread(&holders, CROWDED, 1, 1);
    crowd.extend(spread(&holders, HOLDERS - CROWDED, 3, HOLDERS_ADDRESSES));
    crowd.extend(spread(&rascals, RASCALS, 2, RASCALS));
    let name = format!("{HOLDERS} idle, {RASCALS} hostile");
    besiege(&rig, crowd, Way::Plain, &name).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn by_tls_too_and_handshakes_that_never_end_keep_no_sender_out() {
    spillway_runtime::open_files::raise().expect("sockets for the crowd");
    let dir = tempfile::tempdir().expect("a folder");
    let (tls, settings) = Way::by_tls(dir.path());
    let settings = format!("{PATIENT_API}{settings}");
    let rig = Rig::start(StackOptions::default().set("ingest-api", &settings)).await;
    let by_tls =
        |habits: Vec<Habit>| habits.into_iter().map(|one| one.by(&tls)).collect::<Vec<_>>();
    let words = tls.first_words();
    let half = [Arc::new(Habit::quiet(&words)), Arc::new(Habit::quiet(&words[..words.len() / 2]))];
    let plain = [Arc::new(Habit::quiet(b"GET /livez HTTP/1.1\r\nHost: drill\r\n\r\n"))];
    let mut crowd = spread(&by_tls(holders()), TLS_HOLDERS, 1, HOLDERS_ADDRESSES);
    crowd.extend(spread(&half, TLS_HALF_CROWDED, 5, 1));
    crowd.extend(spread(&half, TLS_HALF - TLS_HALF_CROWDED, 3, HOLDERS_ADDRESSES));
    crowd.extend(spread(&plain, TLS_PLAIN, 4, HOLDERS_ADDRESSES));
    crowd.extend(spread(&by_tls(rascals(&acme(&rig))), RASCALS, 2, RASCALS));
    let name = format!("{TLS_HOLDERS} idle by TLS, {TLS_HALF} half handshakes, {TLS_PLAIN} plain");
    besiege(&rig, crowd, tls, &name).await;
}
