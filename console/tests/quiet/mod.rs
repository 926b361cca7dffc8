//! Environments that send nothing now, as a shard tells of them: some may send again, some said
//! that they end, and of some no point was ever stored.

use serde_json::Value as Json;
use sqlx::{Executor, MySqlConnection};

use crate::site::Site;

/// Each has one host, five minutes old where it has a point. Epochs are in the order of time:
/// `ended` crashed once, and was stopped in order the next time.
const ROWS: &str = "
SET @then := UNIX_TIMESTAMP() - 300;
SET @later := @then * 1000;
INSERT INTO spillway_store.hosts
  (host_id, environment, host, first_seen_ts, last_seen_ts, newest_ts) VALUES
  (1, 'ended', 'h1', 1, @then, @then), (2, 'quiet', 'h2', 1, @then, @then),
  (3, 'foreign', 'h3', 1, @then, @then), (4, 'expired', 'h4', 1, @then, 0);
INSERT INTO spillway_store.ledger_epochs (agent_id, epoch, environment, host, partition_id,
  highest_seq, applied_batches, closed, successor_epoch, successor_at, expected_last_seq,
  first_applied_at, last_applied_at) VALUES
  (REPEAT('a', 16), REPEAT('1', 16), 'ended', 'h1', 0, 5, 5, 0, REPEAT('2', 16), @later, 5,
   @later, @later),
  (REPEAT('a', 16), REPEAT('2', 16), 'ended', 'h1', 0, 5, 5, 1, NULL, NULL, 5, @later, @later),
  (REPEAT('b', 16), REPEAT('1', 16), 'quiet', 'h2', 0, 5, 5, 1, REPEAT('2', 16), @later, 5,
   @later, @later),
  (REPEAT('b', 16), REPEAT('2', 16), 'quiet', 'h2', 0, 5, 5, 0, NULL, NULL, NULL, @later, @later),
  (REPEAT('c', 16), REPEAT(x'00', 16), 'foreign', 'h3', 0, 0, 5, 0, NULL, NULL, NULL,
   @later, @later)";

pub async fn is_no_delay(site: &Site, root: &mut MySqlConnection) {
    root.execute(ROWS).await.unwrap();
    let told = site.run("status show").json;
    assert_eq!(told["headline"], "Ready; nothing new arrives", "{told:#}");
    assert_eq!(told["verdict"], "ok", "{told:#}");
    let rows = told["environments"].as_array().unwrap();
    let row = |name: &str| rows.iter().find(|row| row["environment"] == name).unwrap();
    for (name, state) in [("ended", "ended"), ("quiet", "quiet"), ("foreign", "quiet")] {
        assert_eq!(row(name)["state"], state, "{told:#}");
        assert!((300..400).contains(&row(name)["freshest_s"].as_i64().unwrap()), "{told:#}");
    }
    let expired = row("expired");
    assert_eq!((&expired["state"], &expired["freshest_s"]), (&"no data yet".into(), &Json::Null));
}
