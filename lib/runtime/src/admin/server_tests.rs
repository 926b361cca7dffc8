//! The admin page over a real socket.

use std::net::{Ipv4Addr, SocketAddr};

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;

async fn started() -> (SocketAddr, Health, Metrics) {
    let health = Health::new("consumer", "1.2.3");
    let metrics = Metrics::new("consumer", "1.2.3");
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let address = serve(any, health.clone(), metrics.clone()).await.unwrap();
    (address, health, metrics)
}

async fn get(address: SocketAddr, path: &str) -> (u16, String) {
    try_get(address, path).await.unwrap()
}

/// `None` when the connection was closed without an answer.
async fn try_get(address: SocketAddr, path: &str) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect(address).await.ok()?;
    let head = format!("GET {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).await.ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.ok()?;
    let status = answer.split(' ').nth(1)?.parse().ok()?;
    Some((status, answer.split_once("\r\n\r\n")?.1.to_owned()))
}

#[tokio::test]
async fn readiness_follows_the_program_and_liveness_the_process() {
    let (address, health, _) = started().await;
    assert_eq!(get(address, "/livez").await.0, 200);
    assert_eq!(get(address, "/readyz").await.0, 503);
    health.set_ready(true);
    assert_eq!(get(address, "/readyz").await.0, 200);
    health.register("kafka").failed("no broker");
    assert_eq!(get(address, "/readyz").await.0, 200, "a dependency does not decide it");
    assert_eq!(get(address, "/livez").await.0, 200);
    health.set_dead("the poller thread is gone");
    let (status, body) = get(address, "/livez").await;
    assert_eq!((status, body.contains("poller thread")), (503, true));
}

#[tokio::test]
async fn deepz_tells_each_dependency_with_its_latency() {
    let (address, health, _) = started().await;
    let (kafka, mysql) = (health.register("kafka"), health.register("mysql s0"));
    health.register("redis");
    kafka.ok(Duration::from_millis(3));
    mysql.failed("host is blocked");
    let (status, body) = get(address, "/deepz").await;
    let json: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!(status, 503);
    assert_eq!(json["dependencies"]["kafka"]["state"], "ok");
    assert_eq!(json["dependencies"]["kafka"]["latency_ms"], 3.0);
    assert_eq!(json["dependencies"]["mysql s0"]["error"], "host is blocked");
    assert_eq!(json["dependencies"]["redis"]["state"], "unknown");
    mysql.ok(Duration::from_millis(1));
    assert_eq!(get(address, "/deepz").await.0, 200);
}

#[tokio::test]
async fn metrics_carry_the_programs_prefix_and_counters_end_in_total() {
    use prometheus_client::metrics::counter::Counter;
    let (address, _, metrics) = started().await;
    let counter: Counter = Counter::default();
    metrics.register(|r| r.register("batches_applied", "Batches applied", counter.clone()));
    counter.inc_by(3);
    let (status, body) = get(address, "/metrics").await;
    assert_eq!(status, 200);
    assert!(body.contains("\nspillway_consumer_batches_applied_total 3\n"), "{body}");
    assert!(body.contains("spillway_consumer_build_info{version=\"1.2.3\"} 1"), "{body}");
    assert_eq!(get(address, "/other").await.0, 404);
}

#[tokio::test]
async fn a_client_that_never_finishes_its_request_is_cut_off() {
    let (address, _, _) = started().await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(b"GET /livez HTT").await.unwrap();
    tokio::time::pause();
    let mut rest = Vec::new();
    // Ends only because the server closes; with the clock paused, its deadline comes at once.
    stream.read_to_end(&mut rest).await.unwrap();
}

#[tokio::test]
async fn connections_beyond_the_limit_are_closed_and_the_page_stays_up() {
    let (address, _, _) = started().await;
    let mut held = Vec::new();
    for _ in 0..ADMIN_CONNECTIONS_MAX {
        held.push(TcpStream::connect(address).await.unwrap());
    }
    let mut extra = TcpStream::connect(address).await.unwrap();
    let mut rest = Vec::new();
    assert_eq!(extra.read_to_end(&mut rest).await.unwrap_or(0), 0, "closed at once");
    drop(held);
    // Their places come back as the server notices that they are gone.
    while try_get(address, "/livez").await.is_none() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_taken_port_is_told_with_its_address() {
    let (address, health, metrics) = started().await;
    let error = serve(address, health, metrics).await.unwrap_err().to_string();
    assert!(error.contains(&address.to_string()) && error.contains("another program"), "{error}");
}
