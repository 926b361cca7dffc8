//! Row 33: balancers in front of the API, with the very files of deploy/: of three API servers one
//! is killed, one frozen and one drains, under load. No accepted point is lost, and senders see
//! nothing that makes one of them drop what it holds.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use spillway_e2e::rig::Rig;
use spillway_testkit::http;
use spillway_testkit::ports::Port;
use spillway_testkit::process::{Process, ProcessSpec};
use spillway_testkit::stack::StackOptions;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use crate::sending::{Door, HEALED_WITHIN, Host, Sent, until};

const SENDERS: usize = 12;
const BATCHES: usize = 250;
const PAUSE: Duration = Duration::from_millis(100);
/// Telegraf's own is 5 s; what takes longer counts as no answer.
const PATIENCE: Duration = Duration::from_secs(5);
const STOPS_WITHIN: Duration = Duration::from_secs(60);

/// What senders saw: answers by status, 0 for none.
type Seen = Arc<Mutex<BTreeMap<u16, usize>>>;

fn deployed(file: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy").join(file);
    std::fs::read_to_string(&path).expect("a file of deploy/")
}

/// The shipped file, with this stack's addresses.
fn with_addresses(mut text: String, rig: &Rig, port: &Port) -> String {
    for (number, url) in rig.stack.api_urls().iter().enumerate() {
        let name = format!("api-{}", number + 1);
        let address = url.strip_prefix("http://").expect("plain HTTP");
        let admin = rig.stack.admin_address(&format!("ingest-api-{number}")).expect("it runs");
        let line = format!("server {name} {name}:8480");
        text = text.replace(&line, &format!("server {name} {address} port {}", admin.port()));
        text = text.replace(&format!("{name}:8480"), address);
    }
    let text = text.replace("bind :8480", &format!("bind {}", port.address()));
    text.replace("listen 8480;", &format!("listen {};", port.address()))
}

fn start(name: &str, program: &str, args: &[&str], dir: &Path) -> Process {
    Process::start(ProcessSpec {
        name: name.to_owned(),
        program: PathBuf::from(program),
        args: args.iter().map(ToString::to_string).collect(),
        env: Vec::new(),
        cwd: dir.to_owned(),
        log: dir.join(format!("{name}.log")),
    })
    .unwrap_or_else(|error| panic!("{program} (Debian's package {name} has it): {error}"))
}

fn haproxy(rig: &Rig, port: &Port, dir: &Path) -> Process {
    let error_file = dir.join("not-now.http");
    std::fs::write(&error_file, deployed("haproxy/not-now.http")).expect("a file");
    let text = with_addresses(deployed("haproxy/haproxy.cfg"), rig, port);
    let text = text.replace("/etc/haproxy/not-now.http", &error_file.display().to_string());
    let file = dir.join("haproxy.cfg");
    std::fs::write(&file, text).expect("a file");
    start("haproxy", "/usr/sbin/haproxy", &["-db", "-f", &file.to_string_lossy()], dir)
}

fn nginx(rig: &Rig, port: &Port, dir: &Path) -> Process {
    let text = with_addresses(deployed("nginx/nginx.conf"), rig, port);
    let pid = dir.join("nginx.pid").display().to_string();
    let file = dir.join("nginx.conf");
    std::fs::write(&file, text.replace("/run/nginx.pid", &pid)).expect("a file");
    let (prefix, file) = (dir.to_string_lossy(), file.to_string_lossy());
    let args = ["-p", &*prefix, "-c", &*file, "-e", "stderr", "-g", "daemon off;"];
    start("nginx", "/usr/sbin/nginx", &args, dir)
}

/// Sends one batch until it is accepted, as a sender does that gives up on whatever clients.md
/// says one of them gives up on.
async fn deliver(host: &Host, door: &Door, sent: &Sent, seen: &Seen) {
    host.ledger.attempt(&sent.recipe, spillway_e2e::ledger::Way::Http).await;
    let until = Instant::now() + HEALED_WITHIN;
    while Instant::now() < until {
        let answer = timeout(PATIENCE, door.try_post(&sent.frame, 0)).await.ok().flatten();
        let status = answer.as_ref().map_or(0, |answer| answer.status);
        *seen.lock().expect("no panic").entry(status).or_default() += 1;
        match answer {
            Some(answer) if answer.accepted() => {
                host.ledger.answered(&sent.recipe.id, spillway_e2e::Fate::Ok).await;
                return;
            }
            Some(answer) => answer.must_be_later(),
            None => {}
        }
        tokio::time::sleep(PAUSE).await;
    }
    panic!("not accepted within {HEALED_WITHIN:?}");
}

async fn survives(rig: &Rig, port: &Port, name: &str) {
    let url = format!("http://{}", port.address());
    until("the balancer listens", HEALED_WITHIN, async || port.accepts().await).await;
    until("it reaches an API server", HEALED_WITHIN, async || {
        http::get(port.socket(), "/").await.is_ok_and(|answer| answer.status != 503)
    })
    .await;
    let token = rig.stack.file().tokens.get("demo").expect("demo has a token").clone();
    let seen = Seen::default();
    let mut senders = JoinSet::new();
    for number in 0..SENDERS {
        let (door, seen) = (Door::new(&url, &token), Arc::clone(&seen));
        let host = Host::new(rig, "demo", &format!("{name}-{number:02}"), BATCHES);
        senders.spawn(async move {
            for window in 0..BATCHES {
                deliver(&host, &door, &host.batch(window), &seen).await;
                tokio::time::sleep(PAUSE).await;
            }
            host
        });
    }
    let accepted = || seen.lock().expect("no panic").get(&200).copied().unwrap_or(0);
    let more = async |batches: usize| {
        let goal = accepted() + batches;
        until("batches are accepted", HEALED_WITHIN, async || accepted() >= goal).await;
    };
    more(100).await;
    rig.stack.kill("ingest-api-0").await.expect("it runs");
    more(150).await;
    rig.stack.freeze("ingest-api-1").expect("it runs");
    // Longer than every wait of the balancers, at this pace.
    more(900).await;
    rig.stack.start_process("ingest-api-0").await.expect("it comes back");
    rig.stack.thaw("ingest-api-1").expect("it is there");
    more(150).await;
    let code = rig.stack.terminate("ingest-api-2", STOPS_WITHIN).await.expect("it stops");
    assert_eq!(code, Some(0), "it drained");
    more(150).await;
    rig.stack.start_process("ingest-api-2").await.expect("it comes back");
    while let Some(host) = senders.join_next().await {
        host.expect("a sender does not panic").judge(rig).await;
    }
    let seen = seen.lock().expect("no panic").clone();
    eprintln!("{name}: {} batches, answers by status (0: none) {seen:?}", SENDERS * BATCHES);
    assert!(seen.keys().all(|status| [0, 200, 503].contains(status)), "{seen:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn behind_haproxy_a_dead_a_frozen_and_a_draining_api_lose_nothing_and_look_like_later() {
    let rig = Rig::start(StackOptions { apis: 3, ..StackOptions::default() }).await;
    let port = Port::take().expect("a free port");
    let balancer = haproxy(&rig, &port, rig.stack.dir());
    survives(&rig, &port, "haproxy").await;
    assert!(balancer.exit_status().is_none(), "{}", balancer.spec().log_tail());
}

#[tokio::test(flavor = "multi_thread")]
async fn behind_nginx_a_dead_a_frozen_and_a_draining_api_lose_nothing_and_look_like_later() {
    let rig = Rig::start(StackOptions { apis: 3, ..StackOptions::default() }).await;
    let port = Port::take().expect("a free port");
    let balancer = nginx(&rig, &port, rig.stack.dir());
    survives(&rig, &port, "nginx").await;
    assert!(balancer.exit_status().is_none(), "{}", balancer.spec().log_tail());
}
