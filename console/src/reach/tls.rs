//! Whoever answers with TLS: how long its certificate is good for, whether it is for this name, and
//! whether this machine trusts its issuer. Nothing is sent after the handshake.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use spillway_runtime::deadline::{DeadlineExceeded, within};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use x509_parser::prelude::{FromDer, X509Certificate};

/// What a server showed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    /// Seconds since the Unix epoch.
    pub expires_at_s: i64,
    /// Why a client that checks would refuse it.
    pub distrusted: Option<String>,
}

/// Why nothing was shown.
#[derive(Debug, thiserror::Error)]
pub enum TlsFault {
    #[error("{address} does not answer: {cause}")]
    Unreachable { address: String, cause: std::io::Error },
    #[error("{address}: {cause}")]
    Late { address: String, cause: DeadlineExceeded },
    #[error("{0} is no server's name")]
    Name(String),
    #[error("{0} shows no certificate that can be read")]
    NoCertificate(String),
    #[error(transparent)]
    Tls(#[from] rustls::Error),
}

/// Shakes hands with `host:port` and tells what it showed.
pub async fn look(host: &str, port: u16, deadline: Duration) -> Result<Shown, TlsFault> {
    let address = format!("{host}:{port}");
    let name = ServerName::try_from(host.trim_matches(['[', ']']).to_owned());
    let name = name.map_err(|_| TlsFault::Name(host.to_owned()))?;
    let witness = Arc::new(Witness::new());
    let provider = Arc::clone(&witness.provider);
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::<Witness>::clone(&witness))
        .with_no_client_auth();
    let connector = TlsConnector::from(Arc::new(config));
    let shake = async {
        let stream = TcpStream::connect(&address).await?;
        connector.connect(name, stream).await
    };
    let shaken = match within(deadline, shake).await {
        Ok(shaken) => shaken.map(drop),
        Err(cause) => return Err(TlsFault::Late { address, cause }),
    };
    let seen = witness.seen.lock().unwrap_or_else(PoisonError::into_inner).take();
    match (seen, shaken) {
        // A server that wants a client's certificate ends the handshake after it showed its own.
        (Some(shown), _) => Ok(shown),
        (None, Err(cause)) => Err(TlsFault::Unreachable { address, cause }),
        (None, Ok(())) => Err(TlsFault::NoCertificate(address)),
    }
}

/// Notes what is shown and judges it; the handshake itself goes on, since nothing is sent.
#[derive(Debug)]
struct Witness {
    provider: Arc<CryptoProvider>,
    judge: Option<Arc<WebPkiServerVerifier>>,
    seen: Mutex<Option<Shown>>,
}

impl Witness {
    fn new() -> Self {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        let judge =
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
        Self { provider, judge: judge.build().ok(), seen: Mutex::new(None) }
    }
}

impl ServerCertVerifier for Witness {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let distrusted = match &self.judge {
            Some(judge) => {
                judge.verify_server_cert(leaf, chain, name, ocsp, now).err().map(|e| e.to_string())
            }
            None => Some("this machine has no list of authorities".to_owned()),
        };
        let parsed = X509Certificate::from_der(leaf).ok();
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = parsed.map(|(_, parsed)| {
            Shown { expires_at_s: parsed.validity().not_after.timestamp(), distrusted }
        });
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
