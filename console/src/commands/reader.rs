//! `spillway reader create|revoke|ls`: MySQL users for dashboards.
//!
//! A reader may SELECT from the views and nothing else, and each view shows it only the rows that
//! its row in `readers` grants.

use spillway_proto::frame::is_environment_name;
use spillway_runtime::mysql::{text, text_or_null};
use spillway_runtime::mysql_url::MysqlUrl;
use spillway_runtime::settings::Secret;
use spillway_runtime::shards::{Shard, ShardMap};
use sqlx::Row;

use crate::answer::{Answer, Verdict};
use crate::cli::CreateReader;
use crate::consent::{Consent, Plan};
use crate::desk::Desk;
use crate::failure::{Failure, UsageError};
use crate::reach::mysql::{MysqlFault, Server};

/// MySQL's limit for a user's name.
const NAME_BYTES_MAX: usize = 32;
/// How the programs' own users begin, as deploy/mysql/users.sql makes them.
const OURS: &str = "spillway_";
/// Bytes of randomness in a password.
const PASSWORD_BYTES: usize = 18;

/// Why there is no reader.
#[derive(Debug, thiserror::Error)]
pub enum ReaderProblem {
    #[error(
        "shard {shard} has a MySQL user {name} already; revoke it first, or pass another --name"
    )]
    Exists { shard: String, name: String },
    #[error("the system gives no randomness: {0}")]
    Random(#[from] getrandom::Error),
    #[error("no shard has a reader {0}; see `spillway reader ls`")]
    Unknown(String),
    #[error("{0} is the login of a program or of this console, and no reader")]
    Ours(String),
}

/// Makes the user on the environment's shard, or on all.
pub async fn create(desk: &Desk, options: &CreateReader) -> Result<Answer, Failure> {
    let environment = options.environment.as_deref();
    let name = name_of(options)?;
    let map = desk.shards()?;
    let mut servers = connect(desk, desk.shards_of(&map, environment)).await?;
    for server in &mut servers {
        if granted(server, &name).await? {
            let shard = server.shard.name.clone();
            return Err(ReaderProblem::Exists { shard, name }.into());
        }
    }
    let sees = environment.map_or("all environments".to_owned(), |e| format!("environment {e}"));
    let step = |server: &Server| {
        format!(
            "make MySQL user {name} on shard {}: sees {sees}, {} connections",
            server.shard.name, options.connections
        )
    };
    let steps = servers.iter().map(step).collect();
    let mut answer = Answer::default();
    let entry = match desk.ask(&Plan { action: "reader create", steps })? {
        Consent::Nothing(why) => {
            answer.note(why);
            return Ok(answer);
        }
        Consent::Given(entry) => entry,
    };
    let password = password()?;
    let made = async {
        for server in &mut servers {
            make(server, &name, &password, options).await?;
        }
        Ok::<_, MysqlFault>(())
    };
    entry.end(made.await)?;
    answer.fact("name", name.as_str()).fact("environment", environment);
    let section = answer.section("readers", &["shard", "dsn", "replicas"]);
    for server in &servers {
        let dsn = |url: &MysqlUrl| dsn(url, &name, &password);
        let replicas = server.shard.replicas.iter().map(|replica| dsn(&replica.url));
        section.row([
            server.shard.name.clone().into(),
            dsn(&server.shard.primary).into(),
            replicas.collect::<Vec<_>>().into(),
        ]);
    }
    answer.note("The password is shown this once.");
    Ok(answer)
}

fn name_of(options: &CreateReader) -> Result<String, UsageError> {
    if let Some(environment) = &options.environment
        && !is_environment_name(environment)
    {
        return Err(UsageError(format!("{environment:?} can't be an environment's name")));
    }
    let derived = || {
        let of = options.environment.as_deref().unwrap_or("all").to_ascii_lowercase();
        let name = format!("read_{}", of.replace(['-', '.'], "_"));
        name.chars().take(NAME_BYTES_MAX).collect()
    };
    let name = options.name.clone().unwrap_or_else(derived);
    if !is_user_name(&name) {
        return Err(UsageError(format!(
            "a reader's name is made of a-z, 0-9 and _, at most {NAME_BYTES_MAX}; not {name:?}"
        )));
    }
    if name.starts_with(OURS) {
        return Err(UsageError(format!("names that begin with {OURS} are the programs' own")));
    }
    Ok(name)
}

/// Names that need no quoting in SQL, where a user's name can't be a parameter.
pub fn is_user_name(name: &str) -> bool {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
    !name.is_empty() && name.len() <= NAME_BYTES_MAX && name.bytes().all(plain)
}

fn password() -> Result<Secret, ReaderProblem> {
    let mut random = [0; PASSWORD_BYTES];
    getrandom::fill(&mut random)?;
    // The letters are for servers with a password policy.
    Ok(Secret::new(format!("Sp-{}", hex::encode(random))))
}

fn dsn(url: &MysqlUrl, name: &str, password: &Secret) -> String {
    let url = MysqlUrl { user: Some(name.to_owned()), password: password.clone(), ..url.clone() };
    format!("{}/spillway", url.reveal())
}

async fn connect(desk: &Desk, shards: Vec<&Shard>) -> Result<Vec<Server>, MysqlFault> {
    let mut servers = Vec::new();
    for shard in shards {
        servers.push(Server::connect(&desk.settings, shard).await?);
    }
    Ok(servers)
}

async fn make(
    server: &mut Server,
    name: &str,
    password: &Secret,
    options: &CreateReader,
) -> Result<(), MysqlFault> {
    let (password, connections) = (password.reveal(), options.connections);
    let user = format!(
        "CREATE USER '{name}'@'%' IDENTIFIED BY '{password}'
         WITH MAX_USER_CONNECTIONS {connections}"
    );
    // The row last but one: a user without it sees nothing.
    server.run(&user).await?;
    let environment = options.environment.clone();
    let limit_s = options.statement_limit.as_secs();
    server
        .ask(async |conn| {
            let row = "INSERT INTO spillway_store.readers
                       (name, environment, statement_limit_s, created_at) VALUES (?, ?, ?, ?)";
            let now = jiff::Timestamp::now().as_millisecond();
            let row = sqlx::query(row).bind(name).bind(environment).bind(limit_s).bind(now);
            row.execute(conn).await.map(drop)
        })
        .await?;
    server.run(&format!("GRANT SELECT, SHOW VIEW ON spillway.* TO '{name}'@'%'")).await
}

/// Whether the name is a program's or this console's own: they look through the views too, and are
/// no readers that anybody made.
fn is_ours(desk: &Desk, name: &str) -> bool {
    name.starts_with(OURS) || name == desk.settings.mysql.user
}

/// Drops the user wherever it is.
pub async fn revoke(desk: &Desk, name: &str) -> Result<Answer, Failure> {
    if !is_user_name(name) {
        return Err(ReaderProblem::Unknown(name.to_owned()).into());
    }
    if is_ours(desk, name) {
        return Err(ReaderProblem::Ours(name.to_owned()).into());
    }
    let map: ShardMap = desk.shards()?;
    let mut having = Vec::new();
    for mut server in connect(desk, desk.shards_of(&map, None)).await? {
        if granted(&mut server, name).await? {
            having.push(server);
        }
    }
    if having.is_empty() {
        return Err(ReaderProblem::Unknown(name.to_owned()).into());
    }
    let step = |server: &Server| format!("drop MySQL user {name} on shard {}", server.shard.name);
    let steps = having.iter().map(step).collect();
    let mut answer = Answer::default();
    match desk.ask(&Plan { action: "reader revoke", steps })? {
        Consent::Nothing(why) => {
            answer.note(why);
        }
        Consent::Given(entry) => {
            let dropped = async {
                for server in &mut having {
                    drop_user(server, name).await?;
                }
                Ok::<_, MysqlFault>(())
            };
            entry.end(dropped.await)?;
            answer.fact("revoked", name);
        }
    }
    Ok(answer)
}

async fn granted(server: &mut Server, name: &str) -> Result<bool, MysqlFault> {
    server
        .ask(async |conn| {
            let sql = "SELECT COUNT(*) FROM spillway_store.readers WHERE name = ?";
            let found: i64 = sqlx::query_scalar(sql).bind(name).fetch_one(conn).await?;
            Ok(found > 0)
        })
        .await
}

async fn drop_user(server: &mut Server, name: &str) -> Result<(), MysqlFault> {
    server.run(&format!("DROP USER IF EXISTS '{name}'@'%'")).await?;
    server
        .ask(async |conn| {
            let sql = "DELETE FROM spillway_store.readers WHERE name = ?";
            sqlx::query(sql).bind(name).execute(conn).await.map(drop)
        })
        .await
}

/// All readers of all shards; a shard that is down is told and does not hide the others.
pub async fn ls(desk: &Desk) -> Result<Answer, Failure> {
    let map = desk.shards()?;
    let mut answer = Answer::default();
    let mut rows = Vec::new();
    for shard in &map.shards {
        match list(desk, shard).await {
            Ok(mut found) => rows.append(&mut found),
            Err(fault) => {
                answer.trouble(Verdict::Critical, fault_text(&fault));
            }
        }
    }
    let columns = ["shard", "name", "environment", "statement_limit_s"];
    answer.section("readers", &columns).rows = rows;
    Ok(answer)
}

fn fault_text(fault: &MysqlFault) -> String {
    spillway_runtime::program::chain(fault)
}

async fn list(desk: &Desk, shard: &Shard) -> Result<Vec<Vec<serde_json::Value>>, MysqlFault> {
    let mut server = Server::connect(&desk.settings, shard).await?;
    server
        .ask(async |conn| {
            let sql = "SELECT name, environment, statement_limit_s
                       FROM spillway_store.readers ORDER BY name";
            let rows = sqlx::query(sql).fetch_all(conn).await?;
            let row = |row: &sqlx::mysql::MySqlRow| {
                Ok(vec![
                    shard.name.clone().into(),
                    text(row, 0)?.into(),
                    text_or_null(row, 1)?.unwrap_or_else(|| "(all)".to_owned()).into(),
                    row.try_get::<u32, _>(2)?.into(),
                ])
            };
            let ours = |row: &sqlx::mysql::MySqlRow| text(row, 0).map(|name| is_ours(desk, &name));
            let made = rows.iter().filter(|row| !ours(row).unwrap_or(false));
            made.map(row).collect()
        })
        .await
}

#[cfg(test)]
mod tests {
    use super::*;
    use spillway_runtime::settings::Dur;

    fn options(environment: Option<&str>, name: Option<&str>) -> CreateReader {
        CreateReader {
            environment: environment.map(str::to_owned),
            all: environment.is_none(),
            name: name.map(str::to_owned),
            connections: 10,
            statement_limit: Dur::from_secs(60),
        }
    }

    #[test]
    fn a_readers_name_never_needs_quoting() {
        assert_eq!(name_of(&options(Some("Acme-eu.1"), None)).unwrap(), "read_acme_eu_1");
        assert_eq!(name_of(&options(None, None)).unwrap(), "read_all");
        let long = "x".repeat(64);
        assert_eq!(name_of(&options(Some(&long), None)).unwrap().len(), NAME_BYTES_MAX);
        for bad in ["a'b", "a b", "", "Ä", "a`"] {
            assert!(name_of(&options(None, Some(bad))).is_err(), "{bad}");
        }
        assert!(name_of(&options(Some("a'b"), None)).is_err());
    }
}
