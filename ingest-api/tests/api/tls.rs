//! TLS on the senders' side, with certificates made for each test.

use std::path::Path;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use spillway_runtime::settings::Dur;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Duration, Instant};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::stage::{Stage, frame, request, stage_on};

/// Files are looked at every second.
const RENEWED_WITHIN: Duration = Duration::from_secs(20);

type Authority = CertifiedIssuer<'static, KeyPair>;

fn authority() -> Authority {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// Certificate and key for `localhost`, as PEM.
fn issued(authority: &Authority) -> (String, String) {
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    (params.signed_by(&key, authority).unwrap().pem(), key.serialize_pem())
}

fn write(dir: &TempDir, name: &str, text: &str) {
    let new = dir.path().join("new");
    std::fs::write(&new, text).unwrap();
    std::fs::rename(new, dir.path().join(name)).unwrap();
}

async fn tls_stage(dir: &Path, client_ca: bool, handshake_within: Dur) -> Stage {
    let (certificate, key) = (dir.join("certificate.pem"), dir.join("key.pem"));
    let client_ca = client_ca.then(|| dir.join("clients.pem"));
    stage_on(crate::stage::cluster(), move |settings| {
        settings.tls.certificate_file = Some(certificate);
        settings.tls.key_file = Some(key);
        settings.tls.client_ca_file = client_ca;
        settings.http.first_byte_within = handshake_within;
    })
    .await
}

fn trusting(authority: &Authority, own: Option<(String, String)>) -> ClientConfig {
    use rustls::pki_types::pem::PemObject as _;
    let mut roots = RootCertStore::empty();
    roots.add(authority.der().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let client = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    match own {
        None => client.with_no_client_auth(),
        Some((certificate, key)) => {
            let chain = vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()];
            let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
            client.with_client_auth_cert(chain, key).unwrap()
        }
    }
}

async fn connect(stage: &Stage, client: ClientConfig) -> std::io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(stage.address).await?;
    let name = ServerName::try_from("localhost").unwrap();
    TlsConnector::from(Arc::new(client)).connect(name, stream).await
}

async fn ask(stream: &mut TlsStream<TcpStream>, last: bool) -> std::io::Result<String> {
    let headers: &[(&str, &str)] = if last { &[("Connection", "close")] } else { &[] };
    stream.write_all(&request("GET", "/livez", headers, b"")).await?;
    let mut answer = vec![0; 4_096];
    let read = stream.read(&mut answer).await?;
    answer.truncate(read);
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_over_tls_are_answered_and_plain_ones_are_not() {
    let (dir, authority) = (tempfile::tempdir().unwrap(), authority());
    let (certificate, key) = issued(&authority);
    write(&dir, "certificate.pem", &certificate);
    write(&dir, "key.pem", &key);
    let stage = tls_stage(dir.path(), false, Dur::from_secs(20)).await;
    let mut stream = connect(&stage, trusting(&authority, None)).await.unwrap();
    let answer = ask(&mut stream, true).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");

    let mut plain = stage.connect().await;
    plain.write(&stage.request(&frame("demo", 1), &[])).await;
    assert!(plain.reply_or_end().await.is_none());
    let stage = tls_stage(dir.path(), false, Dur::from_millis(300)).await;
    let mut silent = stage.connect().await;
    assert!(silent.reply_or_end().await.is_none(), "a handshake has a deadline");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_renewed_certificate_counts_without_a_restart_and_cuts_no_connection() {
    let (dir, old, new) = (tempfile::tempdir().unwrap(), authority(), authority());
    let (certificate, key) = issued(&old);
    write(&dir, "certificate.pem", &certificate);
    write(&dir, "key.pem", &key);
    let stage = tls_stage(dir.path(), false, Dur::from_secs(20)).await;
    let mut before = connect(&stage, trusting(&old, None)).await.unwrap();
    assert!(ask(&mut before, false).await.unwrap().starts_with("HTTP/1.1 200"));
    // Half a renewal: the key does not fit, and the old pair stays in force.
    let (certificate, key) = issued(&new);
    write(&dir, "certificate.pem", &certificate);
    tokio::time::sleep(2 * spillway_runtime::watched_file::LOOK_EVERY).await;
    connect(&stage, trusting(&old, None)).await.unwrap();
    write(&dir, "key.pem", &key);
    let until = Instant::now() + RENEWED_WITHIN;
    while connect(&stage, trusting(&new, None)).await.is_err() {
        assert!(Instant::now() < until, "the new certificate is not in force");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(connect(&stage, trusting(&old, None)).await.is_err());
    assert!(ask(&mut before, true).await.unwrap().starts_with("HTTP/1.1 200"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_an_authority_for_senders_only_its_certificates_connect() {
    let (dir, servers, clients) = (tempfile::tempdir().unwrap(), authority(), authority());
    let (certificate, key) = issued(&servers);
    write(&dir, "certificate.pem", &certificate);
    write(&dir, "key.pem", &key);
    write(&dir, "clients.pem", &clients.pem());
    let stage = tls_stage(dir.path(), true, Dur::from_secs(20)).await;
    let mut good = connect(&stage, trusting(&servers, Some(issued(&clients)))).await.unwrap();
    assert!(ask(&mut good, true).await.unwrap().starts_with("HTTP/1.1 200"));
    // In TLS 1.3 a client hears of its refusal with the first answer.
    for own in [None, Some(issued(&servers))] {
        let refused = match connect(&stage, trusting(&servers, own)).await {
            Ok(mut stream) => ask(&mut stream, true).await.map_or(true, |answer| answer.is_empty()),
            Err(_) => true,
        };
        assert!(refused);
    }
}
