//! A client on this host: what it is answered, and what lies in the tray afterwards.

use spillway_runtime::settings::Size;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::*;
use crate::clock::SystemClock;
use crate::collect::sample::Troubles;
use crate::collect::tray::{Pack, Tray};
use crate::metrics::Metrics;

struct Running {
    address: String,
    tray: Tray,
    stop: CancellationToken,
}

async fn start(tray_bytes: usize) -> Running {
    let tray = Tray::new(tray_bytes);
    let around = Surroundings {
        tray: tray.clone(),
        clock: Arc::new(SystemClock),
        troubles: Troubles::default(),
        metrics: Metrics::for_tests(),
    };
    let body_bytes_max = Size::kib(64);
    let settings = InfluxSettings { enabled: true, body_bytes_max, ..InfluxSettings::default() };
    let influx = Influx::new(&settings, around);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let stop = CancellationToken::new();
    let stopped = stop.clone();
    tokio::spawn(async move { influx.accept(listener, &stopped).await });
    Running { address, tray, stop }
}

impl Running {
    async fn ask(&self, request: &str, body: &str) -> String {
        let mut connection = TcpStream::connect(&self.address).await.unwrap();
        let length = body.len();
        let head = format!(
            "{request} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n"
        );
        connection.write_all(head.as_bytes()).await.unwrap();
        // It may be refused before all of it was sent.
        drop(connection.write_all(body.as_bytes()).await);
        let mut answer = Vec::new();
        drop(connection.read_to_end(&mut answer).await);
        String::from_utf8_lossy(&answer).into_owned()
    }
}

fn points(packs: &[Pack]) -> Vec<(i64, String, f64)> {
    let all = packs.iter().flat_map(Pack::readings);
    all.map(|(ts_ms, r)| (ts_ms, r.metric.to_string(), r.value)).collect()
}

#[tokio::test]
async fn what_is_answered_204_lies_in_the_tray() {
    let running = start(1 << 20).await;
    let answer = running.ask("POST /write?db=x&precision=s", "cpu,core=0 busy=7 5\nm v=1 5").await;
    assert!(answer.starts_with("HTTP/1.1 204"), "{answer}");
    let answer = running.ask("POST /api/v2/write?org=o&bucket=b&precision=ms", "m v=2 6000").await;
    assert!(answer.starts_with("HTTP/1.1 204"), "{answer}");
    let expected = [(5_000, "cpu_busy", 7.0), (5_000, "m_v", 1.0), (6_000, "m_v", 2.0)];
    let expected = expected.map(|(ts, metric, value)| (ts, metric.to_owned(), value));
    assert_eq!(points(&running.tray.drain()), expected);
    assert!(running.ask("GET /ping", "").await.starts_with("HTTP/1.1 204"));
    running.stop.cancel();
}

#[tokio::test]
async fn a_body_is_taken_whole_or_not_at_all() {
    let running = start(1 << 20).await;
    let cases = [
        ("POST /write", "m v=1\nnonsense".to_owned(), "400", "line 2: the fields are missing"),
        ("POST /write?precision=y", "m v=1".to_owned(), "400", "precision"),
        ("POST /write", "m v=1\n".repeat(20_000), "413", "body_bytes_max"),
        ("GET /query", String::new(), "404", "/write"),
    ];
    for (request, body, status, text) in cases {
        let answer = running.ask(request, &body).await;
        let right = answer.starts_with(&format!("HTTP/1.1 {status}")) && answer.contains(text);
        assert!(right, "{request}: {answer}");
    }
    assert_eq!(points(&running.tray.drain()), []);
    assert_eq!(running.tray.bytes(), 0);
}

#[tokio::test]
async fn whoever_finds_no_room_is_told_when_to_come_again() {
    let running = start(2_000).await;
    let body = "measurement,tag=value field=1 5\n".repeat(100);
    let answer = running.ask("POST /write", &body).await;
    assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
    assert!(answer.to_lowercase().contains("retry-after: 10"), "{answer}");
    assert!(running.ask("POST /write", "m v=1 5").await.starts_with("HTTP/1.1 204"));
    assert_eq!(running.tray.close().len(), 1);
    let stopped = running.ask("POST /write", "m v=1 5").await;
    assert!(stopped.starts_with("HTTP/1.1 503"), "an agent that stops takes nothing: {stopped}");
}

#[tokio::test]
async fn a_datagram_lies_in_the_tray_and_a_taken_udp_port_is_told_apart_from_http() {
    let tray = Tray::new(1 << 20);
    let around = Surroundings {
        tray: tray.clone(),
        clock: Arc::new(SystemClock),
        troubles: Troubles::default(),
        metrics: Metrics::for_tests(),
    };
    let free = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let udp = free.local_addr().unwrap().to_string();
    let settings = InfluxSettings {
        enabled: true,
        listen: "127.0.0.1:0".to_owned(),
        udp: udp.clone(),
        ..InfluxSettings::default()
    };
    let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
    // It is taken as yet: HTTP works all the same, and what does not is named.
    Influx::new(&settings, around.clone()).start(&tasks, &stop);
    while !around.troubles.now().contains_key(INPUT_UDP) {
        tokio::task::yield_now().await;
    }
    assert!(!around.troubles.now().contains_key(INPUT));
    stop.cancel();
    drop(free);
    let stop = CancellationToken::new();
    Influx::new(&settings, around.clone()).start(&tasks, &stop);
    let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    client.connect(&udp).await.unwrap();
    let mut packs = Vec::new();
    while packs.is_empty() {
        // Until it listens, the kernel says so or drops it.
        drop(client.send(b"m,a=b v=1 5000000\nno line").await);
        drop(client.send(b"m,a=b v=1 5000000").await);
        tokio::task::yield_now().await;
        packs = tray.drain();
    }
    assert_eq!(points(&packs)[0], (5, "m_v".to_owned(), 1.0));
    assert_eq!(around.troubles.now().get(INPUT_UDP), None);
    stop.cancel();
}
