//! Row 5: ingest-api is killed in mid request, at each kind of system call it makes, at the first,
//! second, … one of every thread. (Every single call in turn: `crash_points`.)

use std::time::Duration;

use spillway_e2e::rig::{ACCEPTED_WITHIN, Rig};
use spillway_e2e::{Fate, Sender, SenderOptions};
use spillway_testkit::stack::StackOptions;

use crate::sending::HEALED_WITHIN;
use crate::sending::strace::Injection;

/// What a request is made of, from the socket to Kafka and back; a connection is accepted once.
const DEATHS: [(&str, u32); 9] = [
    ("accept4", 1),
    ("recvfrom", 1),
    ("recvfrom", 3),
    ("epoll_wait", 4),
    ("writev,sendto", 1),
    ("writev,sendto", 3),
    ("sendmsg", 1),
    ("sendmsg", 3),
    ("recvmsg", 2),
];

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_each_call_of_a_request_there_is_no_2xx_or_one_copy() {
    let rig = Rig::start(StackOptions::default()).await;
    for (number, (calls, nth)) in DEATHS.into_iter().enumerate() {
        let name = format!("at{number}");
        let pace = Duration::from_millis(20);
        let load = SenderOptions { windows: 25, hosts: 4, pace, name, ..rig.load("demo") };
        let fault = format!("signal=KILL:when={nth}");
        // Before the load: its connections stay open once they were accepted.
        let strace = Injection::attach(&rig, "ingest-api-0", calls, &fault).await;
        let load = Sender::start(load);
        let died = rig.stack.wait_exit("ingest-api-0", HEALED_WITHIN).await;
        died.unwrap_or_else(|error| panic!("it makes call {calls} under load: {error}"));
        drop(strace);
        let acked = load.ledger.batches(Fate::Ok).len();
        eprintln!("killed at {calls} #{nth}, {acked} batches acknowledged");
        rig.stack.start_process("ingest-api-0").await.expect("it starts again");
        let (ledger, options) = load.finish(ACCEPTED_WITHIN).await;
        rig.judge_sent(&ledger, &options).await;
    }
}
