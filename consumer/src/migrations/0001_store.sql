-- Everything in spillway_store that is not partitioned. Every statement may run again after a
-- half-finished attempt. Times: `*_ts` are seconds, `*_at` milliseconds, both since the Unix epoch.
-- Names are compared as bytes everywhere (utf8mb4_bin), as the agent and the series id do.

CREATE TABLE IF NOT EXISTS spillway_store.series (
  series_id BIGINT UNSIGNED NOT NULL,
  environment VARCHAR(64) NOT NULL,
  host VARCHAR(255) NOT NULL,
  metric VARCHAR(512) NOT NULL,
  labels TEXT NOT NULL,
  kind TINYINT NOT NULL,
  unit VARCHAR(64) NOT NULL DEFAULT '',
  identity BINARY(16) NOT NULL,
  first_seen_ts INT UNSIGNED NOT NULL,
  last_seen_ts INT UNSIGNED NOT NULL,
  PRIMARY KEY (series_id),
  KEY by_metric (environment, metric(191), host(191)),
  KEY by_host (environment, host, metric(191))
) ENGINE=InnoDB ROW_FORMAT=DYNAMIC DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

CREATE TABLE IF NOT EXISTS spillway_store.hosts (
  host_id BIGINT UNSIGNED NOT NULL,
  environment VARCHAR(64) NOT NULL,
  host VARCHAR(255) NOT NULL,
  agent_id BINARY(16) NULL,
  version VARCHAR(64) NOT NULL DEFAULT '',
  first_seen_ts INT UNSIGNED NOT NULL,
  last_seen_ts INT UNSIGNED NOT NULL,
  newest_ts INT UNSIGNED NOT NULL DEFAULT 0,
  clock_skew_ms BIGINT NULL,
  labels TEXT NULL,
  backlog_batches INT UNSIGNED NULL,
  PRIMARY KEY (host_id),
  KEY by_host (environment, host)
) ENGINE=InnoDB ROW_FORMAT=DYNAMIC DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

CREATE TABLE IF NOT EXISTS spillway_store.ledger_epochs (
  agent_id BINARY(16) NOT NULL,
  epoch BINARY(16) NOT NULL,
  environment VARCHAR(64) NOT NULL,
  host VARCHAR(255) NOT NULL,
  partition_id INT UNSIGNED NOT NULL,
  highest_seq BIGINT UNSIGNED NOT NULL DEFAULT 0,
  applied_batches BIGINT UNSIGNED NOT NULL DEFAULT 0,
  applied_points BIGINT UNSIGNED NOT NULL DEFAULT 0,
  expired_points BIGINT UNSIGNED NOT NULL DEFAULT 0,
  duplicate_batches BIGINT UNSIGNED NOT NULL DEFAULT 0,
  declared_batches BIGINT UNSIGNED NOT NULL DEFAULT 0,
  quarantined_batches BIGINT UNSIGNED NOT NULL DEFAULT 0,
  expected_last_seq BIGINT UNSIGNED NULL,
  closed TINYINT NOT NULL DEFAULT 0,
  successor_epoch BINARY(16) NULL,
  successor_at BIGINT NULL,
  first_applied_at BIGINT NOT NULL,
  last_applied_at BIGINT NOT NULL,
  PRIMARY KEY (agent_id, epoch),
  KEY by_host (environment, host),
  KEY by_environment (environment, partition_id),
  KEY by_age (last_applied_at)
) ENGINE=InnoDB ROW_FORMAT=DYNAMIC DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

CREATE TABLE IF NOT EXISTS spillway_store.ledger_ranges (
  agent_id BINARY(16) NOT NULL,
  epoch BINARY(16) NOT NULL,
  first_seq BIGINT UNSIGNED NOT NULL,
  last_seq BIGINT UNSIGNED NOT NULL,
  PRIMARY KEY (agent_id, epoch, first_seq)
) ENGINE=InnoDB ROW_FORMAT=DYNAMIC DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

CREATE TABLE IF NOT EXISTS spillway_store.ledger_gaps (
  agent_id BINARY(16) NOT NULL,
  epoch BINARY(16) NOT NULL,
  first_seq BIGINT UNSIGNED NOT NULL,
  last_seq BIGINT UNSIGNED NOT NULL,
  cause ENUM('missing','declared','quarantined') NOT NULL,
  reason VARCHAR(255) NOT NULL DEFAULT '',
  from_ts INT UNSIGNED NULL,
  to_ts INT UNSIGNED NULL,
  noted_at BIGINT NOT NULL,
  PRIMARY KEY (agent_id, epoch, first_seq)
) ENGINE=InnoDB ROW_FORMAT=DYNAMIC DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

CREATE TABLE IF NOT EXISTS spillway_store.declarations (
  agent_id BINARY(16) NOT NULL,
  epoch BINARY(16) NOT NULL,
  first_seq BIGINT UNSIGNED NOT NULL,
  last_seq BIGINT UNSIGNED NOT NULL,
  reason VARCHAR(255) NOT NULL DEFAULT '',
  declared_at BIGINT NOT NULL,
  PRIMARY KEY (agent_id, epoch, first_seq, last_seq),
  KEY by_age (declared_at)
) ENGINE=InnoDB ROW_FORMAT=DYNAMIC DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

-- agent_id, epoch and seq are NULL where the record was too damaged to name its batch.
CREATE TABLE IF NOT EXISTS spillway_store.quarantined (
  topic VARCHAR(64) NOT NULL,
  partition_id INT UNSIGNED NOT NULL,
  record_offset BIGINT NOT NULL,
  agent_id BINARY(16) NULL,
  epoch BINARY(16) NULL,
  seq BIGINT UNSIGNED NULL,
  environment VARCHAR(64) NULL,
  host VARCHAR(255) NULL,
  reason VARCHAR(255) NOT NULL DEFAULT '',
  points BIGINT UNSIGNED NULL,
  quarantined_at BIGINT NOT NULL,
  PRIMARY KEY (topic, partition_id, record_offset),
  KEY by_batch (agent_id, epoch, seq),
  KEY by_age (quarantined_at)
) ENGINE=InnoDB ROW_FORMAT=DYNAMIC DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

CREATE TABLE IF NOT EXISTS spillway_store.rollup_marks (
  host_id BIGINT UNSIGNED NOT NULL,
  minute_ts INT UNSIGNED NOT NULL,
  version BIGINT UNSIGNED NOT NULL,
  PRIMARY KEY (host_id, minute_ts),
  KEY by_minute (minute_ts)
) ENGINE=InnoDB ROW_FORMAT=DYNAMIC DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

-- Hours whose rollups must be made again from their minutes. Written by the keeper alone, in the
-- transaction that changes a minute.
CREATE TABLE IF NOT EXISTS spillway_store.rollup_hour_marks (
  host_id BIGINT UNSIGNED NOT NULL,
  hour_ts INT UNSIGNED NOT NULL,
  version BIGINT UNSIGNED NOT NULL,
  PRIMARY KEY (host_id, hour_ts),
  KEY by_hour (hour_ts)
) ENGINE=InnoDB ROW_FORMAT=DYNAMIC DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

-- Background duties of the keeper that an operator holds still on this shard; duty '*' is all of
-- them. until_at NULL: until the row is deleted.
CREATE TABLE IF NOT EXISTS spillway_store.keeper_pauses (
  duty VARCHAR(64) NOT NULL,
  reason VARCHAR(255) NOT NULL DEFAULT '',
  owner VARCHAR(64) NOT NULL DEFAULT '',
  set_at BIGINT NOT NULL,
  until_at BIGINT NULL,
  PRIMARY KEY (duty)
) ENGINE=InnoDB ROW_FORMAT=DYNAMIC DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

-- One row (id 1) the keeper writes to learn how long this shard takes to commit.
CREATE TABLE IF NOT EXISTS spillway_store.keeper_probe (
  id TINYINT UNSIGNED NOT NULL,
  probed_at BIGINT NOT NULL,
  PRIMARY KEY (id)
) ENGINE=InnoDB ROW_FORMAT=DYNAMIC DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

-- Seeded only by `spillway topics create`: a row that is missing later is an alarm.
-- `*_next` is the next offset to apply, `*_crc` the crc32c of the value of the record before it.
CREATE TABLE IF NOT EXISTS spillway_store.positions (
  partition_id INT UNSIGNED NOT NULL,
  fence BIGINT UNSIGNED NOT NULL DEFAULT 0,
  live_next BIGINT NOT NULL DEFAULT 0,
  backlog_next BIGINT NOT NULL DEFAULT 0,
  live_crc INT UNSIGNED NULL,
  backlog_crc INT UNSIGNED NULL,
  shard_epoch INT UNSIGNED NOT NULL DEFAULT 1,
  updated_at BIGINT NOT NULL DEFAULT 0,
  PRIMARY KEY (partition_id)
) ENGINE=InnoDB ROW_FORMAT=DYNAMIC DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

-- Written by the keeper alone, so that it grows while the consumer is dead.
CREATE TABLE IF NOT EXISTS spillway_store.lag_measurements (
  topic VARCHAR(64) NOT NULL,
  partition_id INT UNSIGNED NOT NULL,
  next_offset BIGINT NOT NULL,
  end_offset BIGINT NOT NULL,
  lag_records BIGINT NOT NULL,
  lag_s DOUBLE NOT NULL,
  state VARCHAR(16) NOT NULL,
  measured_at BIGINT NOT NULL,
  PRIMARY KEY (topic, partition_id)
) ENGINE=InnoDB ROW_FORMAT=DYNAMIC DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

CREATE TABLE IF NOT EXISTS spillway_store.events (
  id BIGINT UNSIGNED NOT NULL AUTO_INCREMENT,
  time_at BIGINT NOT NULL,
  timeend_at BIGINT NULL,
  environment VARCHAR(64) NULL,
  host VARCHAR(255) NULL,
  kind VARCHAR(64) NOT NULL,
  text TEXT NOT NULL,
  tags TEXT NULL,
  PRIMARY KEY (id),
  KEY by_time (time_at),
  KEY by_environment (environment, time_at)
) ENGINE=InnoDB ROW_FORMAT=DYNAMIC DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

-- One row per MySQL user that may read the views; environment NULL means all of them.
CREATE TABLE IF NOT EXISTS spillway_store.readers (
  name VARCHAR(64) NOT NULL,
  environment VARCHAR(64) NULL,
  statement_limit_s INT UNSIGNED NOT NULL DEFAULT 60,
  created_at BIGINT NOT NULL,
  PRIMARY KEY (name)
) ENGINE=InnoDB ROW_FORMAT=DYNAMIC DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

-- One row (id 1): which shard this server is, so that a wrong address is noticed.
CREATE TABLE IF NOT EXISTS spillway_store.shard_meta (
  id TINYINT UNSIGNED NOT NULL DEFAULT 1,
  shard VARCHAR(64) NOT NULL,
  epoch INT UNSIGNED NOT NULL DEFAULT 1,
  kafka_cluster_id VARCHAR(64) NOT NULL DEFAULT '',
  PRIMARY KEY (id)
) ENGINE=InnoDB ROW_FORMAT=DYNAMIC DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

-- One row (id 1): the ages the view `gaps` judges by. The keeper keeps them as its settings say.
CREATE TABLE IF NOT EXISTS spillway_store.gap_ages (
  id TINYINT UNSIGNED NOT NULL DEFAULT 1,
  longest_life_s INT UNSIGNED NOT NULL,
  silent_after_s INT UNSIGNED NOT NULL,
  PRIMARY KEY (id)
) ENGINE=InnoDB ROW_FORMAT=DYNAMIC DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

-- 24 h in a spool and 72 h in S3; an agent that said nothing for 15 minutes is silent.
INSERT IGNORE INTO spillway_store.gap_ages (id, longest_life_s, silent_after_s)
VALUES (1, 345600, 900);

-- One row (id 1) while an operator holds the lock of `spillway maintenance`; every shard has it, and
-- one that is over counts as none.
CREATE TABLE IF NOT EXISTS spillway_store.maintenance (
  id TINYINT UNSIGNED NOT NULL DEFAULT 1,
  owner VARCHAR(255) NOT NULL,
  reason VARCHAR(255) NOT NULL,
  since_at BIGINT NOT NULL,
  until_at BIGINT NOT NULL,
  PRIMARY KEY (id)
) ENGINE=InnoDB ROW_FORMAT=DYNAMIC DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;
