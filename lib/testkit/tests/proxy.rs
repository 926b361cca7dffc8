//! The proxy does to a connection what it was told, and nothing else.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "helpers of tests may panic")]

use std::io::ErrorKind;
use std::sync::atomic::Ordering;
use std::time::Duration;

use spillway_testkit::proxy::{Mode, Proxy, Way};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

const SOON: Duration = Duration::from_secs(10);
/// Long enough to see that nothing comes.
const SILENCE: Duration = Duration::from_millis(300);

/// Answers every byte with the same byte; tells on `seen` how many came.
async fn echo() -> (Proxy, tokio::sync::watch::Receiver<u64>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let upstream = listener.local_addr().unwrap();
    let (tell, seen) = tokio::sync::watch::channel(0);
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let tell = tell.clone();
            tokio::spawn(async move {
                let mut bytes = [0u8; 4096];
                while let Ok(read @ 1..) = stream.read(&mut bytes).await {
                    tell.send_modify(|n| *n += read as u64);
                    if stream.write_all(&bytes[..read]).await.is_err() {
                        break;
                    }
                }
            });
        }
    });
    (Proxy::start(upstream).await.unwrap(), seen)
}

async fn answer(stream: &mut TcpStream) -> std::io::Result<u8> {
    timeout(SOON, stream.read_u8()).await.unwrap()
}

async fn silent(stream: &mut TcpStream) -> bool {
    timeout(SILENCE, stream.read_u8()).await.is_err()
}

#[tokio::test]
async fn what_a_black_hole_held_arrives_once_the_line_heals() {
    let (proxy, seen) = echo().await;
    let mut open = TcpStream::connect(proxy.address()).await.unwrap();
    open.write_u8(1).await.unwrap();
    assert_eq!(answer(&mut open).await.unwrap(), 1);
    proxy.set(Mode::BlackHole);
    open.write_u8(2).await.unwrap();
    let mut new = TcpStream::connect(proxy.address()).await.unwrap();
    new.write_u8(3).await.unwrap();
    assert!(silent(&mut open).await && silent(&mut new).await);
    assert_eq!(*seen.borrow(), 1);
    proxy.set(Mode::Pass);
    assert_eq!(answer(&mut open).await.unwrap(), 2);
    assert_eq!(answer(&mut new).await.unwrap(), 3);
}

#[tokio::test]
async fn a_reset_hits_open_and_new_connections() {
    let (proxy, _seen) = echo().await;
    let mut open = TcpStream::connect(proxy.address()).await.unwrap();
    open.write_u8(1).await.unwrap();
    assert_eq!(answer(&mut open).await.unwrap(), 1);
    proxy.set(Mode::Reset);
    assert_eq!(answer(&mut open).await.unwrap_err().kind(), ErrorKind::ConnectionReset);
    let new = TcpStream::connect(proxy.address()).await;
    if let Ok(mut new) = new {
        assert!(answer(&mut new).await.is_err());
    }
}

#[tokio::test]
async fn a_swallowed_answer_means_the_request_arrived_and_the_connection_dies() {
    let (proxy, mut seen) = echo().await;
    let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
    stream.write_u8(1).await.unwrap();
    assert_eq!(answer(&mut stream).await.unwrap(), 1);
    proxy.set(Mode::SwallowAnswers);
    stream.write_u8(2).await.unwrap();
    timeout(SOON, seen.wait_for(|n| *n == 2)).await.unwrap().unwrap();
    assert!(silent(&mut stream).await);
    assert_eq!(proxy.traffic().swallowed_bytes.load(Ordering::Relaxed), 1);
    proxy.set(Mode::Pass);
    assert_eq!(answer(&mut stream).await.unwrap_err().kind(), ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn one_answer_is_lost_and_the_others_pass() {
    let (proxy, mut seen) = echo().await;
    proxy.set(Mode::LoseAnswerTo(b"\x07"));
    let mut other = TcpStream::connect(proxy.address()).await.unwrap();
    let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
    stream.write_u8(1).await.unwrap();
    assert_eq!(answer(&mut stream).await.unwrap(), 1);
    stream.write_u8(7).await.unwrap();
    assert_eq!(answer(&mut stream).await.unwrap_err().kind(), ErrorKind::ConnectionReset);
    assert_eq!(timeout(SOON, seen.wait_for(|n| *n == 2)).await.unwrap().map(|n| *n).unwrap(), 2);
    other.write_u8(1).await.unwrap();
    assert_eq!(answer(&mut other).await.unwrap(), 1);
    assert_eq!(proxy.traffic().lost.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn one_request_is_lost_and_never_seen() {
    let (proxy, seen) = echo().await;
    proxy.set(Mode::LoseRequest(b"\x07"));
    let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
    stream.write_u8(1).await.unwrap();
    assert_eq!(answer(&mut stream).await.unwrap(), 1);
    stream.write_u8(7).await.unwrap();
    assert_eq!(answer(&mut stream).await.unwrap_err().kind(), ErrorKind::ConnectionReset);
    assert_eq!(*seen.borrow(), 1);
}

#[tokio::test]
async fn a_half_open_line_carries_one_way() {
    let (proxy, mut seen) = echo().await;
    let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
    proxy.set(Mode::HalfOpen(Way::ToClient));
    stream.write_u8(1).await.unwrap();
    timeout(SOON, seen.wait_for(|n| *n == 1)).await.unwrap().unwrap();
    assert!(silent(&mut stream).await);
    proxy.set(Mode::HalfOpen(Way::ToServer));
    assert_eq!(answer(&mut stream).await.unwrap(), 1);
    stream.write_u8(2).await.unwrap();
    assert!(silent(&mut stream).await);
    assert_eq!(*seen.borrow(), 1);
}

#[tokio::test]
async fn slow_lines_deliver_everything_in_order() {
    let (proxy, _seen) = echo().await;
    let sent: Vec<u8> = (0..20_000u32).map(|i| (i % 251) as u8).collect();
    for mode in [Mode::Delay(Duration::from_millis(20)), Mode::Bandwidth(200_000)] {
        proxy.set(mode);
        let (mut from, mut to) = TcpStream::connect(proxy.address()).await.unwrap().into_split();
        let payload = sent.clone();
        let writing = tokio::spawn(async move { to.write_all(&payload).await.map(|()| to) });
        let mut got = vec![0u8; sent.len()];
        timeout(SOON, from.read_exact(&mut got)).await.unwrap().unwrap();
        assert!(got == sent, "{mode:?} changed the bytes");
        drop(writing.await.unwrap().unwrap());
    }
}

#[tokio::test]
async fn a_dropped_proxy_takes_its_connections_along() {
    let (proxy, _seen) = echo().await;
    let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
    stream.write_u8(1).await.unwrap();
    assert_eq!(answer(&mut stream).await.unwrap(), 1);
    drop(proxy);
    assert!(timeout(SOON, stream.read_u8()).await.unwrap().is_err());
}
