//! Targets that behave, and all the ways in which they do not.

use std::time::Duration;

use spillway_runtime::settings::{Dur, Size};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::*;
use crate::clock::SystemClock;
use crate::collect::paced::Surroundings;
use crate::collect::sample::Troubles;
use crate::collect::tray::Tray;
use crate::metrics::Metrics;

/// Answers every request with these pieces, then closes (or goes on for ever).
async fn server(pieces: Vec<Vec<u8>>, endless: bool) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        while let Ok((mut connection, _)) = listener.accept().await {
            let pieces = pieces.clone();
            tokio::spawn(async move {
                let mut asked = [0; 4_096];
                let asked_bytes = connection.read(&mut asked).await.unwrap();
                assert!(asked_bytes > 0);
                for piece in &pieces {
                    if connection.write_all(piece).await.is_err() {
                        return;
                    }
                }
                while endless && connection.write_all(&[b'#'; 1_024]).await.is_ok() {
                    if connection.write_all(b"\n").await.is_err() {
                        break;
                    }
                }
            });
        }
    });
    address
}

fn answer(head: &str, body: &str) -> Vec<Vec<u8>> {
    vec![format!("HTTP/1.1 200 OK\r\n{head}\r\n\r\n").into_bytes(), body.as_bytes().to_vec()]
}

fn settings(targets: &[&str]) -> ScrapeSettings {
    ScrapeSettings {
        job: "node".to_owned(),
        targets: targets.iter().map(ToString::to_string).collect(),
        timeout: Dur::from_secs(5),
        body_bytes_max: Size::kib(64),
        ..ScrapeSettings::default()
    }
}

/// Reads once: `metric{label=value,…} value` lines, and the trouble.
async fn scrape(settings: &ScrapeSettings) -> (Vec<String>, Option<String>) {
    let surroundings = Surroundings {
        tray: Tray::new(8 << 20),
        clock: Arc::new(SystemClock),
        troubles: Troubles::default(),
        metrics: Metrics::for_tests(),
    };
    let mut target = targets(settings).unwrap().remove(0);
    let pack = surroundings.read_once(&mut target, 1_000).await;
    let shown = pack.readings().map(|(ts_ms, reading)| {
        assert_eq!(ts_ms, 1_000);
        let labels: Vec<_> = reading.labels.iter().map(|(k, v)| format!("{k}={v}")).collect();
        format!("{}{{{}}} {}", reading.metric, labels.join(","), reading.value)
    });
    let shown = shown.filter(|line| !line.starts_with("scrape_duration_seconds")).collect();
    (shown, surroundings.troubles.now().into_values().next())
}

async fn failure(settings: &ScrapeSettings) -> String {
    let (said, trouble) = scrape(settings).await;
    assert!(said[0].starts_with("up{") && said[0].ends_with(" 0"), "{said:?}");
    assert_eq!(said.len(), 2, "nothing but what is said of the scrape itself: {said:?}");
    trouble.expect("a trouble")
}

#[tokio::test]
async fn what_a_target_says_carries_its_job_and_instance() {
    let address =
        server(answer("content-length: 28", "# TYPE a counter\na{b=\"c\"} 1\n"), false).await;
    let mut settings = settings(&[&address]);
    settings.labels.insert("team".to_owned(), "web".to_owned());
    let (said, trouble) = scrape(&settings).await;
    let own = format!("instance={address},job=node,team=web");
    assert_eq!(
        said,
        [
            format!("a{{b=c,{own}}} 1"),
            format!("up{{{own}}} 1"),
            format!("scrape_samples_scraped{{{own}}} 1"),
        ]
    );
    assert_eq!(trouble, None);
}

#[tokio::test]
async fn an_answer_without_an_end_or_over_the_limit_is_none() {
    let endless = server(answer("", "a 1\n"), true).await;
    assert!(failure(&settings(&[&endless])).await.contains("body_bytes_max (65536)"));
    let liar = server(answer("content-length: 5000", "a 1\n"), false).await;
    assert!(failure(&settings(&[&liar])).await.contains("broke off"));
    let open = "content-type: application/openmetrics-text; version=1.0.0";
    let cut = server(answer(open, "a 1\n"), false).await;
    assert!(failure(&settings(&[&cut])).await.contains("# EOF"));
    let many: String = (0..30).map(|n| format!("m{n} 1\n")).collect();
    let many = server(answer("", &many), false).await;
    let few = ScrapeSettings { samples_max: 29, ..settings(&[&many]) };
    assert!(failure(&few).await.contains("samples_max (29)"));
}

#[tokio::test]
async fn a_target_that_hangs_or_is_slow_is_given_up_at_its_timeout() {
    let silent = server(Vec::new(), false).await;
    let quick =
        |address: &str| ScrapeSettings { timeout: Dur::from_millis(300), ..settings(&[address]) };
    // It closes without a word.
    assert!(!failure(&quick(&silent)).await.is_empty());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let hung = listener.local_addr().unwrap().to_string();
    assert!(failure(&quick(&hung)).await.contains("no answer within"));
    let piece = b"HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\na 1\n";
    let stuck = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = stuck.local_addr().unwrap().to_string();
    let holding = tokio::spawn(async move {
        let (mut connection, _) = stuck.accept().await.unwrap();
        assert!(connection.read(&mut [0; 4_096]).await.unwrap() > 0);
        connection.write_all(piece).await.unwrap();
        tokio::time::sleep(Duration::from_secs(60)).await;
    });
    assert!(failure(&quick(&address)).await.contains("no answer within"));
    holding.abort();
}

#[tokio::test]
async fn what_is_no_metrics_page_is_told_by_what_it_is() {
    let gone = vec![b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n".to_vec()];
    let gone = server(gone, false).await;
    assert_eq!(failure(&settings(&[&gone])).await, "the answer is 404 Not Found");
    let html = server(answer("content-length: 7", "<html>\n"), false).await;
    assert!(failure(&settings(&[&html])).await.contains("line 1 has no metric's name"));
    let gzip = server(answer("content-encoding: gzip", "\x1f"), false).await;
    assert!(failure(&settings(&[&gzip])).await.contains("compressed"));
    let nobody = failure(&settings(&["127.0.0.1:1"])).await;
    assert!(nobody.contains("no connection"), "{nobody}");
}

#[tokio::test]
async fn a_bearer_token_comes_from_its_file_each_time() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let asked = tokio::spawn(async move {
        let (mut connection, _) = listener.accept().await.unwrap();
        let mut asked = vec![0; 4_096];
        let bytes = connection.read(&mut asked).await.unwrap();
        connection.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.unwrap();
        String::from_utf8_lossy(&asked[..bytes]).to_lowercase()
    });
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "geheim\n").unwrap();
    let mut settings = settings(&[&address]);
    settings.bearer_token_file = Some(file.path().to_owned());
    let (said, trouble) = scrape(&settings).await;
    assert_eq!((said.len(), trouble), (2, None));
    let asked = asked.await.unwrap();
    for line in [
        "get /metrics http/1.1",
        "authorization: bearer geheim",
        "accept: application/openmetrics-text",
        "x-prometheus-scrape-timeout-seconds: 5",
    ] {
        assert!(asked.contains(line), "{line} is missing in\n{asked}");
    }
}

/// Answers one page over TLS, with a certificate for `localhost` made here; its address, and the
/// authority as PEM.
async fn tls_server() -> (u16, String) {
    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
    use rustls::pki_types::PrivateKeyDer;
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    let certificate = params.signed_by(&key, &authority).unwrap();
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((connection, _)) = listener.accept().await {
            // Who does not trust us goes away.
            let Ok(mut connection) = acceptor.accept(connection).await else { continue };
            let asked = connection.read(&mut [0; 4_096]).await.unwrap();
            assert!(asked > 0);
            let page = b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\na 1\n";
            connection.write_all(page).await.unwrap();
            connection.shutdown().await.unwrap();
        }
    });
    (port, authority.pem())
}

#[tokio::test]
async fn a_target_over_tls_is_read_if_its_authority_is_ours_and_its_name_is_right() {
    let (port, authority) = tls_server().await;
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), authority).unwrap();
    let own = |name: &str| ScrapeSettings {
        ca_file: Some(file.path().to_owned()),
        ..settings(&[&format!("https://{name}:{port}/metrics")])
    };
    let (said, trouble) = scrape(&own("localhost")).await;
    assert_eq!(trouble, None);
    assert!(said[0].starts_with("a{") && said[1].ends_with(" 1"), "{said:?}");
    let wrong_name = failure(&own("127.0.0.1")).await;
    assert!(wrong_name.contains("not valid for name"), "{wrong_name}");
    let (_, another) = tls_server().await;
    std::fs::write(file.path(), another).unwrap();
    let unknown = failure(&own("localhost")).await;
    assert!(unknown.contains("UnknownIssuer") || unknown.contains("BadSignature"), "{unknown}");
}
