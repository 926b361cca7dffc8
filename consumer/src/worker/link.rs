//! One worker's connection to its shard's primary, and who that server is.
//!
//! A link is dropped, and so closed, at the first doubt; the next one tells whether it leads to the
//! same server, without which nothing that was learned before counts.

use std::time::Duration;

use spillway_runtime::mysql::{self, CheckoutError, MysqlSettings, Session};
use spillway_runtime::settings::SecretFileError;
use spillway_runtime::shards::Shard;
use sqlx::ConnectOptions as _;
use sqlx::mysql::MySqlPool;
use tokio::time::Instant;

use crate::store::statement::{Sql, get, run};
use crate::store::{StoreError, horizon, rows};

/// How often the lower bound of `points` is looked up.
const HORIZON_EVERY: Duration = Duration::from_secs(60);

/// The server ends a link that has asked nothing for so many seconds, and with it whatever its
/// transaction has locked: a consumer that is frozen in the middle of one, or cut off from its
/// server, holds up its successor for no longer.
const SILENCE_MAX_S: u32 = 30;
const _: () = assert!(super::IDLE.as_secs() * 2 < SILENCE_MAX_S as u64, "an idle link lives");

/// What the server must take in one packet: a statement of ours and room for its frame. Nothing
/// smaller can be worked with, as a lone batch can't be split.
pub const PACKET_BYTES_MIN: u64 = 4 * 1024 * 1024;
const _: () = assert!(PACKET_BYTES_MIN >= 2 * rows::STATEMENT_BYTES_MAX as u64);

/// A connection in use.
pub struct Link {
    pub session: Session,
    /// What tells this server from every other.
    pub server: String,
    floor_ts: u32,
    floor_at: Instant,
}

/// Why there is no link.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    #[error(transparent)]
    Checkout(#[from] CheckoutError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Secret(#[from] SecretFileError),
    #[error(
        "max_allowed_packet of the server is {0} bytes, at least {PACKET_BYTES_MIN} are needed"
    )]
    SmallPackets(u64),
}

/// Where to connect: made anew when shards.toml names another server.
pub struct Target {
    pool: MySqlPool,
    pub shard: Shard,
}

impl Target {
    /// Connects to nothing yet.
    pub fn new(settings: &MysqlSettings, shard: &Shard) -> Result<Self, SecretFileError> {
        let options = mysql::connect_options(settings, shard)?;
        // A slow statement of ours is megabytes long.
        let options = options.disable_statement_logging();
        let pool = mysql::pool(settings, options, Some("spillway_store"));
        Ok(Self { pool, shard: shard.clone() })
    }

    /// Makes a link.
    pub async fn connect(&self, limit: Duration) -> Result<Link, LinkError> {
        let mut session = mysql::checkout(&self.pool, limit).await?;
        let mut sql = Sql::new("SET SESSION wait_timeout = ");
        run(&mut session, limit, sql.number(SILENCE_MAX_S)).await?;
        let packet_bytes = packet_bytes(&mut session, limit).await?;
        if packet_bytes < PACKET_BYTES_MIN {
            return Err(LinkError::SmallPackets(packet_bytes));
        }
        let server = identity(&mut session, limit).await?;
        let floor_ts = horizon::floor_ts(&mut session, limit).await?;
        Ok(Link { session, server, floor_ts, floor_at: Instant::now() })
    }
}

impl Link {
    /// The first window that has a place, looked up now and then.
    pub async fn floor_ts(&mut self, limit: Duration) -> Result<u32, StoreError> {
        if self.floor_at.elapsed() >= HORIZON_EVERY {
            self.floor_ts = horizon::floor_ts(&mut self.session, limit).await?;
            self.floor_at = Instant::now();
        }
        Ok(self.floor_ts)
    }

    /// One round trip; returns how long it took.
    pub async fn ping(&mut self, limit: Duration) -> Result<Duration, StoreError> {
        let began = Instant::now();
        run(&mut self.session, limit, &Sql::new("DO 1")).await?;
        Ok(began.elapsed())
    }
}

async fn packet_bytes(session: &mut Session, limit: Duration) -> Result<u64, StoreError> {
    let answers = run(session, limit, &Sql::new("SELECT @@max_allowed_packet")).await?;
    let row = answers.iter().flat_map(|answer| &answer.rows).next();
    get(row.ok_or(StoreError::Shape("no max_allowed_packet"))?, 0)
}

/// MySQL has a UUID of its own; for MariaDB name, port and id together must do.
async fn identity(session: &mut Session, limit: Duration) -> Result<String, StoreError> {
    let sql = Sql::new(
        "SHOW GLOBAL VARIABLES WHERE Variable_name IN \
         ('server_uuid', 'server_id', 'hostname', 'port')",
    );
    let mut identity = String::new();
    for row in run(session, limit, &sql).await?.iter().flat_map(|answer| &answer.rows) {
        let (name, value): (&[u8], &[u8]) = (get(row, 0)?, get(row, 1)?);
        for part in [name, b"=", value, b" "] {
            identity.push_str(&String::from_utf8_lossy(part));
        }
    }
    Ok(identity)
}
