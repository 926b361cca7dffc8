//! Row 22: Redis is killed, flushed, frozen.

use std::time::Duration;

use spillway_e2e::rig::Rig;
use spillway_e2e::{Sender, SenderOptions};
use spillway_testkit::stack::StackOptions;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::storing::{HASTY_CONSUMER, Server, errors, until};

/// Every series is told to Redis in every transaction, and folded every second.
const EAGER_CONSUMER: &str = "[redis]\nper_series = \"1s\"";
const EAGER_KEEPER: &str = "[redis]\ninterval = \"1s\"";

async fn flush(rig: &Rig) {
    let address = rig.stack.servers().redis.socket();
    let mut redis = TcpStream::connect(address).await.expect("Redis listens");
    redis.write_all(b"FLUSHALL\r\n").await.expect("Redis reads");
    let mut answer = [0_u8; 5];
    redis.read_exact(&mut answer).await.expect("Redis answers");
    assert_eq!(&answer, b"+OK\r\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_flushed_frozen_and_killed_loses_no_point_and_only_last_seen_stands_still() {
    let options = StackOptions::default();
    let options = options.set("consumer", HASTY_CONSUMER).set("consumer", EAGER_CONSUMER);
    let rig = Rig::start(options.set("keeper", EAGER_KEEPER)).await;
    let server = Server::primary(&rig, "s0");
    let load = |name: &str| {
        let pace = Duration::from_millis(30);
        Sender::start(SenderOptions { name: name.into(), pace, ..rig.load("demo") })
    };
    let sent = "spillway_consumer_last_seen_sent_total";
    let dropped = "spillway_consumer_last_seen_dropped_total";

    let flushed = load("flushed");
    rig.until("consumer-0", sent, |n| n > 0.0).await;
    for _ in 0..20 {
        flush(&rig).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    rig.judge(flushed).await;

    rig.stack.freeze("redis").expect("it runs");
    rig.judge(load("frozen")).await;
    rig.stack.kill("redis").await.expect("it is there");
    rig.judge(load("killed")).await;
    rig.until("consumer-0", dropped, |n| n > 0.0).await;
    assert_eq!(errors(&rig, "consumer-0", "retry").await, 0.0, "no transaction suffered");
    assert_eq!(server.quarantined().await, 0);

    rig.stack.start_process("redis").await.expect("it comes back");
    let (before, sent_before) = (
        server.number("SELECT MAX(last_seen_ts) FROM spillway_store.series").await,
        rig.metrics("consumer-0").await.sum(sent),
    );
    rig.judge(load("after")).await;
    rig.until("consumer-0", sent, |n| n > sent_before).await;
    let moves = async || {
        let now = server.number("SELECT MAX(last_seen_ts) FROM spillway_store.series").await;
        now > before
    };
    until("last_seen moves again", moves).await;
}
