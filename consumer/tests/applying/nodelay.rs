//! Every connection to MySQL has TCP_NODELAY: without it each large statement waits 44 ms for a
//! delayed ACK, and a consumer is nine times slower. sqlx 0.9.0 lost it once.

use std::net::SocketAddr;

use rustix::net::sockopt::tcp_nodelay;
use rustix::process::{PidfdFlags, PidfdGetfdFlags, getpid, pidfd_getfd, pidfd_open};
use spillway_proto::kafka_record::Lane;

use super::batches::Agent;
use super::site::Site;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_connection_of_the_consumer_waits_for_delayed_acks() {
    let mut site = Site::new().await;
    Agent::new("demo", "web-1").publish(&site, Lane::Live, [1]);
    let consumer = site.start(site.settings());
    site.until("SELECT COUNT(*) FROM spillway_store.audit", 1).await;
    let delayed = nodelay_of_sockets_to(site.mysql);
    // The test's own connection and at least one worker's.
    assert!(delayed.len() >= 2, "found {} connections", delayed.len());
    assert!(delayed.iter().all(|nodelay| *nodelay), "{delayed:?}");
    consumer.stop().await;
}

/// Looks at this process's own sockets by copies of their descriptors.
fn nodelay_of_sockets_to(server: SocketAddr) -> Vec<bool> {
    let own = pidfd_open(getpid(), PidfdFlags::empty()).unwrap();
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc/self/fd").unwrap() {
        let number: i32 = entry.unwrap().file_name().to_str().unwrap().parse().unwrap();
        let Ok(copy) = pidfd_getfd(&own, number, PidfdGetfdFlags::empty()) else { continue };
        let peer = rustix::net::getpeername(&copy).ok();
        let peer = peer.flatten().and_then(|peer| SocketAddr::try_from(peer).ok());
        if peer == Some(server) {
            found.push(tcp_nodelay(&copy).unwrap());
        }
    }
    found
}
