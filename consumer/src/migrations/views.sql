-- The contract for dashboards: database spillway. Views run with their definer's rights, so readers
-- need nothing on spillway_store; each view shows what `readers` grants the connected user, by the
-- name it logged in with (USER(), not CURRENT_USER(), which would be the definer here).
-- `time` is computed by interval, because FROM_UNIXTIME depends on the session's time zone.
-- Columns are only ever added, and never change their meaning.

-- vals is [[dt_ms, v], …], or [v, …] when sample i lies at i*10000/n ms. On a scalar, '$[0]' is the
-- scalar itself (both servers), so a and b serve both forms.
CREATE OR REPLACE SQL SECURITY DEFINER VIEW spillway.metrics AS
SELECT
  s.environment, s.host, s.metric, s.labels, p.window_ts,
  (p.window_ts * 1000
    + IF(LEFT(p.vals, 2) = '[[', j.a, (j.n - 1) * 10000 DIV COALESCE(p.cnt, 1))) / 1e3 AS ts,
  CAST(TIMESTAMP'1970-01-01 00:00:00' + INTERVAL (p.window_ts * 1000
    + IF(LEFT(p.vals, 2) = '[[', j.a, (j.n - 1) * 10000 DIV COALESCE(p.cnt, 1))) * 1000
    MICROSECOND AS DATETIME(3)) AS `time`,
  IF(LEFT(p.vals, 2) = '[[', j.b, j.a) AS value,
  s.series_id
FROM spillway_store.readers r
STRAIGHT_JOIN spillway_store.series s ON r.environment IS NULL OR s.environment = r.environment
STRAIGHT_JOIN spillway_store.points p ON p.series_id = s.series_id
CROSS JOIN JSON_TABLE(p.vals, '$[*]' COLUMNS (
  n FOR ORDINALITY, a DOUBLE PATH '$[0]', b DOUBLE PATH '$[1]')) j
WHERE r.name = SUBSTRING_INDEX(USER(), '@', 1);

-- A row with one point has no summary: it is read from the text, the last item up to the brackets.
CREATE OR REPLACE SQL SECURITY DEFINER VIEW spillway.metrics_10s AS
SELECT
  s.environment, s.host, s.metric, s.labels, p.window_ts AS ts,
  CAST(TIMESTAMP'1970-01-01 00:00:00' + INTERVAL p.window_ts SECOND AS DATETIME(3)) AS `time`,
  CAST(IF(p.cnt IS NULL, p.vals NOT LIKE '%null%', p.cnt) AS SIGNED) AS cnt,
  IF(p.cnt IS NULL, {one_value}, p.`sum`) AS `sum`,
  IF(p.cnt IS NULL, {one_value}, p.`min`) AS `min`,
  IF(p.cnt IS NULL, {one_value}, p.`max`) AS `max`,
  IF(p.cnt IS NULL, {one_value}, p.`sum` / p.cnt) AS `avg`,
  IF(p.cnt IS NULL, {one_value}, p.`first`) AS `first`,
  IF(p.cnt IS NULL, {one_value}, p.`last`) AS `last`,
  s.series_id
FROM spillway_store.readers r
STRAIGHT_JOIN spillway_store.series s ON r.environment IS NULL OR s.environment = r.environment
STRAIGHT_JOIN spillway_store.points p ON p.series_id = s.series_id
WHERE r.name = SUBSTRING_INDEX(USER(), '@', 1);

-- The keeper's rollups, about a minute behind; an hour is there once it is over.
CREATE OR REPLACE SQL SECURITY DEFINER VIEW spillway.metrics_1m AS
SELECT
  s.environment, s.host, s.metric, s.labels, m.minute_ts AS ts, {time_of_s:m.minute_ts} AS `time`,
  CAST(m.cnt AS SIGNED) AS cnt, m.`sum`, m.`min`, m.`max`, m.`sum` / NULLIF(m.cnt, 0) AS `avg`,
  m.`first`, m.`last`, s.series_id, m.increase
FROM spillway_store.readers r
STRAIGHT_JOIN spillway_store.series s ON r.environment IS NULL OR s.environment = r.environment
STRAIGHT_JOIN spillway_store.rollup_1m m ON m.series_id = s.series_id
WHERE r.name = SUBSTRING_INDEX(USER(), '@', 1);

CREATE OR REPLACE SQL SECURITY DEFINER VIEW spillway.metrics_1h AS
SELECT
  s.environment, s.host, s.metric, s.labels, m.hour_ts AS ts, {time_of_s:m.hour_ts} AS `time`,
  CAST(m.cnt AS SIGNED) AS cnt, m.`sum`, m.`min`, m.`max`, m.`sum` / NULLIF(m.cnt, 0) AS `avg`,
  m.`first`, m.`last`, s.series_id, m.increase
FROM spillway_store.readers r
STRAIGHT_JOIN spillway_store.series s ON r.environment IS NULL OR s.environment = r.environment
STRAIGHT_JOIN spillway_store.rollup_1h m ON m.series_id = s.series_id
WHERE r.name = SUBSTRING_INDEX(USER(), '@', 1);

CREATE OR REPLACE SQL SECURITY DEFINER VIEW spillway.hosts AS
SELECT
  h.environment, h.host, {uuid:h.agent_id} AS agent_id, h.version,
  {time_of_s:h.first_seen_ts} AS first_seen, {time_of_s:h.last_seen_ts} AS last_seen,
  h.clock_skew_ms, h.labels, h.first_seen_ts, h.last_seen_ts
FROM spillway_store.readers r
JOIN spillway_store.hosts h ON r.environment IS NULL OR h.environment = r.environment
WHERE r.name = SUBSTRING_INDEX(USER(), '@', 1);

CREATE OR REPLACE SQL SECURITY DEFINER VIEW spillway.series AS
SELECT
  s.environment, s.host, s.metric, s.labels,
  ELT(s.kind, 'gauge', 'delta', 'cumulative') AS kind, s.unit,
  {time_of_s:s.first_seen_ts} AS first_seen, {time_of_s:s.last_seen_ts} AS last_seen,
  s.series_id, s.first_seen_ts, s.last_seen_ts
FROM spillway_store.readers r
JOIN spillway_store.series s ON r.environment IS NULL OR s.environment = r.environment
WHERE r.name = SUBSTRING_INDEX(USER(), '@', 1);

-- A host has a row from its first batch on, also where all its points were expired or refused: of
-- those the table has 0, and neither a time nor an age is known.
CREATE OR REPLACE SQL SECURITY DEFINER VIEW spillway.freshness AS
SELECT
  h.environment, h.host, NULLIF(h.newest_ts, 0) AS newest_ts,
  GREATEST(CAST(UNIX_TIMESTAMP() AS SIGNED) - CAST(NULLIF(h.newest_ts, 0) AS SIGNED), 0) AS age_s,
  h.backlog_batches
FROM spillway_store.readers r
JOIN spillway_store.hosts h ON r.environment IS NULL OR h.environment = r.environment
WHERE r.name = SUBSTRING_INDEX(USER(), '@', 1);

-- `missing` is late until the epoch's last seq is known (from its successor or its own closing
-- record) and the longest life of a batch in spool and S3 has passed since then. An epoch that fell
-- silent without either has a tail of unknown length: last_seq is NULL, and it reaches until now.
-- A gap's times are the windows beside it. Where the one before is not known, as many windows as
-- there are batches are taken for it; where that says nothing either, times of arrival stand in, and
-- may lie the wrong way round.
CREATE OR REPLACE SQL SECURITY DEFINER VIEW spillway.gaps AS
SELECT
  e.environment, e.host, {uuid:g.agent_id} AS agent_id, {uuid:g.epoch} AS epoch,
  g.first_seq, g.last_seq,
  LEAST({gap_begins}, {gap_ends}) AS from_ts, GREATEST({gap_begins}, {gap_ends}) AS to_ts,
  CASE
    WHEN g.cause = 'declared' THEN 'declared'
    WHEN g.cause = 'quarantined' THEN 'quarantined'
    WHEN e.expected_last_seq IS NOT NULL AND UNIX_TIMESTAMP() > a.longest_life_s + GREATEST(
      COALESCE(e.successor_at, e.last_applied_at) DIV 1000, COALESCE(g.to_ts, 0)) THEN 'lost'
    ELSE 'late'
  END AS state,
  g.reason
FROM spillway_store.readers r
JOIN spillway_store.gap_ages a ON a.id = 1
JOIN spillway_store.ledger_epochs e ON r.environment IS NULL OR e.environment = r.environment
JOIN spillway_store.ledger_gaps g ON g.agent_id = e.agent_id AND g.epoch = e.epoch
WHERE r.name = SUBSTRING_INDEX(USER(), '@', 1)
UNION ALL
SELECT
  e.environment, e.host, {uuid:e.agent_id}, {uuid:e.epoch},
  e.highest_seq + 1, CAST(NULL AS UNSIGNED),
  CAST(e.last_applied_at DIV 1000 AS SIGNED), CAST(UNIX_TIMESTAMP() AS SIGNED),
  'unknown_tail', 'silent without a closing record'
FROM spillway_store.readers r
JOIN spillway_store.gap_ages a ON a.id = 1
JOIN spillway_store.ledger_epochs e ON r.environment IS NULL OR e.environment = r.environment
WHERE r.name = SUBSTRING_INDEX(USER(), '@', 1)
  AND e.closed = 0 AND e.successor_epoch IS NULL AND e.expected_last_seq IS NULL
  AND e.epoch <> x'00000000000000000000000000000000'
  AND e.last_applied_at DIV 1000 + a.silent_after_s < UNIX_TIMESTAMP();

-- A reader of one environment sees the partitions that carried its batches. Of a lag that nobody
-- measures, or nobody can tell (a partition without a position), only the last offsets and their
-- time are known.
CREATE OR REPLACE SQL SECURITY DEFINER VIEW spillway.consumer_lag AS
SELECT
  l.topic, l.partition_id AS `partition`, COALESCE(m.shard, '') AS shard,
  l.next_offset, l.end_offset,
  IF({is_of_now:l.measured_at} AND l.state <> 'UNKNOWN', l.lag_records, NULL) AS lag_records,
  IF({is_of_now:l.measured_at} AND l.state <> 'UNKNOWN', l.lag_s, NULL) AS lag_s,
  IF({is_of_now:l.measured_at}, l.state, 'UNKNOWN') AS state,
  {time_of_ms:l.measured_at} AS measured_at
FROM spillway_store.readers r
CROSS JOIN spillway_store.lag_measurements l
LEFT JOIN spillway_store.shard_meta m ON m.id = 1
WHERE r.name = SUBSTRING_INDEX(USER(), '@', 1)
  AND (r.environment IS NULL OR EXISTS (
    SELECT 1 FROM spillway_store.ledger_epochs e
    WHERE e.environment = r.environment AND e.partition_id = l.partition_id));

CREATE OR REPLACE SQL SECURITY DEFINER VIEW spillway.events AS
SELECT
  {time_of_ms:v.time_at} AS `time`, {time_of_ms:v.timeend_at} AS timeend,
  v.environment, v.host, v.kind, v.text, v.tags
FROM spillway_store.readers r
JOIN spillway_store.events v ON r.environment IS NULL OR v.environment = r.environment
WHERE r.name = SUBSTRING_INDEX(USER(), '@', 1);

CREATE OR REPLACE SQL SECURITY DEFINER VIEW spillway.ledger_totals AS
SELECT
  e.environment, e.host, {uuid:e.agent_id} AS agent_id, {uuid:e.epoch} AS epoch,
  e.highest_seq, e.applied_batches, e.applied_points, e.duplicate_batches,
  e.declared_batches, e.quarantined_batches,
  GREATEST(CAST(GREATEST(e.highest_seq, COALESCE(e.expected_last_seq, 0)) AS SIGNED)
    - CAST(e.applied_batches AS SIGNED) - CAST(e.declared_batches AS SIGNED)
    - CAST(e.quarantined_batches AS SIGNED), 0) AS missing_batches,
  e.expired_points, e.closed
FROM spillway_store.readers r
JOIN spillway_store.ledger_epochs e ON r.environment IS NULL OR e.environment = r.environment
WHERE r.name = SUBSTRING_INDEX(USER(), '@', 1);

-- For drop-down lists: environments, hosts, metrics, and every label by its own name.
CREATE OR REPLACE SQL SECURITY DEFINER VIEW spillway.dimensions AS
SELECT DISTINCT h.environment, 'environment' AS name, h.environment AS value
FROM spillway_store.readers r
JOIN spillway_store.hosts h ON r.environment IS NULL OR h.environment = r.environment
WHERE r.name = SUBSTRING_INDEX(USER(), '@', 1)
UNION ALL
SELECT h.environment, 'host', h.host
FROM spillway_store.readers r
JOIN spillway_store.hosts h ON r.environment IS NULL OR h.environment = r.environment
WHERE r.name = SUBSTRING_INDEX(USER(), '@', 1)
UNION ALL
SELECT DISTINCT s.environment, 'metric', s.metric
FROM spillway_store.readers r
JOIN spillway_store.series s ON r.environment IS NULL OR s.environment = r.environment
WHERE r.name = SUBSTRING_INDEX(USER(), '@', 1)
UNION ALL
SELECT DISTINCT s.environment, k.name,
  JSON_UNQUOTE(JSON_EXTRACT(s.labels, CONCAT('$.', JSON_QUOTE(k.name))))
FROM spillway_store.readers r
JOIN spillway_store.series s ON r.environment IS NULL OR s.environment = r.environment
CROSS JOIN JSON_TABLE(JSON_KEYS(s.labels), '$[*]' COLUMNS (
  name VARCHAR(255) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin PATH '$')) k
WHERE r.name = SUBSTRING_INDEX(USER(), '@', 1);
