//! `spillway migrate`: each shard's schema, one shard after the other.

use spillway_consumer::migrations::{self, MigrateError};
use spillway_runtime::mysql::MysqlSettings;
use spillway_runtime::shards::ShardMap;

use crate::answer::Answer;
use crate::consent::{Consent, Plan};
use crate::desk::Desk;
use crate::failure::Failure;
use crate::reach::mysql::{MysqlCause, MysqlFault, Server};

/// A shard that could not be migrated; those before it are done.
#[derive(Debug, thiserror::Error)]
pub enum MigrateFault {
    #[error(transparent)]
    Server(MysqlFault),
    #[error("shard {shard}: {source}")]
    Step { shard: String, source: MigrateError },
}

impl MigrateFault {
    /// What the server said, in words that say what to do; our own refusals as they are.
    fn of(server: &Server, error: MigrateError) -> Self {
        match error {
            MigrateError::Server(error) | MigrateError::Statement { source: error, .. } => {
                Self::Server(server.fault(MysqlCause::from(error)))
            }
            MigrateError::Silent(late) => Self::Server(server.fault(late.into())),
            source => Self::Step { shard: server.shard.name.clone(), source },
        }
    }
}

/// Brings every shard up to date, after showing which steps are pending where.
pub async fn run(desk: &Desk) -> Result<Answer, Failure> {
    let map: ShardMap = desk.shards()?;
    let mut servers = Vec::new();
    let mut steps = Vec::new();
    for shard in &map.shards {
        let mut server = Server::connect_as(&desk.settings, owner(desk), shard).await?;
        let pending = pending(&mut server).await?;
        if !pending.is_empty() {
            steps.push(format!("shard {}: {}", shard.name, pending.join(", ")));
        }
        servers.push(server);
    }
    let nothing_pending = steps.is_empty();
    if nothing_pending {
        // Running it again also makes partitions that time has brought near.
        steps.push("make sure that partitions reach far enough ahead".to_owned());
    }
    let mut answer = Answer::default();
    let entry = match desk.ask(&Plan { action: "migrate", steps })? {
        Consent::Nothing(why) => {
            answer.note(why);
            return Ok(answer);
        }
        Consent::Given(entry) => entry,
    };
    let reports = entry.end(migrate_all(desk, &mut servers).await)?;
    let columns = ["shard", "applied", "unchanged", "partitions_added"];
    let section = answer.section("shards", &columns);
    for (server, report) in servers.iter().zip(reports) {
        section.row([
            server.shard.name.clone().into(),
            report.applied.into(),
            report.unchanged.into(),
            report.partitions_added.into(),
        ]);
    }
    Ok(answer)
}

/// Who owns the schema: a user of its own, if `[migrate]` names one.
fn owner(desk: &Desk) -> &MysqlSettings {
    match desk.settings.migrate.user.as_str() {
        "" => &desk.settings.mysql,
        _ => &desk.settings.migrate,
    }
}

/// The steps that a shard still needs.
pub async fn pending(server: &mut Server) -> Result<Vec<&'static str>, MigrateFault> {
    let pending = migrations::pending(server.connection()).await;
    pending.map_err(|error| MigrateFault::of(server, error))
}

async fn migrate_all(
    desk: &Desk,
    servers: &mut [Server],
) -> Result<Vec<migrations::Report>, MigrateFault> {
    let mut reports = Vec::new();
    for server in servers {
        let options = migrations::Options {
            raw_retention: desk.settings.raw_retention.get(),
            now: jiff::Timestamp::now(),
        };
        let report = migrations::migrate(server.connection(), &options).await;
        reports.push(report.map_err(|error| MigrateFault::of(server, error))?);
        introduce(server).await.map_err(MigrateFault::Server)?;
    }
    Ok(reports)
}

/// The shard learns its name, and who migrates may look through its views.
async fn introduce(server: &mut Server) -> Result<(), MysqlFault> {
    let (name, epoch) = (server.shard.name.clone(), server.shard.epoch);
    let now = jiff::Timestamp::now().as_millisecond();
    server
        .ask(async |conn| {
            let meta = "INSERT IGNORE INTO spillway_store.shard_meta (id, shard, epoch)
                        VALUES (1, ?, ?)";
            sqlx::query(meta).bind(&name).bind(epoch).execute(&mut *conn).await?;
            super::views::admit_self(conn, now).await
        })
        .await
}
