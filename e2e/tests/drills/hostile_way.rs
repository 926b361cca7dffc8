//! How a connection to the API is made: in the clear or by TLS, from an address of the caller's
//! choice.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::pki_types::{IpAddr, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;

use crate::f34_renewals::{authority, issue};

/// Bytes in both directions.
pub trait Duplex: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Duplex for T {}

pub type Wire = Box<dyn Duplex>;

/// In the clear or not.
#[derive(Clone)]
pub enum Way {
    Plain,
    Tls(Arc<ClientConfig>),
}

impl Way {
    /// By TLS to a server whose certificate is made here, and the settings that name its files.
    pub fn by_tls(dir: &Path) -> (Self, String) {
        let authority = authority();
        issue(&authority, dir, "server");
        let mut roots = RootCertStore::empty();
        roots.add(authority.der().clone()).expect("an authority");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("there are versions");
        let mut config = config.with_root_certificates(roots).with_no_client_auth();
        // Each connection costs the server all that it may.
        config.resumption = Resumption::disabled();
        let path = |name: &str| dir.join(name).display().to_string();
        let settings = format!(
            "[tls]\ncertificate_file = {:?}\nkey_file = {:?}\n",
            path("server.pem"),
            path("server.key")
        );
        (Self::Tls(Arc::new(config)), settings)
    }

    /// What a client says first.
    pub fn first_words(&self) -> Vec<u8> {
        let Self::Tls(config) = self else { return Vec::new() };
        let client =
            ClientConnection::new(Arc::clone(config), ServerName::from(IpAddr::from(HOME)));
        let mut words = Vec::new();
        client.expect("a client").write_tls(&mut words).expect("memory");
        words
    }

    pub async fn connect(
        &self,
        address: SocketAddr,
        source: Option<SocketAddr>,
    ) -> std::io::Result<Wire> {
        let stream = match source {
            None => TcpStream::connect(address).await?,
            Some(source) => {
                let socket = TcpSocket::new_v4()?;
                socket.bind(source)?;
                socket.connect(address).await?
            }
        };
        let Self::Tls(config) = self else { return Ok(Box::new(stream)) };
        let name = ServerName::from(IpAddr::from(HOME));
        let connector = TlsConnector::from(Arc::clone(config));
        Ok(Box::new(connector.connect(name, stream).await?))
    }
}

const HOME: std::net::IpAddr = std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
