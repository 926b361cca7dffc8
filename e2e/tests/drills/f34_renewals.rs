//! Row 34: what expires is renewed under load: certificates and tokens, without a gap and without
//! a restart; and what is revoked stops counting within seconds, on every server.

use std::path::Path;
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use spillway_e2e::rig::{Agent, HASTY_AGENT, Rig};
use spillway_testkit::stack::{AgentOptions, StackOptions};

use crate::hostile::made_token;
use crate::sending::{Door, Host, until};

const ACKED: &str = "spillway_agent_batches_acked_total";
/// Servers look at their tokens every second.
const REVOKED_WITHIN: Duration = Duration::from_secs(10);

pub type Authority = CertifiedIssuer<'static, KeyPair>;

pub fn authority() -> Authority {
    let mut params = CertificateParams::new(Vec::new()).expect("no names");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().expect("a key");
    CertifiedIssuer::self_signed(params, key).expect("an authority")
}

/// Puts a certificate for this machine, and its key, where `name` says.
pub fn issue(authority: &Authority, dir: &Path, name: &str) {
    let key = KeyPair::generate().expect("a key");
    let names = vec!["127.0.0.1".to_owned(), "localhost".to_owned()];
    let params = CertificateParams::new(names).expect("sound names");
    let certificate = params.signed_by(&key, authority).expect("a certificate").pem();
    replace(&dir.join(format!("{name}.pem")), &certificate);
    replace(&dir.join(format!("{name}.key")), &key.serialize_pem());
}

fn replace(path: &Path, text: &str) {
    let new = path.with_extension("new");
    std::fs::write(&new, text).expect("a file");
    std::fs::rename(new, path).expect("a file");
}

async fn start_agent(rig: &Rig, name: &str, deliver: &str) -> Agent {
    let mut options = AgentOptions::new(name, "demo", name);
    // Those settings end with the section [deliver].
    options.toml = format!("{HASTY_AGENT}{deliver}");
    rig.stack.spawn_agent(options).await.expect("the agent starts");
    Agent { name: name.to_owned(), environment: "demo".to_owned() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renewed_certificate_needs_no_restart_and_senders_without_their_own_get_nowhere() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = |name: &str| dir.path().join(name).display().to_string();
    let (old, new, senders) = (authority(), authority(), authority());
    issue(&old, dir.path(), "server");
    issue(&senders, dir.path(), "sender");
    for (name, authority) in [("old", &old), ("new", &new), ("senders", &senders)] {
        replace(&dir.path().join(format!("{name}-ca.pem")), &authority.pem());
    }
    let (certificate, key) = (path("server.pem"), path("server.key"));
    let tls = format!(
        "[tls]\ncertificate_file = {certificate:?}\nkey_file = {key:?}\nclient_ca_file = {:?}",
        path("senders-ca.pem")
    );
    let rig = Rig::start(StackOptions::default().set("ingest-api", &tls)).await;
    let url = rig.stack.api_urls().first().expect("an API").replace("http:", "https:");
    let trusting = |ca: &str| format!("endpoints = [{url:?}]\nca_file = {:?}\n", path(ca));
    let (own, own_key) = (path("sender.pem"), path("sender.key"));
    let own = format!("client_certificate_file = {own:?}\nclient_key_file = {own_key:?}\n");
    let before = start_agent(&rig, "before-agent", &(trusting("old-ca.pem") + &own)).await;
    rig.until(&before.name, ACKED, |acked| acked >= 2.0).await;

    issue(&new, dir.path(), "server");
    let after = start_agent(&rig, "after-agent", &(trusting("new-ca.pem") + &own)).await;
    rig.until(&after.name, ACKED, |acked| acked >= 2.0).await;
    let acked = rig.metrics(&before.name).await.sum(ACKED);
    rig.until(&before.name, ACKED, |now| now >= acked + 2.0).await;
    let expires = "spillway_ingest_certificate_expires_timestamp_seconds";
    assert!(rig.metrics("ingest-api-0").await.sum(expires) > 0.0);

    // Without a certificate of its own it has S3 alone, and that is where its batches go.
    let without = start_agent(&rig, "without-agent", &trusting("new-ca.pem")).await;
    rig.until(&without.name, "spillway_agent_batches_parked_total", |parked| parked >= 1.0).await;
    assert_eq!(rig.metrics(&without.name).await.sum(ACKED), 0.0);
    rig.stack.kill(&without.name).await.expect("it runs");
    rig.judge_agent(&before).await;
    rig.judge_agent(&after).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_rotate_without_a_gap_and_a_revoked_one_counts_nowhere_within_seconds() {
    let rig = Rig::start(StackOptions { apis: 2, ..StackOptions::default() }).await;
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("token");
    let old = made_token(&rig, "demo", &[]).await;
    replace(&file, &old);
    let urls = rig.stack.api_urls();
    let settings = format!("endpoints = {urls:?}\n[agent]\ntoken_file = {:?}\n", file);
    let agent = start_agent(&rig, "rotating-agent", &settings).await;
    rig.until(&agent.name, ACKED, |acked| acked >= 2.0).await;

    let new = made_token(&rig, "demo", &[]).await;
    let doors = |token: &str| urls.iter().map(|url| Door::new(url, token)).collect::<Vec<_>>();
    let host = Host::new(&rig, "demo", "rotating", 8);
    let mut windows = 0..8;
    let mut next = || host.batch(windows.next().expect("there are as many"));
    for (number, door) in doors(&old).iter().chain(&doors(&new)).enumerate() {
        let sent = next();
        host.deliver(door, &sent).await;
        eprintln!("door {number}: both tokens count");
    }
    replace(&file, &new);
    let acked = rig.metrics(&agent.name).await.sum(ACKED);
    rig.until(&agent.name, ACKED, |now| now >= acked + 2.0).await;

    let id = old.split('_').nth(1).expect("spw_<id>_<secret>");
    let done = rig.stack.console(&["token", "revoke", id, "--yes"]).await;
    assert!(done.expect("the console runs").status.success());
    let sent = next();
    host.ledger.attempt(&sent.recipe, spillway_e2e::ledger::Way::Http).await;
    for door in doors(&old) {
        until("the revoked token is refused", REVOKED_WITHIN, async || {
            door.post(&sent.frame).await.status == 403
        })
        .await;
    }
    for door in doors(&new).iter().cycle().take(4) {
        host.deliver(door, &sent).await;
    }
    for door in doors(&new).iter().cycle().take(3) {
        host.deliver(door, &next()).await;
    }
    let acked = rig.metrics(&agent.name).await.sum(ACKED);
    rig.until(&agent.name, ACKED, |now| now >= acked + 2.0).await;
    host.judge(&rig).await;
    rig.judge_agent(&agent).await;
}
