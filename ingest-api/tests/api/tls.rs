//! TLS on the senders' side. The key in `tls_files` was made for this test (self-signed, for
//! `localhost`) and protects nothing.

use std::path::PathBuf;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::stage::{Stage, frame, request, stage_on};

fn file(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/api/tls_files").join(name)
}

async fn tls_stage() -> Stage {
    stage_on(crate::stage::cluster(), |settings| {
        settings.tls.certificate_file = Some(file("certificate.pem"));
        settings.tls.key_file = Some(file("key.pem"));
        settings.http.first_byte_within = spillway_runtime::settings::Dur::from_millis(300);
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_over_tls_are_answered_and_plain_ones_are_not() {
    let stage = tls_stage().await;
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(file("certificate.pem")).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let client = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let connector = TlsConnector::from(Arc::new(client));
    let stream = TcpStream::connect(stage.address).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let mut stream = connector.connect(name, stream).await.unwrap();
    let headers = [("Connection", "close")];
    stream.write_all(&request("GET", "/livez", &headers, b"")).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");

    let mut plain = stage.connect().await;
    plain.write(&stage.request(&frame("demo", 1), &[])).await;
    assert!(plain.reply_or_end().await.is_none());
    let mut silent = stage.connect().await;
    assert!(silent.reply_or_end().await.is_none(), "a handshake has a deadline");
}
