//! `mysql://user:password@host:port`, as shards.toml and `--dsn` options have it.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::settings::{MASK, Secret};

/// MySQL's own port, when the address names none.
const DEFAULT_PORT: u16 = 3306;

/// Where a MySQL server is, and perhaps as whom to log in.
#[derive(Clone, PartialEq, Eq)]
pub struct MysqlUrl {
    pub user: Option<String>,
    pub password: Secret,
    pub host: String,
    pub port: u16,
}

/// Why a text is no MySQL address. The text itself is not repeated: it may hold a password.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotAMysqlUrl {
    #[error("a MySQL address looks like mysql://host:3306 or mysql://user:password@host:3306")]
    Shape,
    #[error("the address names a database; Spillway's names are fixed, leave it out")]
    Database,
    #[error("the port is no number between 1 and 65535")]
    Port,
    #[error("a %XX in the user or password is damaged")]
    Percent,
}

impl FromStr for MysqlUrl {
    type Err = NotAMysqlUrl;

    fn from_str(text: &str) -> Result<Self, NotAMysqlUrl> {
        let rest = text.strip_prefix("mysql://").ok_or(NotAMysqlUrl::Shape)?;
        let (userinfo, address) = match rest.rsplit_once('@') {
            Some((userinfo, address)) => (Some(userinfo), address),
            None => (None, rest),
        };
        let address = address.strip_suffix('/').unwrap_or(address);
        if address.contains(['/', '?', '#']) {
            return Err(NotAMysqlUrl::Database);
        }
        let (host, port) = split_port(address)?;
        if host.is_empty() {
            return Err(NotAMysqlUrl::Shape);
        }
        let (user, password) = match userinfo {
            None => (None, Secret::default()),
            Some(info) => {
                let (user, password) = info.split_once(':').unwrap_or((info, ""));
                (Some(percent_decoded(user)?), Secret::new(percent_decoded(password)?))
            }
        };
        Ok(Self {
            user: user.filter(|user| !user.is_empty()),
            password,
            host: host.to_owned(),
            port,
        })
    }
}

fn split_port(address: &str) -> Result<(&str, u16), NotAMysqlUrl> {
    // [::1]:3306 — the brackets belong to the notation, not to the host.
    let (host, port) = match address.strip_prefix('[') {
        Some(v6) => {
            let (host, after) = v6.split_once(']').ok_or(NotAMysqlUrl::Shape)?;
            (host, after.strip_prefix(':'))
        }
        None => match address.rsplit_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (address, None),
        },
    };
    let port = port.map_or(Ok(DEFAULT_PORT), str::parse);
    match port {
        Ok(0) | Err(_) => Err(NotAMysqlUrl::Port),
        Ok(port) => Ok((host, port)),
    }
}

fn percent_decoded(text: &str) -> Result<String, NotAMysqlUrl> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let digits = after.get(..2).and_then(|hex| std::str::from_utf8(hex).ok());
        let byte = digits.and_then(|hex| u8::from_str_radix(hex, 16).ok());
        bytes.push(byte.ok_or(NotAMysqlUrl::Percent)?);
        rest = after.get(2..).unwrap_or_default();
    }
    String::from_utf8(bytes).map_err(|_| NotAMysqlUrl::Percent)
}

fn percent_encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                out.push(char::from(byte));
            }
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

impl MysqlUrl {
    /// The address with its password in it: for a reader's connection string, printed once.
    pub fn reveal(&self) -> String {
        self.printed(&percent_encoded(self.password.reveal()))
    }

    fn printed(&self, password: &str) -> String {
        let host = match self.host.contains(':') {
            true => format!("[{}]", self.host),
            false => self.host.clone(),
        };
        let user = self.user.as_deref().map(percent_encoded);
        match (user, self.password.is_set()) {
            (None, _) => format!("mysql://{host}:{}", self.port),
            (Some(user), false) => format!("mysql://{user}@{host}:{}", self.port),
            (Some(user), true) => format!("mysql://{user}:{password}@{host}:{}", self.port),
        }
    }
}

impl fmt::Display for MysqlUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.printed(MASK))
    }
}

impl fmt::Debug for MysqlUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for MysqlUrl {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for MysqlUrl {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_keeps_its_parts_and_never_shows_its_password() {
        let url: MysqlUrl = "mysql://root:p%40ss:w@db-1:3307".parse().unwrap();
        assert_eq!(url.user.as_deref(), Some("root"));
        assert_eq!(url.password.reveal(), "p@ss:w");
        assert_eq!((url.host.as_str(), url.port), ("db-1", 3307));
        assert_eq!(format!("{url} {url:?}").matches("p@ss").count(), 0);
        assert_eq!(url.reveal().parse::<MysqlUrl>().unwrap(), url);
        let v6: MysqlUrl = "mysql://[::1]:3308/".parse().unwrap();
        assert_eq!((v6.host.as_str(), v6.port, v6.user), ("::1", 3308, None));
        assert_eq!("mysql://db".parse::<MysqlUrl>().unwrap().port, 3306);
    }

    #[test]
    fn a_wrong_address_is_refused_without_repeating_it() {
        use NotAMysqlUrl::*;
        for (text, expected) in [
            ("postgres://a", Shape),
            ("mysql://", Shape),
            ("mysql://u:p@h:0", Port),
            ("mysql://u:p@h:x", Port),
            ("mysql://h/db", Database),
            ("mysql://u:%zz@h", Percent),
        ] {
            assert_eq!(text.parse::<MysqlUrl>().unwrap_err(), expected, "{text}");
        }
    }
}
