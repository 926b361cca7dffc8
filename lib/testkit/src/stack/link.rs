//! Wires between two kinds of programs that a test may cut: every connection from one to the other
//! goes through proxies whose mode is switched together.

use std::net::SocketAddr;
use std::sync::Arc;

use super::options::StackOptions;
use super::servers::Servers;
use crate::error::StackError;
use crate::ports::Port;
use crate::proxy::{Mode, Proxy};

/// What stands at an end of a wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum End {
    Agent,
    IngestApi,
    Consumer,
    RecoveryWorker,
    Keeper,
    Kafka,
    Mysql,
    Redis,
    S3,
}

impl End {
    /// Kafka's name for the door that this program comes in by.
    pub(crate) fn listener(self) -> String {
        format!("{self:?}").to_uppercase()
    }
}

/// All proxies between two ends.
#[derive(Debug)]
pub struct Link {
    pub from: End,
    pub to: End,
    proxies: Vec<Proxy>,
}

impl Link {
    pub fn set(&self, mode: Mode) {
        for proxy in &self.proxies {
            proxy.set(mode);
        }
    }

    #[must_use]
    pub fn proxies(&self) -> &[Proxy] {
        &self.proxies
    }

    /// Where to go instead of `address`.
    pub(crate) fn instead_of(&self, address: SocketAddr) -> Option<SocketAddr> {
        self.proxies.iter().find(|p| p.upstream() == address).map(Proxy::address)
    }
}

/// Every wire that the options ask for.
#[derive(Debug, Default)]
pub struct Links(Vec<Link>);

impl Links {
    /// `doors` are the proxies' ports that the brokers already advertise.
    pub(crate) async fn lay(
        options: &StackOptions,
        servers: &Servers,
        apis: &[Arc<Port>],
    ) -> Result<Self, StackError> {
        let mut links = Vec::new();
        for &(from, to) in &options.links {
            let proxies = match to {
                End::Kafka => kafka_proxies(servers, from).await?,
                End::IngestApi => proxies(apis.iter().map(|p| p.socket())).await?,
                End::Mysql => proxies(servers.mysql.iter().map(|s| s.port.socket())).await?,
                End::Redis => proxies([servers.redis.socket()]).await?,
                End::S3 => proxies([servers.s3_port.socket()]).await?,
                _ => {
                    let what = format!("nothing connects from {from:?} to {to:?}");
                    return Err(StackError::Refused { what });
                }
            };
            links.push(Link { from, to, proxies });
        }
        Ok(Self(links))
    }

    #[must_use]
    pub fn find(&self, from: End, to: End) -> Option<&Link> {
        self.0.iter().find(|link| link.from == from && link.to == to)
    }

    /// The address that `from` uses for a server at `address`: the proxy's, or the server's own.
    #[must_use]
    pub fn route(&self, from: End, to: End, address: SocketAddr) -> SocketAddr {
        self.find(from, to).and_then(|link| link.instead_of(address)).unwrap_or(address)
    }

    /// Kafka's bootstrap servers as `from` sees them.
    #[must_use]
    pub fn bootstrap(&self, from: End, servers: &Servers) -> Vec<String> {
        let direct = || servers.brokers.iter().map(|b| b.port.address()).collect();
        self.find(from, End::Kafka).map_or_else(direct, |link| {
            link.proxies.iter().map(|proxy| proxy.address().to_string()).collect()
        })
    }
}

async fn proxies(
    upstreams: impl IntoIterator<Item = SocketAddr>,
) -> Result<Vec<Proxy>, StackError> {
    let mut proxies = Vec::new();
    for upstream in upstreams {
        proxies.push(Proxy::start(upstream).await?);
    }
    Ok(proxies)
}

async fn kafka_proxies(servers: &Servers, from: End) -> Result<Vec<Proxy>, StackError> {
    let mut proxies = Vec::new();
    for broker in &servers.brokers {
        let door = broker.doors.iter().find(|door| door.listener == from.listener());
        let door = door.ok_or_else(|| StackError::Refused {
            what: format!("{} has no door for {from:?}", broker.name),
        })?;
        let upstream = door.port.socket();
        proxies.push(Proxy::start_on(Arc::clone(&door.advertised), upstream).await?);
    }
    Ok(proxies)
}
