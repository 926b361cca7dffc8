//! Hostile input: the list at the end of the fault list, against a running ingest-api and recovery
//! worker whose memory is limited. Each input is sent again and again for a while, beside an
//! honest load of another environment.
//!
//! Held to: the right status each time, memory below its limit, every request of the neighbour
//! acknowledged, few lines in the log. Printed, as the rows of docs/security.md: the peak, and the
//! neighbour's p99 before and beside. About three minutes each.

use std::time::Duration;

use spillway_e2e::rig::{Rig, Totals};
use spillway_proto::frame::Encoder;
use spillway_proto::{Batch, BatchId, Kind, Point, Series};
use spillway_testkit::stack::StackOptions;
use tokio::task::JoinSet;
use tokio::time::Instant;
use uuid::Uuid;

use crate::hostile_load::{Neighbour, Timed, p99_ms, recent_window};
use crate::hostile_target::{MEMORY_BYTES_MAX, Target};
use crate::hostile_wire::{
    CLOSED, WINDOW_LOG_31, drip, field, frame, frame_of_message, frame_of_ten_gigabytes,
    frame_of_zeros, post, post_as, send, zstd_zeros,
};

/// How long one input is sent again and again, and how long the neighbour is alone before.
const PHASE: Duration = Duration::from_secs(2);
/// Connections of one attacker.
const AT_ONCE: usize = 4;
/// Lines that one kind of trouble may log in one phase (`spillway_publisher::LogGate`).
const LINES_MAX: usize = 3;
/// "Not now", which every sender understands: on a busy machine Kafka itself may once not answer
/// within the deadline. More often than this it is the attack that keeps the neighbour out.
const LATER: u16 = 503;
const LATER_MAX: usize = 1;
/// Its bounds in seconds instead of half minutes.
const HASTY_API: &str = "[http]\nhead_within = \"2s\"\nfirst_byte_within = \"2s\"\n";

/// What is sent, and what may come back.
pub struct Input {
    name: &'static str,
    bytes: Vec<u8>,
    /// Sent a byte a second behind `bytes`.
    drip: Vec<u8>,
    statuses: &'static [u16],
    at_once: usize,
    /// It is taken as a request, and its batches are refused by name.
    rejected: bool,
}

impl Input {
    pub fn new(name: &'static str, statuses: &'static [u16], bytes: Vec<u8>) -> Self {
        Self { name, bytes, drip: Vec::new(), statuses, at_once: AT_ONCE, rejected: false }
    }

    /// A 200 that says of each batch why it was not taken.
    fn rejected(name: &'static str, bytes: Vec<u8>) -> Self {
        Self { rejected: true, ..Self::new(name, &[200], bytes) }
    }

    fn dripping(self, drip: &[u8]) -> Self {
        Self { drip: drip.to_vec(), ..self }
    }

    fn at_once(self, at_once: usize) -> Self {
        Self { at_once, ..self }
    }
}

pub struct Stage {
    rig: Rig,
    address: String,
    target: Target,
    bytes_max: u64,
    neighbour: Neighbour,
    quiet: Vec<Timed>,
}

impl Stage {
    async fn start(program: &str) -> Self {
        Self::limited(program, MEMORY_BYTES_MAX).await
    }

    /// With so much memory for the program.
    pub async fn limited(program: &str, bytes_max: u64) -> Self {
        let rig = Rig::start(StackOptions::default().set("ingest-api", HASTY_API)).await;
        let file = rig.stack.file();
        let url = file.api.first().expect("there is an API");
        let address = url.trim_start_matches("http://").to_owned();
        let process = file.processes.iter().find(|process| process.name == program);
        let pid = process.and_then(|process| process.pid).expect("it runs");
        let log = rig.stack.log_path(program).expect("it has a log");
        let target = Target::limited(pid, log, bytes_max);
        let token = file.tokens.get("globex").expect("it has a token").clone();
        let neighbour = Neighbour::start(address.clone(), token, "globex");
        println!("| input | status | requests | peak MiB | p99 alone, beside (ms) | log lines |");
        println!("|---|---|---|---|---|---|");
        Self { rig, address, target, bytes_max, neighbour, quiet: Vec::new() }
    }

    pub fn token(&self, environment: &str) -> String {
        self.rig.stack.file().tokens.get(environment).expect("it has a token").clone()
    }

    /// Sends one input for a while and judges it.
    pub async fn meet(&mut self, input: Input) {
        let lines = self.target.complaints();
        self.alone().await;
        self.target.forget_peak();
        let rejected_before = self.rejected().await;
        let statuses = self.attack(&input).await;
        let rejected = self.rejected().await - rejected_before;
        assert!(
            !input.rejected || rejected >= statuses.len() as f64,
            "{}: {rejected} of {} were refused by name",
            input.name,
            statuses.len()
        );
        let beside = self.neighbour.take();
        self.judge(input.name, &statuses, input.statuses, lines, &beside);
    }

    async fn rejected(&self) -> f64 {
        let metrics = self.rig.metrics("ingest-api-0").await;
        metrics.sum("spillway_ingest_batches_rejected_total")
    }

    pub async fn panics(&self) -> f64 {
        self.rig.metrics("ingest-api-0").await.sum("spillway_ingest_panics_total")
    }

    /// The neighbour by himself.
    async fn alone(&mut self) {
        let _from_before = self.neighbour.take();
        tokio::time::sleep(PHASE).await;
        self.quiet = self.neighbour.take();
    }

    async fn attack(&self, input: &Input) -> Vec<u16> {
        let until = Instant::now() + PHASE;
        let mut attackers = JoinSet::new();
        for _ in 0..input.at_once {
            let (address, bytes) = (self.address.clone(), input.bytes.clone());
            let rest = input.drip.clone();
            attackers.spawn(async move {
                let mut statuses = Vec::new();
                while Instant::now() < until {
                    let status = if rest.is_empty() {
                        send(&address, &bytes).await
                    } else {
                        drip(&address, &bytes, &rest).await
                    };
                    statuses.push(status);
                }
                statuses
            });
        }
        attackers.join_all().await.concat()
    }

    fn judge(&self, name: &str, statuses: &[u16], allowed: &[u16], lines: usize, beside: &[Timed]) {
        let peak = self.target.peak();
        let lines = self.target.complaints() - lines;
        let mut seen: Vec<u16> = statuses.to_vec();
        seen.sort_unstable();
        seen.dedup();
        let name_of = |status: &u16| match *status {
            CLOSED => "closed".to_owned(),
            status => status.to_string(),
        };
        let told: Vec<String> = seen.iter().map(name_of).collect();
        println!(
            "| {name} | {} | {} | {:.0} | {:.1}, {:.1} | {lines} |",
            told.join(", "),
            statuses.len(),
            peak as f64 / 1_048_576.0,
            p99_ms(&self.quiet),
            p99_ms(beside),
        );
        assert!(seen.iter().all(|status| allowed.contains(status)), "{name}: {seen:?}");
        assert!(peak < self.bytes_max, "{name}: {peak} bytes");
        assert!(lines <= LINES_MAX, "{name}: {lines} lines in the log");
        assert!(!beside.is_empty(), "{name}: the neighbour was not served at all");
        let of = |wanted: u16| beside.iter().filter(|(_, status)| *status == wanted).count();
        let later = of(LATER);
        assert_eq!(of(200) + later, beside.len(), "{name}: the neighbour was refused");
        assert!(later <= LATER_MAX, "{name}: {later} times the neighbour was told to come later");
    }
}

/// Bodies that grow, lie or come in a wrapping that nobody asked for.
fn compressed(token: &str) -> Vec<Input> {
    let gzip = [&[0x1f, 0x8b, 8, 0][..], &[0; 1 << 20]].concat();
    let encoded = |encoding| post_as(token, &[("Content-Encoding", encoding)], &gzip);
    let in_frame = |body: Vec<u8>| post_as(token, &[], &body);
    let huge_window = frame(1, 1, 1 << 20, &zstd_zeros(1 << 20, WINDOW_LOG_31));
    vec![
        Input::new("gzip of 1 GiB of zeros", &[415], encoded("gzip")),
        Input::new("snappy that claims 4 GiB", &[415], encoded("snappy")),
        Input::new("layered encodings", &[415], encoded("gzip, zstd, gzip")),
        Input::rejected("zstd of 10 GB of zeros", in_frame(frame_of_ten_gigabytes())),
        Input::rejected("zstd with windowLog 31", in_frame(huge_window)),
        Input::rejected("4 MiB of zeros in a kilobyte", in_frame(frame_of_zeros())),
        Input::rejected("128 MiB of zeros in 32 kilobytes", in_frame(frame_of_zeros().repeat(32))),
        Input::new(
            "the same on 300 connections at once",
            &[200, 503],
            in_frame(frame_of_zeros().repeat(32)),
        )
        .at_once(300),
    ]
}

/// Messages that are no messages.
fn malformed(token: &str) -> Vec<Input> {
    let message = |bytes: &[u8]| post_as(token, &[], &frame_of_message(bytes));
    let overlong = [&[0x10][..], &[0xff; 12]].concat();
    let negative = [&[0x0a][..], &[0xff; 9], &[0x01]].concat();
    let nested = [0x0b].repeat(100_000);
    vec![
        Input::new("counts of 2^32 with ten bytes behind", &[400], {
            post_as(token, &[], &frame(u32::MAX, u32::MAX, 10, &[0; 10]))
        }),
        Input::new("a million series in one batch", &[400], {
            post_as(token, &[], &frame(1_000_000, 1_000_000, 10, &[0; 10]))
        }),
        Input::rejected("overlong varints", message(&overlong)),
        Input::rejected("negative lengths", message(&negative)),
        Input::rejected("100,000 nested groups", message(&nested)),
        Input::new("random bytes", &[400], post_as(token, &[], &[0xa5; 5_000])),
    ]
}

/// HTTP as nobody should speak it.
fn wire(token: &str) -> Vec<Input> {
    let bearer = format!("Bearer {token}");
    let authorized = ("Authorization", bearer.as_str());
    let many: Vec<String> = (0..10_000).map(|number| format!("X-{number}")).collect();
    let many: Vec<(&str, &str)> = many.iter().map(|name| (name.as_str(), "1")).collect();
    let chunked = b"0\r\n\r\n".as_slice();
    let http2 = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec();
    let slow = post(&[authorized, ("Content-Length", "100000")], b"");
    let large = post(&[authorized, ("Content-Length", "8388608")], b"");
    vec![
        Input::new("a head at one byte a second", &[CLOSED, 408], b"POST /v1/bat".to_vec())
            .dripping(&[b'a'; 60]),
        Input::new("a body at one byte a second", &[503], slow).dripping(&[0; 60]),
        Input::new("400 bodies of 8 MiB that never come", &[503], large)
            .dripping(&[0; 60])
            .at_once(400),
        Input::new("two Content-Lengths", &[400], {
            post(&[authorized, ("Content-Length", "1"), ("Content-Length", "2")], b"x")
        }),
        // RFC 9112, section 6.1: read as chunked.
        Input::new("Content-Length with Transfer-Encoding", &[200, 400], {
            let both = [authorized, ("Content-Length", "3"), ("Transfer-Encoding", "chunked")];
            post(&both, chunked)
        }),
        Input::new("10,000 headers", &[431, CLOSED], post(&many, b"")),
        Input::new("HTTP/2 in the clear", &[400, 505, CLOSED], http2),
    ]
}

/// Credentials that are none.
fn credentials(token: &str, revoked: &str, expired: &str) -> Vec<Input> {
    let bearing = |value: &str| post(&[("Authorization", value), ("Content-Length", "0")], b"");
    let wrong = format!("Bearer {token}x");
    vec![
        Input::new("no token", &[401], post(&[("Content-Length", "0")], b"")),
        Input::new("an empty token", &[401], bearing("Bearer ")),
        Input::new("a token of 1 MB", &[431, CLOSED], bearing(&"a".repeat(1 << 20))),
        Input::new("a right id with a wrong secret", &[401], bearing(&wrong)),
        Input::new("a revoked token", &[403], bearing(&format!("Bearer {revoked}"))),
        Input::new("an expired token", &[401], bearing(&format!("Bearer {expired}"))),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_requests_meet_their_status_bounded_memory_and_no_neighbour() {
    let mut stage = Stage::start("ingest-api-0").await;
    let token = stage.token("acme");
    let revoked = made_token(&stage.rig, "acme", &[]).await;
    let id = revoked.split('_').nth(1).expect("a token has an id");
    let done = stage.rig.stack.console(&["token", "revoke", id, "--yes"]).await;
    assert!(done.expect("the console runs").status.success());
    let expired = made_token(&stage.rig, "acme", &["--expires-in", "1s"]).await;
    let inputs = [
        compressed(&token),
        malformed(&token),
        forged_names(&token),
        wire(&token),
        credentials(&token, &revoked, &expired),
    ];
    for input in inputs.into_iter().flatten() {
        stage.meet(input).await;
    }
    assert_eq!(stage.panics().await, 0.0);
}

/// A new token of this environment.
pub async fn made_token(rig: &Rig, environment: &str, more: &[&str]) -> String {
    let create = ["token", "create", "--environment", environment, "--output", "json", "--yes"];
    let made = rig.stack.console(&[&create, more].concat()).await.expect("the console runs");
    let said: serde_json::Value = serde_json::from_slice(&made.stdout).expect("it says JSON");
    let token = said["token"].as_str().or_else(|| said["facts"]["token"].as_str());
    token.unwrap_or_else(|| panic!("no token in {said}")).to_owned()
}

fn series(window_ts: u32, metric: &str, labels: &[(&str, &str)], values: &[f64]) -> Series {
    let start_ms = i64::from(window_ts) * 1_000;
    let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    let points = values
        .iter()
        .enumerate()
        .map(|(nth, value)| Point { ts_ms: start_ms + nth as i64 * 100, value: *value });
    Series {
        metric: metric.to_owned(),
        labels: labels.iter().map(own).collect(),
        kind: Kind::Gauge,
        unit: "1".to_owned(),
        points: points.collect(),
    }
}

/// Contents that are allowed and odd, a batch each.
fn odd_contents(window_ts: u32) -> Vec<(&'static str, Vec<Series>)> {
    let series =
        |metric: &str, labels: &[_], values: &[f64]| series(window_ts, metric, labels, values);
    let numbers = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -0.0, 5e-324, f64::MIN_POSITIVE];
    let quoted = "a'b\"c`d\\e%f_g;--/*\u{1f600}";
    let many = (0..10_000).map(|nth: u32| series(&format!("new.{nth}"), &[], &[1.0]));
    vec![
        ("NaN, infinities, -0, denormals", vec![series("odd.numbers", &[], &numbers)]),
        ("sums that overflow", vec![series("odd.sum", &[], &[f64::MAX, f64::MAX, f64::MAX])]),
        ("quotes and backticks", vec![series(quoted, &[("q", quoted)], &[1.0])]),
        (
            "labels that differ in case, accent or a space",
            ["x", "X", "\u{e9}", "e\u{301}", "x "]
                .map(|value| series("odd.label", &[("l", value)], &[1.0]))
                .to_vec(),
        ),
        ("10,000 new series", many.collect()),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_contents_are_stored_as_they_are_or_refused_by_name() {
    let mut stage = Stage::start("ingest-api-0").await;
    let token = stage.token("acme");
    let (agent_id, epoch) = (Uuid::new_v4(), Uuid::now_v7());
    let mut encoder = Encoder::new();
    let window_ts = recent_window();
    let contents = odd_contents(window_ts);
    let batches = contents.len() as u64;
    for (nth, (name, series)) in contents.into_iter().enumerate() {
        let batch = Batch {
            id: BatchId::Sequenced { agent_id, epoch, seq: nth as u64 + 1 },
            environment: "acme".to_owned(),
            host: "odd".to_owned(),
            window_ts,
            series,
            previous: None,
            declarations: Vec::new(),
            closing: nth as u64 + 1 == batches,
            host_info: None,
        };
        let frame = encoder.encode(&batch).expect("allowed, if odd");
        stage.meet(Input::new(name, &[200], post_as(&token, &[], &frame))).await;
    }
    let mysql = stage.rig.mysql("acme");
    let until = Instant::now() + spillway_e2e::rig::SETTLED_WITHIN;
    loop {
        let totals = Totals::read(&mysql, "odd").await;
        if totals.applied == batches && totals.missing + totals.gaps == 0 {
            break;
        }
        assert!(Instant::now() < until, "not stored: {totals:?}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let count = "SELECT COUNT(DISTINCT series_id) FROM spillway.series WHERE metric = 'odd.label'";
    let labels: i64 = sqlx::query_scalar(count).fetch_one(&mysql).await.expect("readable");
    assert_eq!(labels, 5, "labels that differ at all are different series");
    let quarantined = stage.rig.metrics("consumer-0").await;
    assert_eq!(quarantined.sum("spillway_consumer_batches_quarantined_total"), 0.0);
}

/// Names that are too long, hold a NUL or are no UTF-8 can't be encoded: forged bodies say them.
fn forged_names(token: &str) -> Vec<Input> {
    let named = |bytes: &[u8]| post_as(token, &[], &frame_of_message(&field(1, bytes)));
    vec![
        Input::rejected("a name of 64 kB", named(&[b'a'; 64_000])),
        Input::rejected("a name with NUL", named(b"a\0b")),
        Input::rejected("a name that is no UTF-8", named(&[0xff, 0xfe])),
    ]
}
