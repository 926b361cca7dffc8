//! TLS of the senders' side, from PEM files that are read at start.

use std::path::PathBuf;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem};
use tokio_rustls::TlsAcceptor;

use crate::settings::TlsSettings;

/// Why TLS can't be offered as the settings want it.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("{} is no readable PEM file: {cause}", file.display())]
    File { file: PathBuf, cause: pem::Error },
    #[error("the certificate and the key do not make a TLS server: {0}")]
    Refused(#[from] rustls::Error),
}

/// What accepts TLS; `None` when it is off.
///
/// # Errors
/// [`TlsError`].
pub fn acceptor(settings: &TlsSettings) -> Result<Option<TlsAcceptor>, TlsError> {
    let (Some(certificate), Some(key)) = (&settings.certificate_file, &settings.key_file) else {
        return Ok(None);
    };
    let unreadable = |file: &PathBuf, cause| TlsError::File { file: file.clone(), cause };
    let chain = CertificateDer::pem_file_iter(certificate)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|cause| unreadable(certificate, cause))?;
    let key = PrivateKeyDer::from_pem_file(key).map_err(|cause| unreadable(key, cause))?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Some(TlsAcceptor::from(Arc::new(config))))
}
