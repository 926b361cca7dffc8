//! Free ports on 127.0.0.1, kept for as long as a stack lives, also while the process behind a port
//! is dead: a killed broker has to come back where it was. A port is held by a locked file, so that
//! stacks of several test runs on one machine never give out the same one. All ports lie below
//! Linux' ephemeral range (32768 up), where any outgoing connection could sit on them.

use std::fs::{self, File, OpenOptions};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::time::Duration;

use crate::error::StackError;

const FIRST: u16 = 10_240;
const LAST: u16 = 32_000;
/// So many taken ports in a row mean that something is wrong with the machine, not with our luck.
const ATTEMPTS_MAX: u32 = 2_000;

/// One port of ours; free again for others when dropped.
#[derive(Debug)]
pub struct Port {
    number: u16,
    _held: File,
}

impl Port {
    pub fn take() -> Result<Self, StackError> {
        let dir = std::env::temp_dir()
            .join(format!("spillway-ports-{}", rustix::process::geteuid().as_raw()));
        fs::create_dir_all(&dir).map_err(StackError::io(format!("making {}", dir.display())))?;
        for _ in 0..ATTEMPTS_MAX {
            let number = random_port()?;
            let path = dir.join(number.to_string());
            let file = OpenOptions::new().create(true).append(true).open(&path);
            let file = file.map_err(StackError::io(format!("opening {}", path.display())))?;
            if file.try_lock().is_ok() && TcpListener::bind((Ipv4Addr::LOCALHOST, number)).is_ok() {
                return Ok(Self { number, _held: file });
            }
        }
        Err(StackError::Refused { what: format!("no free port between {FIRST} and {LAST}") })
    }

    #[must_use]
    pub fn number(&self) -> u16 {
        self.number
    }

    /// `127.0.0.1:port`
    #[must_use]
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.number)
    }

    #[must_use]
    pub fn socket(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.number))
    }

    /// True as soon as something accepts connections here.
    pub async fn accepts(&self) -> bool {
        let connect = tokio::net::TcpStream::connect(self.socket());
        matches!(tokio::time::timeout(Duration::from_secs(1), connect).await, Ok(Ok(_)))
    }
}

fn random_port() -> Result<u16, StackError> {
    let mut bytes = [0u8; 2];
    getrandom::fill(&mut bytes)
        .map_err(|e| StackError::Refused { what: format!("no random bytes for a port: {e}") })?;
    Ok(FIRST + u16::from_le_bytes(bytes) % (LAST - FIRST))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_given_to_one_holder_only() {
        let ports: Vec<_> = (0..200).map(|_| Port::take().unwrap()).collect();
        let mut numbers: Vec<_> = ports.iter().map(Port::number).collect();
        numbers.sort_unstable();
        numbers.dedup();
        assert_eq!(numbers.len(), 200);
        assert!(numbers.iter().all(|n| (FIRST..LAST).contains(n)));
    }
}
