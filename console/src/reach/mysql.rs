//! A shard's primary, asked as the operators' user.

use std::time::Duration;

use spillway_runtime::deadline::{DeadlineExceeded, within};
use spillway_runtime::mysql::{
    CheckoutError, MysqlSettings, Session, checkout, connect_options, pool, text,
};
use spillway_runtime::settings::SecretFileError;
use spillway_runtime::shards::Shard;
use sqlx::MySqlConnection;
use sqlx::mysql::MySqlDatabaseError;

use crate::settings::ConsoleSettings;

/// A connection to one shard's primary; closed when dropped.
#[derive(Debug)]
pub struct Server {
    pub shard: Shard,
    session: Session,
    deadline: Duration,
}

/// A shard that did not do what was asked.
#[derive(Debug, thiserror::Error)]
#[error("shard {shard} at {address}: {cause}")]
pub struct MysqlFault {
    pub shard: String,
    /// host:port
    pub address: String,
    #[source]
    pub cause: MysqlCause,
}

/// Why, in words that say what to do.
#[derive(Debug, thiserror::Error)]
pub enum MysqlCause {
    #[error("cannot be reached ({0}); is the server up, and is the address in shards.toml right?")]
    Unreachable(sqlx::Error),
    #[error("does not answer; is the server up, or frozen?")]
    Silent,
    #[error(transparent)]
    Late(#[from] DeadlineExceeded),
    #[error("the login is refused ({0}); check [mysql] user and password_file")]
    Login(sqlx::Error),
    #[error(
        "the user lacks a right ({0}); deploy/mysql/users.sql says what the operators' user needs"
    )]
    Rights(sqlx::Error),
    #[error("the schema is missing or old ({0}); run `spillway migrate`")]
    Schema(sqlx::Error),
    #[error("it blocks this host after too many broken connections ({0}); run FLUSH HOSTS there")]
    Blocked(sqlx::Error),
    #[error("it takes no more connections ({0}); see who holds them with SHOW PROCESSLIST")]
    Full(sqlx::Error),
    #[error("it is read-only ({0}); is it a replica, or was it fenced?")]
    ReadOnly(sqlx::Error),
    #[error("there is a user of this name already ({0})")]
    UserExists(sqlx::Error),
    #[error(transparent)]
    Secret(#[from] SecretFileError),
    #[error("{0}")]
    Other(sqlx::Error),
}

impl From<sqlx::Error> for MysqlCause {
    fn from(error: sqlx::Error) -> Self {
        let number = error
            .as_database_error()
            .and_then(|error| error.try_downcast_ref::<MySqlDatabaseError>())
            .map(MySqlDatabaseError::number);
        match number {
            Some(1045 | 1251 | 1698 | 3118) => Self::Login(error),
            Some(1044 | 1142 | 1143 | 1227 | 1370 | 1410) => Self::Rights(error),
            Some(1049 | 1054 | 1146) => Self::Schema(error),
            Some(1129) => Self::Blocked(error),
            Some(1040 | 1203 | 1226) => Self::Full(error),
            Some(1396) => Self::UserExists(error),
            Some(1290 | 1836) => Self::ReadOnly(error),
            Some(_) => Self::Other(error),
            None => match error {
                sqlx::Error::PoolTimedOut => Self::Silent,
                sqlx::Error::Io(_) | sqlx::Error::Tls(_) => Self::Unreachable(error),
                _ => Self::Other(error),
            },
        }
    }
}

impl From<CheckoutError> for MysqlCause {
    fn from(error: CheckoutError) -> Self {
        match error {
            CheckoutError::Late(late) => late.into(),
            CheckoutError::Sql(error) => error.into(),
        }
    }
}

impl Server {
    /// Logs in to the primary of `shard`.
    pub async fn connect(settings: &ConsoleSettings, shard: &Shard) -> Result<Self, MysqlFault> {
        Self::connect_as(settings, &settings.mysql, shard).await
    }

    /// Logs in as somebody else than the operators' user.
    pub async fn connect_as(
        settings: &ConsoleSettings,
        user: &MysqlSettings,
        shard: &Shard,
    ) -> Result<Self, MysqlFault> {
        let deadline = settings.remote_deadline.get();
        let session = match connect_options(user, shard) {
            Ok(options) => {
                let pool = pool(user, options, None);
                checkout(&pool, deadline).await.map_err(MysqlCause::from)
            }
            Err(error) => Err(error.into()),
        };
        match session {
            Ok(session) => Ok(Self { shard: shard.clone(), session, deadline }),
            Err(cause) => Err(fault(shard, cause)),
        }
    }

    /// Runs `work` on the connection, within the deadline of one remote call.
    pub async fn ask<T>(
        &mut self,
        work: impl AsyncFnOnce(&mut MySqlConnection) -> Result<T, sqlx::Error>,
    ) -> Result<T, MysqlFault> {
        let answer = within(self.deadline, work(&mut self.session)).await;
        let answer = match answer {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(error)) => MysqlCause::from(error),
            Err(late) => late.into(),
        };
        Err(fault(&self.shard, answer))
    }

    /// One statement without an answer.
    pub async fn run(&mut self, sql: &str) -> Result<(), MysqlFault> {
        self.ask(async |conn| sqlx::raw_sql(sql).execute(conn).await.map(drop)).await
    }

    /// Where MySQL and MariaDB have other words for the same thing.
    pub async fn is_mariadb(&mut self) -> Result<bool, MysqlFault> {
        let sql = "SELECT VERSION()";
        let version = self.ask(async |conn| text(&sqlx::query(sql).fetch_one(conn).await?, 0));
        Ok(version.await?.contains("MariaDB"))
    }

    /// Lets this connection see tables' sizes as they are: MySQL 8 keeps what it told of them for a
    /// day. MariaDB keeps nothing, and has no such variable.
    pub async fn see_sizes_now(&mut self) -> Result<(), MysqlFault> {
        const NO_SUCH_VARIABLE: u16 = 1193;
        let set = "SET SESSION information_schema_stats_expiry = 0";
        self.ask(async |conn| match sqlx::raw_sql(set).execute(conn).await {
            Err(sqlx::Error::Database(error))
                if error
                    .try_downcast_ref::<MySqlDatabaseError>()
                    .is_some_and(|error| error.number() == NO_SUCH_VARIABLE) =>
            {
                Ok(())
            }
            other => other.map(drop),
        })
        .await
    }

    /// `cause`, as this shard's.
    pub fn fault(&self, cause: MysqlCause) -> MysqlFault {
        fault(&self.shard, cause)
    }

    /// The connection itself, for work that sets its own deadlines (migrations).
    pub fn connection(&mut self) -> &mut MySqlConnection {
        &mut self.session
    }
}

fn fault(shard: &Shard, cause: MysqlCause) -> MysqlFault {
    let address = format!("{}:{}", shard.primary.host, shard.primary.port);
    MysqlFault { shard: shard.name.clone(), address, cause }
}
