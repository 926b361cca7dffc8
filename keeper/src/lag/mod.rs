//! Lag, measured apart from the consumer, so that it grows while the consumer is dead: where Kafka
//! ends, where the shard's own `positions` stand, and how old the first record between the two is.
//! The positions are read first: whatever is appended meanwhile only adds to the lag.
//!
//! What is measured is what the shard should have by shards.toml. A partition without a position is
//! held by every consumer, so its lag is no nought: it is what nobody is known to have applied.

pub mod state;

use std::collections::HashMap;
use std::fmt::Write as _;
use std::time::{Duration, Instant};

use spillway_proto::kafka_record::Lane;
use spillway_runtime::mysql::Session;
use thiserror::Error;

use crate::duty::Duty;
use crate::kafka::{AskError, Kafka, Place};
use crate::metrics::{Metrics, OfTopic};
use crate::settings::LagSettings;
use crate::shard::{ShardError, ShardHandle, answer, execute};

pub use state::{Measured, State, Track};

/// Partitions without a position that are named in `/deepz` and the log.
const NAMED_MAX: usize = 8;

/// An older measurement says nothing of now. The view `consumer_lag` has the same
/// limit (`is_of_now` in spillway-consumer's migrations).
const KNOWN_FOR: Duration = Duration::from_secs(60);

/// Why lag was not measured this time.
#[derive(Debug, Error)]
pub enum LagError {
    #[error(transparent)]
    Kafka(#[from] AskError),
    #[error("MySQL: {0}")]
    Shard(#[from] ShardError),
    #[error("no positions on this shard: `spillway topics create` seeds them")]
    NoPositions,
}

/// Measures one shard's lag.
pub struct Lag {
    shard: ShardHandle,
    kafka: Kafka,
    settings: LagSettings,
    metrics: Metrics,
    tracks: HashMap<Place, Track>,
    /// The partitions that had no position in the last measurement.
    unplaced: Vec<u16>,
    /// When it last succeeded; when it was made, before that.
    measured_at: Instant,
}

impl Lag {
    #[must_use]
    pub fn new(
        shard: ShardHandle,
        kafka: Kafka,
        settings: &LagSettings,
        metrics: &Metrics,
    ) -> Self {
        let (settings, metrics) = (settings.clone(), metrics.clone());
        Self {
            shard,
            kafka,
            settings,
            metrics,
            tracks: HashMap::new(),
            unplaced: Vec::new(),
            measured_at: Instant::now(),
        }
    }

    /// One measurement of all partitions, written to `lag_measurements`.
    pub async fn measure(&mut self) -> Result<Vec<(Place, Measured)>, LagError> {
        let places = places(&self.shard);
        if places.is_empty() {
            return Ok(Vec::new());
        }
        let mut session = self.shard.session().await?;
        let positions = rows(&mut session, &self.shard).await?;
        // Asking Kafka may take seconds; no connection waits for it.
        session.give_back();
        let ends = self.kafka.ends(&places).await?;
        let unplaced: Vec<Place> =
            places.iter().filter(|place| !positions.contains_key(place)).copied().collect();
        let begins = self.begins(&unplaced, &ends).await?;
        let now_ms = jiff::Timestamp::now().as_millisecond();
        let mut unknown = Vec::new();
        for place in &places {
            let Some(end) = ends.get(place) else { continue };
            let track = self.tracks.entry(*place).or_default();
            match (positions.get(place), begins.get(place)) {
                (Some(next), _) => track.moved(*next, *end, now_ms),
                (None, Some(begin)) => track.unplaced(*begin, *end, now_ms),
                (None, None) => continue,
            }
            if track.wants_time() {
                unknown.push((*place, track.next()));
            }
        }
        for (place, appended_ms) in self.kafka.times(unknown).await? {
            self.tracks.entry(place).or_default().appended(appended_ms);
        }
        let measured = |place: &Place| {
            ends.get(place)?;
            Some((*place, self.tracks.get(place)?.measured(&self.settings, now_ms)))
        };
        let measured: Vec<(Place, Measured)> = places.iter().filter_map(measured).collect();
        self.write(&measured, now_ms).await?;
        self.tell(&measured);
        self.unplaced = unplaced.iter().map(|place| place.partition).collect();
        self.unplaced.dedup();
        Ok(measured)
    }

    /// From where on nothing is known as applied, for partitions without a position: what was last
    /// seen of one, or what the consumers' group committed (only ever after it was stored), or
    /// else the log's begin.
    async fn begins(
        &self,
        unplaced: &[Place],
        ends: &HashMap<Place, i64>,
    ) -> Result<HashMap<Place, i64>, LagError> {
        if unplaced.is_empty() {
            return Ok(HashMap::new());
        }
        let lows = self.kafka.lows(unplaced).await?;
        let committed = match self.kafka.committed(unplaced).await {
            Ok(committed) => committed,
            Err(error) => {
                tracing::debug!(%error, "what the consumers' group committed is not known");
                HashMap::new()
            }
        };
        let begin = |place: &Place| {
            let (low, end) = (*lows.get(place)?, *ends.get(place)?);
            let seen = self.tracks.get(place).map(Track::next);
            // What lies beyond the end is of another log, and says nothing of this one.
            let known = [seen, committed.get(place).copied()].into_iter().flatten();
            Some((*place, known.filter(|at| *at <= end).fold(low, i64::max)))
        };
        Ok(unplaced.iter().filter_map(begin).collect())
    }

    /// Takes the series away that nobody measures: one that stays as it was says that all is well.
    fn forget_old(&self) {
        if self.measured_at.elapsed() < KNOWN_FOR {
            return;
        }
        for lane in Lane::ALL {
            let label = OfTopic { topic: lane.topic(), shard: self.shard.name.clone() };
            self.metrics.lag_records.remove(&label);
            self.metrics.lag_seconds.remove(&label);
            self.metrics.partitions_stopped.remove(&label);
            self.metrics.partitions_unknown.remove(&label);
        }
    }

    async fn write(&self, measured: &[(Place, Measured)], now_ms: i64) -> Result<(), LagError> {
        let mut sql = String::from(
            "REPLACE INTO lag_measurements (topic, partition_id, next_offset, end_offset, \
             lag_records, lag_s, state, measured_at) VALUES ",
        );
        for (index, (place, lag)) in measured.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            let Place { topic, partition } = place;
            let Measured { next, end, records, seconds, state, .. } = lag;
            // Writing to a String can't fail.
            write!(
                sql,
                "{comma}('{topic}',{partition},{next},{end},{records},{seconds:.3},'{state}',\
                 {now_ms})"
            )
            .unwrap_or_default();
        }
        if !measured.is_empty() {
            let mut session = self.shard.session().await?;
            execute(&mut session, &sql).await?;
            session.give_back();
        }
        Ok(())
    }

    fn tell(&self, measured: &[(Place, Measured)]) {
        for lane in Lane::ALL {
            let topic = lane.topic();
            let label = OfTopic { topic, shard: self.shard.name.clone() };
            let of_topic = || measured.iter().filter(|(place, _)| place.topic == topic);
            let records = of_topic().map(|(_, lag)| lag.records).sum();
            let seconds = of_topic().map(|(_, lag)| lag.seconds).fold(0.0, f64::max);
            let unmoved = of_topic().filter(|(_, lag)| lag.state.is_unmoved()).count();
            let unknown = of_topic().filter(|(_, lag)| !lag.placed).count();
            self.metrics.lag_records.get_or_create(&label).set(records);
            self.metrics.lag_seconds.get_or_create(&label).set(seconds);
            let count = |found| i64::try_from(found).unwrap_or(i64::MAX);
            self.metrics.partitions_stopped.get_or_create(&label).set(count(unmoved));
            self.metrics.partitions_unknown.get_or_create(&label).set(count(unknown));
        }
    }
}

impl Duty for Lag {
    const NAME: &'static str = "lag";
    type Error = LagError;

    fn interval(&self) -> Duration {
        self.settings.interval.get()
    }

    fn deadline(&self) -> Duration {
        Duration::from_secs(30)
    }

    async fn round(&mut self) -> Result<(), LagError> {
        self.forget_old();
        self.measure().await?;
        self.measured_at = Instant::now();
        Ok(())
    }

    fn trouble(&self) -> Option<String> {
        if self.unplaced.is_empty() {
            return None;
        }
        let named: Vec<String> =
            self.unplaced.iter().take(NAMED_MAX).map(ToString::to_string).collect();
        let others = match self.unplaced.len().saturating_sub(NAMED_MAX) {
            0 => String::new(),
            others => format!(" and {others} others"),
        };
        let named = named.join(", ");
        Some(format!("no position of partition {named}{others}: see `spillway topics check`"))
    }
}

/// Both topics' partitions that the shard should have.
fn places(shard: &ShardHandle) -> Vec<Place> {
    let both = |partition: &u16| {
        Lane::ALL.map(|lane| Place { topic: lane.topic(), partition: *partition })
    };
    shard.partitions.iter().flat_map(both).collect()
}

/// The next offsets to apply, of both topics and every partition the shard owns.
pub async fn positions(
    session: &mut Session,
    shard: &ShardHandle,
) -> Result<HashMap<Place, i64>, LagError> {
    let positions = rows(session, shard).await?;
    if positions.is_empty() { Err(LagError::NoPositions) } else { Ok(positions) }
}

/// As [`positions`], for a shard that may have none.
async fn rows(
    session: &mut Session,
    shard: &ShardHandle,
) -> Result<HashMap<Place, i64>, ShardError> {
    let sql = "SELECT partition_id, live_next, backlog_next FROM positions ORDER BY partition_id";
    let query = sqlx::query_as::<_, (u32, i64, i64)>(sql).fetch_all(&mut **session);
    let mut positions = HashMap::new();
    for (partition, live, backlog) in answer(query).await? {
        let Ok(partition) = u16::try_from(partition) else { continue };
        if shard.partitions.contains(&partition) {
            positions.insert(Place { topic: Lane::Live.topic(), partition }, live);
            positions.insert(Place { topic: Lane::Backlog.topic(), partition }, backlog);
        }
    }
    Ok(positions)
}

#[cfg(test)]
mod tests {
    use spillway_publisher::KafkaSettings;
    use sqlx::mysql::MySqlPool;

    use super::*;

    #[tokio::test]
    async fn a_lag_that_nobody_measures_any_more_has_no_series() {
        let pool = MySqlPool::connect_lazy("mysql://127.0.0.2:1").expect("an address");
        let shard = ShardHandle::new("s0", vec![0], pool);
        let (kafka, _thread) = Kafka::start(&KafkaSettings::default()).expect("a client");
        let metrics = Metrics::default();
        let mut lag = Lag::new(shard, kafka, &LagSettings::default(), &metrics);
        let topic = Lane::Live.topic();
        let measured =
            Measured { placed: true, next: 5, end: 5, records: 0, seconds: 0.0, state: State::Ok };
        lag.tell(&[(Place { topic, partition: 0 }, measured)]);
        let label = OfTopic { topic, shard: "s0".to_owned() };
        let series = || {
            [
                metrics.lag_seconds.get(&label).is_some(),
                metrics.lag_records.get(&label).is_some(),
                metrics.partitions_stopped.get(&label).is_some(),
                metrics.partitions_unknown.get(&label).is_some(),
            ]
        };
        lag.round().await.expect_err("nothing can be asked");
        assert_eq!(series(), [true; 4], "measured just now");
        lag.measured_at = lag.measured_at.checked_sub(KNOWN_FOR).expect("a minute ago");
        lag.round().await.expect_err("nothing can be asked");
        assert_eq!(series(), [false; 4]);
    }
}
