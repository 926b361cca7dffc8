//! TLS of the senders' side. Certificate, key and the clients' authority are read again when one
//! of them changes, so that a renewed certificate needs no restart: connections made from then on
//! get the new one. Files that do not fit together (half of a renewal) change nothing.

use std::path::PathBuf;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::{RootCertStore, ServerConfig};
use spillway_runtime::watched_file::WatchedFile;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

use crate::metrics::Metrics;
use crate::settings::TlsSettings;

/// Why TLS can't be offered as the settings want it.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("tls.{setting} is no readable PEM: {cause}")]
    Pem { setting: &'static str, cause: pem::Error },
    #[error("tls.{setting} holds no certificate")]
    Empty { setting: &'static str },
    #[error("the certificate and the key do not make a TLS server: {0}")]
    Refused(#[from] rustls::Error),
    #[error("tls.client_ca_file is no authority: {0}")]
    ClientCa(#[from] rustls::server::VerifierBuilderError),
    #[error("tls.certificate_file: {0}")]
    Certificate(#[from] x509_parser::asn1_rs::Err<x509_parser::error::X509Error>),
    #[error("{0}")]
    Files(String),
}

/// What accepts TLS; clones are one.
#[derive(Clone)]
pub struct Tls {
    files: WatchedFile<Acceptor>,
    /// As it was at the start: there is always one, so nothing is ever taken in the clear.
    first: Arc<Acceptor>,
}

/// What one version of the files makes.
struct Acceptor(TlsAcceptor);

impl Tls {
    /// Reads the files; `None` when TLS is off. Needs a runtime.
    ///
    /// # Errors
    /// [`TlsError`]: with the files as they are now, nobody could connect.
    pub fn start(
        settings: &TlsSettings,
        reload: watch::Receiver<u64>,
        metrics: &Metrics,
    ) -> Result<Option<Self>, TlsError> {
        let (Some(certificate), Some(key)) = (&settings.certificate_file, &settings.key_file)
        else {
            return Ok(None);
        };
        let mut paths: Vec<PathBuf> = vec![certificate.clone(), key.clone()];
        paths.extend(settings.client_ca_file.clone());
        let metrics = metrics.clone();
        let files = WatchedFile::together(paths, reload, move |texts, _: Option<&Acceptor>| {
            let (config, expires_at_s) = server(texts)?;
            metrics.certificate_expires.set(expires_at_s);
            Ok::<_, TlsError>(Acceptor(Arc::new(config).into()))
        });
        match files.current() {
            Some(first) => Ok(Some(Self { files, first })),
            None => Err(TlsError::Files(files.last_error().unwrap_or_default())),
        }
    }

    /// What a new connection is accepted with.
    #[must_use]
    pub fn acceptor(&self) -> TlsAcceptor {
        self.files.current().unwrap_or_else(|| Arc::clone(&self.first)).0.clone()
    }
}

/// A server of these texts (certificate and chain, key, and perhaps the clients' authority), and
/// the second at which its certificate expires.
fn server(texts: &[String]) -> Result<(ServerConfig, i64), TlsError> {
    let text = |at: usize| texts.get(at).map(String::as_bytes).unwrap_or_default();
    let chain = certificates("certificate_file", text(0))?;
    let expires_at_s = match chain.first() {
        Some(leaf) => x509_parser::parse_x509_certificate(leaf)?.1.validity().not_after.timestamp(),
        None => return Err(TlsError::Empty { setting: "certificate_file" }),
    };
    let key = PrivateKeyDer::from_pem_slice(text(1));
    let key = key.map_err(|cause| TlsError::Pem { setting: "key_file", cause })?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()?;
    let builder = match texts.get(2) {
        Some(text) => {
            let mut roots = RootCertStore::empty();
            for authority in certificates("client_ca_file", text.as_bytes())? {
                roots.add(authority)?;
            }
            builder.with_client_cert_verifier(verifier(roots, provider)?)
        }
        None => builder.with_no_client_auth(),
    };
    let mut config = builder.with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok((config, expires_at_s))
}

fn verifier(
    roots: RootCertStore,
    provider: Arc<rustls::crypto::CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    Ok(WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build()?)
}

fn certificates(
    setting: &'static str,
    text: &[u8],
) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let found = CertificateDer::pem_slice_iter(text).collect::<Result<Vec<_>, _>>();
    let found = found.map_err(|cause| TlsError::Pem { setting, cause })?;
    if found.is_empty() {
        return Err(TlsError::Empty { setting });
    }
    Ok(found)
}
