//! tokens.toml: who may send, for which environment, and until when.
//!
//! ```toml
//! [[token]]
//! id = "3f0c2b8e91aa"
//! secret_sha256 = "…64 hex…"
//! environment = "acme"
//! created = "2026-01-02T03:04:05Z"
//! # expires, revoked = "…"; limits = { points_per_second = 100000 }
//! ```
//!
//! The file holds no secret: only the SHA-256 of each, compared in constant time. A token is judged
//! at a given time: the API judges at the request, the recovery worker at the object's arrival in
//! S3. A file without a single token counts as damaged: a truncated file must not turn into 401 for
//! all, which makes several senders drop their data.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use tokio::sync::watch;

use crate::settings::Secret;
use crate::watched_file::{self, WatchedFile};
use spillway_proto::frame::is_environment_name;
use spillway_proto::limits::TOKEN_BYTES_MAX;

mod file;

pub use file::{TokenFileError, append, rewrite};

/// What every token starts with, so that a leaked one is recognised by scanners.
pub const TOKEN_PREFIX: &str = "spw_";

/// The longest id; ours have 12 characters.
const ID_BYTES_MAX: usize = 64;

/// Bytes of randomness in a secret.
const SECRET_BYTES: usize = 32;

/// How far a sender's and our clock may differ before a fresh token counts as not yet valid.
const CREATED_GRACE: SignedDuration = SignedDuration::from_mins(5);

/// One row of tokens.toml.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Token {
    pub id: String,
    /// Hex SHA-256 of the secret (the part after the id).
    pub secret_sha256: String,
    pub environment: String,
    pub created: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoked: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<TokenLimits>,
}

/// What one token may send at most, on each server by itself: behind n of them it gets n times as
/// much.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TokenLimits {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub points_per_second: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requests_per_second: Option<u64>,
    /// Of bodies, as they come.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes_per_second: Option<u64>,
    /// Different series within an hour, those it always sent included; told apart within 2 %.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub series_per_hour: Option<u64>,
    /// Open at a time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connections: Option<u64>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Rows {
    #[serde(default)]
    token: Vec<Token>,
}

/// All tokens of one version of the file.
#[derive(Debug, Clone)]
pub struct Tokens {
    rows: Vec<Token>,
    by_id: HashMap<String, (usize, [u8; 32])>,
}

/// Why a tokens.toml is refused.
#[derive(Debug, thiserror::Error)]
pub enum TokensError {
    #[error("{} cannot be read: {cause}", path.display())]
    Unreadable { path: PathBuf, cause: std::io::Error },
    #[error("it is no tokens file: {0}")]
    NotToml(#[from] toml::de::Error),
    #[error("it holds no token; an empty file counts as damaged")]
    Empty,
    #[error("token {id:?}: {fault}")]
    Row { id: String, fault: RowFault },
}

/// What is wrong with one row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RowFault {
    #[error("the id must be 1 to 64 characters of a-z, 0-9 and -")]
    Id,
    #[error("the id is there twice")]
    Twice,
    #[error("secret_sha256 must be 64 hexadecimal digits")]
    Hash,
    #[error("the environment must be 1 to 64 characters of a-z, 0-9, _, . and -")]
    Environment,
    #[error("it expires before it was created")]
    Times,
}

/// Why a credential is not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    #[error("the token is malformed; it looks like spw_<id>_<secret>")]
    Malformed,
    #[error("the token is not known")]
    Unknown,
    #[error("the token's secret is wrong")]
    WrongSecret,
    #[error("the token is revoked")]
    Revoked,
    #[error("the token has expired")]
    Expired,
    #[error("the token is not valid yet")]
    NotYetValid,
}

/// There is no usable tokens file at all: an answer of 503, never 401.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no good tokens file yet: {}", .cause.as_deref().unwrap_or("it was never read"))]
pub struct Unavailable {
    cause: Option<String>,
}

impl Tokens {
    pub fn load(path: &Path) -> Result<Self, TokensError> {
        let text = watched_file::read(path)
            .map_err(|cause| TokensError::Unreadable { path: path.to_owned(), cause })?;
        Self::parse(&text)
    }

    pub fn parse(text: &str) -> Result<Self, TokensError> {
        let rows: Rows = toml::from_str(text)?;
        if rows.token.is_empty() {
            return Err(TokensError::Empty);
        }
        Self::from_rows(rows.token)
    }

    fn from_rows(rows: Vec<Token>) -> Result<Self, TokensError> {
        let mut by_id = HashMap::with_capacity(rows.len());
        for (index, row) in rows.iter().enumerate() {
            let refuse = |fault| TokensError::Row { id: row.id.clone(), fault };
            let hash = checked(row).map_err(refuse)?;
            if by_id.insert(row.id.clone(), (index, hash)).is_some() {
                return Err(refuse(RowFault::Twice));
            }
        }
        Ok(Self { rows, by_id })
    }

    pub fn iter(&self) -> impl Iterator<Item = &Token> {
        self.rows.iter()
    }

    /// Whether `credential` (`spw_<id>_<secret>`) was good at `at`.
    ///
    /// Which secret it is, is decided in constant time; that an id exists is no secret.
    pub fn authenticate(&self, credential: &str, at: Timestamp) -> Result<&Token, TokenError> {
        let (id, secret) = split(credential).ok_or(TokenError::Malformed)?;
        let (index, expected) = self.by_id.get(id).ok_or(TokenError::Unknown)?;
        let row = self.rows.get(*index).ok_or(TokenError::Unknown)?;
        let given: [u8; 32] = Sha256::digest(secret).into();
        if !bool::from(given.ct_eq(expected)) {
            return Err(TokenError::WrongSecret);
        }
        if row.revoked.is_some_and(|revoked| at >= revoked) {
            return Err(TokenError::Revoked);
        }
        if row.expires.is_some_and(|expires| at >= expires) {
            return Err(TokenError::Expired);
        }
        if at.saturating_add(CREATED_GRACE).is_ok_and(|at| at < row.created) {
            return Err(TokenError::NotYetValid);
        }
        Ok(row)
    }
}

fn split(credential: &str) -> Option<(&str, &str)> {
    if credential.len() > TOKEN_BYTES_MAX {
        return None;
    }
    let (id, secret) = credential.strip_prefix(TOKEN_PREFIX)?.split_once('_')?;
    let sound = is_id(id) && !secret.is_empty() && secret.bytes().all(|b| b.is_ascii_graphic());
    sound.then_some((id, secret))
}

fn is_id(id: &str) -> bool {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    !id.is_empty() && id.len() <= ID_BYTES_MAX && id.bytes().all(plain)
}

fn checked(row: &Token) -> Result<[u8; 32], RowFault> {
    if !is_id(&row.id) {
        return Err(RowFault::Id);
    }
    if !is_environment_name(&row.environment) {
        return Err(RowFault::Environment);
    }
    if row.expires.is_some_and(|expires| expires <= row.created) {
        return Err(RowFault::Times);
    }
    let mut hash = [0; 32];
    hex::decode_to_slice(&row.secret_sha256, &mut hash).map_err(|_| RowFault::Hash)?;
    Ok(hash)
}

/// tokens.toml as it stands now.
#[derive(Debug, Clone)]
pub struct TokenFile {
    file: WatchedFile<Tokens>,
}

impl TokenFile {
    /// Reads it at once, and again whenever it changes (see [`watched_file`]).
    pub fn watch(path: impl Into<PathBuf>, reload: watch::Receiver<u64>) -> Self {
        let file = WatchedFile::start(path, reload, |text, _| Tokens::parse(text));
        Self { file }
    }

    /// These tokens for ever, and no file: for the simulation.
    #[cfg(feature = "simulation")]
    pub fn fixed(tokens: Tokens) -> Self {
        Self { file: WatchedFile::fixed(tokens) }
    }

    /// The last good version.
    pub fn current(&self) -> Result<Arc<Tokens>, Unavailable> {
        self.file.current().ok_or_else(|| Unavailable { cause: self.file.last_error() })
    }

    /// Why the newest version of the file is not in force, if it is not.
    pub fn last_error(&self) -> Option<String> {
        self.file.last_error()
    }
}

/// Why no token could be made.
#[derive(Debug, thiserror::Error)]
pub enum GenerateError {
    #[error("{0}")]
    Row(#[from] RowFault),
    #[error("the system gives no randomness: {0}")]
    Random(#[from] getrandom::Error),
}

/// A new token: what its owner gets, shown once, and the row for the file.
pub fn generate(
    id: Option<&str>,
    environment: &str,
    now: Timestamp,
) -> Result<(Secret, Token), GenerateError> {
    let mut random = [0; SECRET_BYTES];
    getrandom::fill(&mut random)?;
    let mut own_id = [0; 6];
    getrandom::fill(&mut own_id)?;
    let id = id.map_or_else(|| hex::encode(own_id), str::to_owned);
    let secret = hex::encode(random);
    let row = Token {
        secret_sha256: hex::encode(Sha256::digest(&secret)),
        environment: environment.to_owned(),
        created: Timestamp::from_second(now.as_second()).unwrap_or(now),
        expires: None,
        revoked: None,
        limits: None,
        id,
    };
    checked(&row)?;
    Ok((Secret::new(format!("{TOKEN_PREFIX}{}_{secret}", row.id)), row))
}

#[cfg(test)]
#[path = "tokens/tests.rs"]
mod tests;
