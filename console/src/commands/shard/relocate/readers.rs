//! Readers of moved environments, made at the new shard with the passwords they have: MySQL keeps
//! only what a password is checked by, and that goes along as it is. Nothing here stops a move:
//! a reader that can't be made is named, with the commands that make it anew.

use spillway_runtime::mysql::text;
use sqlx::Row;

use super::super::promote::progress;
use super::slice::{Pair, Value, change, rows};
use super::walk::Scope;
use crate::answer::{Answer, Verdict};
use crate::commands::reader::is_user_name;
use crate::failure::Failure;
use crate::reach::mysql::{MysqlFault, Server};

/// A row of `readers`.
#[derive(Clone, Debug)]
pub struct Reader {
    pub name: String,
    environment: String,
    statement_limit_s: u32,
}

/// How MySQL knows a user.
struct Login {
    plugin: String,
    /// What a password is checked by.
    hash: Vec<u8>,
    connections: u32,
}

/// Why a reader is not at the new shard.
#[derive(Debug, thiserror::Error)]
enum ReaderFault {
    #[error(transparent)]
    Mysql(#[from] MysqlFault),
    #[error("its name needs quoting")]
    Name,
    #[error("the old shard has no such user")]
    NoUser,
    #[error("the new shard has another reader of this name")]
    Taken,
    #[error("its login is of a kind that is not known here")]
    Kind,
}

/// The readers of the environments that move, of those too that have no rows yet.
pub async fn of(pair: &mut Pair, scope: &Scope) -> Result<Vec<Reader>, Failure> {
    let sql = "SELECT name, environment, statement_limit_s FROM spillway_store.readers
               WHERE environment IS NOT NULL ORDER BY name";
    let found = rows(&mut pair.source, sql, &[]).await?;
    let reader = |row| {
        let (name, environment) = (text(row, 0)?, text(row, 1)?);
        Ok(Reader { name, environment, statement_limit_s: row.try_get(2)? })
    };
    let all: Result<Vec<Reader>, sqlx::Error> = found.iter().map(reader).collect();
    let mut all = all.map_err(|error| pair.source.fault(error.into()))?;
    all.retain(|one| scope.groups.contains(&scope.partitioning.group_of(&one.environment)));
    Ok(all)
}

/// Makes them at the target; tells of those that are there and of those that can't be.
pub async fn go_along(pair: &mut Pair, readers: &[Reader], answer: &mut Answer) {
    let mut made = Vec::new();
    for reader in readers {
        match make(pair, reader).await {
            Ok(()) => made.push(reader.name.clone()),
            Err(fault) => {
                let Reader { name, environment, .. } = reader;
                let text = format!(
                    "reader {name} is not at the new shard ({fault}). Make it anew: spillway \
                     reader revoke {name}; spillway reader create --environment {environment} \
                     --name {name}"
                );
                answer.trouble(Verdict::Warning, text);
            }
        }
    }
    if made.is_empty() {
        return;
    }
    let url = &pair.target.shard.primary;
    let (names, place) = (made.join(", "), format!("{}:{}", url.host, url.port));
    progress(&format!("readers with their passwords: {names}"));
    answer.fact("readers", made);
    answer.note(format!(
        "{names} now log in at {place} too, with the same password: point their dashboards there."
    ));
}

async fn make(pair: &mut Pair, reader: &Reader) -> Result<(), ReaderFault> {
    let name = &reader.name;
    if !is_user_name(name) {
        return Err(ReaderFault::Name);
    }
    let login = login(&mut pair.source, name).await?;
    let target = &mut pair.target;
    let known = "SELECT environment FROM spillway_store.readers WHERE name = ?
                 AND NOT environment <=> ?";
    let named = [name, &reader.environment].map(|text| Value::Text(text.clone()));
    if !rows(target, known, &named).await?.is_empty() {
        return Err(ReaderFault::Taken);
    }
    let identified = identified(target, &login).await?;
    // IF NOT EXISTS: a console that died here goes on.
    let user = format!(
        "CREATE USER IF NOT EXISTS '{name}'@'%' {identified} WITH MAX_USER_CONNECTIONS {}",
        login.connections
    );
    target.run(&user).await?;
    let row = "INSERT INTO spillway_store.readers
               (name, environment, statement_limit_s, created_at) VALUES (?, ?, ?, ?)
               ON DUPLICATE KEY UPDATE statement_limit_s = VALUES(statement_limit_s)";
    let now = u64::try_from(jiff::Timestamp::now().as_millisecond()).unwrap_or(0);
    let numbers = [reader.statement_limit_s.into(), now].map(Value::Number);
    change(target, row, &[&named[..], &numbers[..]].concat()).await?;
    Ok(target.run(&format!("GRANT SELECT, SHOW VIEW ON spillway.* TO '{name}'@'%'")).await?)
}

async fn login(server: &mut Server, name: &str) -> Result<Login, ReaderFault> {
    let sql = "SELECT plugin, authentication_string, CAST(max_user_connections AS UNSIGNED)
               FROM mysql.user WHERE user = ? AND host = '%'";
    let found = rows(server, sql, &[Value::Text(name.to_owned())]).await?;
    let row = found.first().ok_or(ReaderFault::NoUser)?;
    let login = text(row, 0).and_then(|plugin| {
        let connections = u32::try_from(row.try_get_unchecked::<u64, _>(2)?).unwrap_or(0);
        Ok(Login { plugin, hash: row.try_get_unchecked(1)?, connections })
    });
    Ok(login.map_err(|error| server.fault(error.into()))?)
}

/// The clause by which a new user has this login. MySQL takes the bytes, MariaDB a text.
async fn identified(server: &mut Server, login: &Login) -> Result<String, ReaderFault> {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
    if login.plugin.is_empty() || login.hash.is_empty() || !login.plugin.bytes().all(plain) {
        return Err(ReaderFault::Kind);
    }
    let plugin = &login.plugin;
    if !server.is_mariadb().await? {
        return Ok(format!("IDENTIFIED WITH {plugin} AS 0x{}", hex::encode(&login.hash)));
    }
    let plain = |b: &u8| b.is_ascii_alphanumeric() || b"*+/=.$".contains(b);
    match std::str::from_utf8(&login.hash) {
        Ok(hash) if login.hash.iter().all(plain) => {
            Ok(format!("IDENTIFIED VIA {plugin} USING '{hash}'"))
        }
        _ => Err(ReaderFault::Kind),
    }
}
