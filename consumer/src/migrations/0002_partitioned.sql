-- The partitioned tables. The runner puts the first partitions in place of the marks; the
-- keeper makes the later ones. A partition's name is `p` and the second at which it ends. There is
-- no MAXVALUE partition: a row without a home must fail, never land in a wrong one.

CREATE TABLE IF NOT EXISTS spillway_store.points (
  series_id BIGINT UNSIGNED NOT NULL,
  window_ts INT UNSIGNED NOT NULL,
  cnt INT UNSIGNED NULL,
  `sum` DOUBLE NULL,
  `min` DOUBLE NULL,
  `max` DOUBLE NULL,
  `first` DOUBLE NULL,
  `last` DOUBLE NULL,
  vals MEDIUMTEXT CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
  PRIMARY KEY (series_id, window_ts)
) ENGINE=InnoDB ROW_FORMAT=DYNAMIC DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin
PARTITION BY RANGE (window_ts) (
  {points_partitions}
);

-- topic: 0 live, 1 backlog. Batches with a content id: agent_id is the hash, epoch and seq zero.
CREATE TABLE IF NOT EXISTS spillway_store.audit (
  agent_id BINARY(16) NOT NULL,
  epoch BINARY(16) NOT NULL,
  seq BIGINT UNSIGNED NOT NULL,
  applied_ts INT UNSIGNED NOT NULL,
  applied_at BIGINT NOT NULL,
  crc INT UNSIGNED NOT NULL,
  points INT UNSIGNED NOT NULL,
  window_ts INT UNSIGNED NOT NULL,
  topic TINYINT UNSIGNED NOT NULL,
  partition_id INT UNSIGNED NOT NULL,
  record_offset BIGINT NOT NULL,
  PRIMARY KEY (agent_id, epoch, seq, applied_ts)
) ENGINE=InnoDB ROW_FORMAT=DYNAMIC DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin
PARTITION BY RANGE (applied_ts) (
  {audit_partitions}
);

-- What the keeper makes of `points`, per minute. Sums and counts, never averages. `growth` is how
-- far a cumulative series rose between the minute's own samples; `increase` adds the step from the
-- last sample before it. Both are NULL for other kinds.
CREATE TABLE IF NOT EXISTS spillway_store.rollup_1m (
  series_id BIGINT UNSIGNED NOT NULL,
  minute_ts INT UNSIGNED NOT NULL,
  cnt INT UNSIGNED NOT NULL,
  `sum` DOUBLE NULL,
  `min` DOUBLE NULL,
  `max` DOUBLE NULL,
  `first` DOUBLE NULL,
  `last` DOUBLE NULL,
  growth DOUBLE NULL,
  increase DOUBLE NULL,
  PRIMARY KEY (series_id, minute_ts)
) ENGINE=InnoDB ROW_FORMAT=DYNAMIC DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin
PARTITION BY RANGE (minute_ts) (
  {minute_partitions}
);

-- And per hour, from rollup_1m.
CREATE TABLE IF NOT EXISTS spillway_store.rollup_1h (
  series_id BIGINT UNSIGNED NOT NULL,
  hour_ts INT UNSIGNED NOT NULL,
  cnt INT UNSIGNED NOT NULL,
  `sum` DOUBLE NULL,
  `min` DOUBLE NULL,
  `max` DOUBLE NULL,
  `first` DOUBLE NULL,
  `last` DOUBLE NULL,
  increase DOUBLE NULL,
  PRIMARY KEY (series_id, hour_ts)
) ENGINE=InnoDB ROW_FORMAT=DYNAMIC DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin
PARTITION BY RANGE (hour_ts) (
  {hour_partitions}
);
