//! MySQL connections that never hang and never keep half a conversation (feature `mysql`).
//!
//! sqlx has a deadline for acquiring a connection and none for anything after it; and a connection
//! whose query was cancelled goes back to the pool with an unread answer, or holds its place for
//! ever when the server is silent. So a [`Session`] closes its connection unless it is explicitly
//! given back, and every use of it stands inside `deadline::within`.

use std::ops::{Deref, DerefMut};
use std::path::{Path, PathBuf};
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sqlx::mysql::{MySqlConnectOptions, MySqlPool, MySqlPoolOptions, MySqlRow, MySqlSslMode};
use sqlx::pool::PoolConnection;
use sqlx::{ConnectOptions, Executor, MySql, MySqlConnection, Row};

use crate::deadline::{DeadlineExceeded, within};
use crate::mysql_url::MysqlUrl;
use crate::settings::{Dur, Secret, SecretFileError};
use crate::shards::Shard;

/// Statements a connection keeps prepared: above any program's number of statement shapes, since
/// each eviction costs a round trip.
const STATEMENT_CACHE: usize = 512;

/// Idle connections are closed after this long: a failed-over server forgets us by itself.
const IDLE_MAX: Duration = Duration::from_secs(300);

/// How to log in to MySQL.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct MysqlSettings {
    /// The user; empty takes the one in shards.toml's address.
    pub user: String,
    /// The password; better a file.
    pub password: Secret,
    /// A file that holds the password and nothing else.
    pub password_file: Option<PathBuf>,
    /// Whether to encrypt, and what to check.
    pub tls: Tls,
    /// Certificates to trust (PEM), for `verify-ca` and `verify-identity`.
    pub ca_file: Option<PathBuf>,
    /// How long a login may take.
    pub connect_timeout: Dur,
    /// Connections per shard at most.
    pub connections_max: u32,
    /// How long to wait for a row or table lock before the statement fails and is tried again.
    pub lock_wait_timeout: Dur,
}

impl Default for MysqlSettings {
    fn default() -> Self {
        Self {
            user: String::new(),
            password: Secret::default(),
            password_file: None,
            tls: Tls::Preferred,
            ca_file: None,
            connect_timeout: Dur::from_secs(3),
            connections_max: 4,
            lock_wait_timeout: Dur::from_secs(5),
        }
    }
}

/// How far a connection is protected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Tls {
    Disabled,
    #[default]
    Preferred,
    Required,
    VerifyCa,
    VerifyIdentity,
}

impl From<Tls> for MySqlSslMode {
    fn from(tls: Tls) -> Self {
        match tls {
            Tls::Disabled => Self::Disabled,
            Tls::Preferred => Self::Preferred,
            Tls::Required => Self::Required,
            Tls::VerifyCa => Self::VerifyCa,
            Tls::VerifyIdentity => Self::VerifyIdentity,
        }
    }
}

/// How to reach a shard's primary as this program's user.
pub fn connect_options(
    settings: &MysqlSettings,
    shard: &Shard,
) -> Result<MySqlConnectOptions, SecretFileError> {
    let password_file = shard.primary_password_file.as_deref();
    options_for(settings, &shard.primary, password_file)
}

/// How to reach any server as this program's user; the settings' user and password go before the
/// address's, and `password_file` comes last.
pub fn options_for(
    settings: &MysqlSettings,
    url: &MysqlUrl,
    password_file: Option<&Path>,
) -> Result<MySqlConnectOptions, SecretFileError> {
    let own = settings.password.resolve(settings.password_file.as_deref())?;
    let user = match settings.user.as_str() {
        "" => url.user.as_deref(),
        user => Some(user),
    };
    let password = match own.is_set() {
        true => own,
        false => url.password.resolve(password_file)?,
    };
    let mut options = MySqlConnectOptions::new()
        .host(&url.host)
        .port(url.port)
        .charset("utf8mb4")
        .collation("utf8mb4_bin")
        .pipes_as_concat(false)
        .statement_cache_capacity(STATEMENT_CACHE)
        // sqlx would log a slow statement with its whole text, megabytes of an INSERT among them.
        .disable_statement_logging()
        .ssl_mode(settings.tls.into());
    if let Some(user) = user {
        options = options.username(user);
    }
    if password.is_set() {
        options = options.password(password.reveal());
    }
    if let Some(ca) = &settings.ca_file {
        options = options.ssl_ca(ca);
    }
    Ok(options)
}

/// A lazy pool: it connects when asked to, and a server that is away costs nothing meanwhile.
pub fn pool(
    settings: &MysqlSettings,
    options: MySqlConnectOptions,
    database: Option<&str>,
) -> MySqlPool {
    let options = match database {
        Some(database) => options.database(database),
        None => options,
    };
    let lock_wait_s = settings.lock_wait_timeout.as_secs().max(1);
    // Strict, or MySQL cuts and rounds in silence; UTC, or views would shift with the server.
    let session = format!(
        "SET SESSION time_zone = '+00:00', innodb_lock_wait_timeout = {lock_wait_s}, \
         lock_wait_timeout = {lock_wait_s}, sql_mode = 'STRICT_ALL_TABLES,NO_ZERO_DATE,\
         NO_ZERO_IN_DATE,ERROR_FOR_DIVISION_BY_ZERO,NO_ENGINE_SUBSTITUTION'; \
         SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED"
    );
    MySqlPoolOptions::new()
        .min_connections(0)
        .max_connections(settings.connections_max.max(1))
        .acquire_timeout(settings.connect_timeout.get())
        .idle_timeout(IDLE_MAX)
        .after_connect(move |conn, _| {
            let session = session.clone();
            Box::pin(async move { conn.execute(sqlx::raw_sql(&session)).await.map(drop) })
        })
        .connect_lazy_with(options)
}

/// A text column of a row. Our names compare as bytes (utf8mb4_bin), for which MySQL sets the
/// binary flag and sqlx refuses to give a `String`; so such columns are read through here.
pub fn text(row: &MySqlRow, column: usize) -> Result<String, sqlx::Error> {
    row.try_get_unchecked(column)
}

/// As [`text`], where the column may be NULL.
pub fn text_or_null(row: &MySqlRow, column: usize) -> Result<Option<String>, sqlx::Error> {
    row.try_get_unchecked(column)
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum CheckoutError {
    #[error(transparent)]
    Late(#[from] DeadlineExceeded),
    #[error(transparent)]
    Sql(#[from] sqlx::Error),
}

/// Takes a connection out of the pool, or makes one.
pub async fn checkout(pool: &MySqlPool, deadline: Duration) -> Result<Session, CheckoutError> {
    #[expect(clippy::disallowed_methods, reason = "this is the one place that wraps it")]
    let acquired = pool.acquire();
    let conn = within(deadline, acquired).await??;
    Ok(Session { conn: Some(conn) })
}

/// A connection that is closed when dropped, whatever state a timeout, an error or a cancellation
/// left it in; only [`Session::give_back`] returns it to the pool.
#[derive(Debug)]
pub struct Session {
    // Some until drop: give_back consumes the session.
    conn: Option<PoolConnection<MySql>>,
}

impl Session {
    /// The conversation is complete: no open transaction, no unread answer.
    pub fn give_back(mut self) {
        drop(self.conn.take());
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if let Some(conn) = self.conn.as_mut() {
            conn.close_on_drop();
        }
    }
}

impl Deref for Session {
    type Target = MySqlConnection;

    fn deref(&self) -> &MySqlConnection {
        match &self.conn {
            Some(conn) => conn,
            None => unreachable!("a session has its connection until it is dropped"),
        }
    }
}

impl DerefMut for Session {
    fn deref_mut(&mut self) -> &mut MySqlConnection {
        match &mut self.conn {
            Some(conn) => conn,
            None => unreachable!("a session has its connection until it is dropped"),
        }
    }
}
