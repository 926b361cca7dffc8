//! Keepers' background work, held still while groups move.
//!
//! While rows are copied a pause does (`keeper_pauses`): what a keeper makes all the same is a
//! difference that the next pass finds. It is a lease, renewed slice by slice, so that a console
//! that dies or freezes frees the keepers within a minute.
//!
//! While rows are removed that would not do: a rollup that was under way would lay its rows down
//! after its series is gone, where nobody finds them. So the connection that removes holds the
//! locks that keepers work under: it waits for what they have begun, and they begin nothing as long
//! as it lives.

use std::time::{Duration, Instant};

use super::RelocateFault;
use super::slice::{Act, Pair, Value, change};
use crate::failure::Failure;
use crate::reach::mysql::{MysqlFault, Server};

/// Whose pauses these are.
const OWNER: &str = "shard move";
/// A keeper goes on this long after the console's last word; a slice takes less.
const LEASE: Duration = Duration::from_secs(60);
const RENEW_EVERY: Duration = Duration::from_secs(10);

/// What a keeper works under, round by round.
const LOCKS: [&str; 2] = [spillway_keeper::rollups::LOCK, spillway_keeper::anomalies::LOCK];
/// Longer than any of its rounds may take.
const ROUND_WITHIN: Duration = Duration::from_secs(330);
/// The longest wait inside one statement; longer waits repeat it.
const WAIT_S: u32 = 2;
/// A console whose machine is gone holds the locks no longer than this.
const SILENT_S_MAX: u32 = 120;

impl Pair {
    /// Renews the pauses, if it is time to.
    pub async fn hold_keepers(&mut self, act: Act) -> Result<(), MysqlFault> {
        if self.held_at.is_some_and(|at| at.elapsed() < RENEW_EVERY) {
            return Ok(());
        }
        let sql = "INSERT INTO spillway_store.keeper_pauses
                   (duty, reason, owner, set_at, until_at) VALUES ('*', ?, ?, ?, ?)
                   ON DUPLICATE KEY UPDATE
                   until_at = IF(owner = VALUES(owner), VALUES(until_at), until_at)";
        let now = jiff::Timestamp::now().as_millisecond();
        let until = now.saturating_add(i64::try_from(LEASE.as_millis()).unwrap_or(0));
        for server in self.servers(act) {
            let held = server.ask(async |conn| {
                let query = sqlx::query(sql).bind("groups move to another shard").bind(OWNER);
                query.bind(now).bind(until).execute(conn).await.map(drop)
            });
            held.await?;
        }
        self.held_at = Some(Instant::now());
        Ok(())
    }

    /// Waits until no keeper is at work at the source; from then on none is, as long as the
    /// connection that removes rows there lives.
    pub async fn outlast_keepers(&mut self) -> Result<(), Failure> {
        self.hold_keepers(Act::Clear).await?;
        self.source.run(&format!("SET SESSION wait_timeout = {SILENT_S_MAX}")).await?;
        let by = Instant::now() + ROUND_WITHIN;
        for name in LOCKS {
            while !lock(&mut self.source, name).await? {
                if Instant::now() >= by {
                    return Err(RelocateFault::KeeperBusy(self.source.shard.name.clone()).into());
                }
                self.hold_keepers(Act::Clear).await?;
            }
        }
        Ok(())
    }
}

async fn lock(server: &mut Server, name: &str) -> Result<bool, MysqlFault> {
    let got = server.ask(async |conn| {
        let query = sqlx::query_scalar::<_, Option<i64>>("SELECT GET_LOCK(?, ?)");
        query.bind(name).bind(WAIT_S).fetch_one(conn).await
    });
    Ok(got.await? == Some(1))
}

/// Lets a shard's keeper go on; an operator's own pause stays.
pub async fn release_keeper(server: &mut Server) -> Result<(), MysqlFault> {
    let sql = "DELETE FROM spillway_store.keeper_pauses WHERE owner = ?";
    change(server, sql, &[Value::Text(OWNER.to_owned())]).await.map(drop)
}
