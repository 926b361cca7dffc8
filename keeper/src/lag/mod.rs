//! Lag, measured apart from the consumer, so that it grows while the consumer is dead: where Kafka
//! ends, where the shard's own `positions` stand, and how old the first record between the two is.
//! The positions are read first: whatever is appended meanwhile only adds to the lag.

mod state;

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
            measured_at: Instant::now(),
        }
    }

    /// One measurement of all partitions, written to `lag_measurements`.
    pub async fn measure(&mut self) -> Result<Vec<(Place, Measured)>, LagError> {
        let mut session = self.shard.session().await?;
        let positions = positions(&mut session, &self.shard).await?;
        // Asking Kafka may take seconds; no connection waits for it.
        session.give_back();
        let places: Vec<Place> = positions.iter().map(|(place, _)| *place).collect();
        let ends = self.kafka.ends(&places).await?;
        let now_ms = jiff::Timestamp::now().as_millisecond();
        let mut unknown = Vec::new();
        for (place, next) in &positions {
            let Some(end) = ends.get(place) else { continue };
            let track = self.tracks.entry(*place).or_default();
            track.moved(*next, *end, now_ms);
            if track.wants_time() {
                unknown.push((*place, *next));
            }
        }
        for (place, appended_ms) in self.kafka.times(unknown).await? {
            self.tracks.entry(place).or_default().appended(appended_ms);
        }
        let measured = |(place, _): &(Place, i64)| {
            ends.get(place)?;
            Some((*place, self.tracks.get(place)?.measured(&self.settings, now_ms)))
        };
        let measured: Vec<(Place, Measured)> = positions.iter().filter_map(measured).collect();
        self.write(&measured, now_ms).await?;
        self.tell(&measured);
        Ok(measured)
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
            let Measured { next, end, records, seconds, state } = lag;
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
            self.metrics.lag_records.get_or_create(&label).set(records);
            self.metrics.lag_seconds.get_or_create(&label).set(seconds);
            let unmoved = i64::try_from(unmoved).unwrap_or(i64::MAX);
            self.metrics.partitions_stopped.get_or_create(&label).set(unmoved);
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
}

/// The next offsets to apply, of both topics and every partition the shard owns.
pub async fn positions(
    session: &mut Session,
    shard: &ShardHandle,
) -> Result<Vec<(Place, i64)>, LagError> {
    let sql = "SELECT partition_id, live_next, backlog_next FROM positions ORDER BY partition_id";
    let query = sqlx::query_as::<_, (u32, i64, i64)>(sql).fetch_all(&mut **session);
    let mut positions = Vec::new();
    for (partition, live, backlog) in answer(query).await? {
        let Ok(partition) = u16::try_from(partition) else { continue };
        if shard.partitions.contains(&partition) {
            positions.push((Place { topic: Lane::Live.topic(), partition }, live));
            positions.push((Place { topic: Lane::Backlog.topic(), partition }, backlog));
        }
    }
    if positions.is_empty() { Err(LagError::NoPositions) } else { Ok(positions) }
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
        let measured = Measured { next: 5, end: 5, records: 0, seconds: 0.0, state: State::Ok };
        lag.tell(&[(Place { topic, partition: 0 }, measured)]);
        let label = OfTopic { topic, shard: "s0".to_owned() };
        let series = || {
            [
                metrics.lag_seconds.get(&label).is_some(),
                metrics.lag_records.get(&label).is_some(),
                metrics.partitions_stopped.get(&label).is_some(),
            ]
        };
        lag.round().await.expect_err("nothing can be asked");
        assert_eq!(series(), [true; 3], "measured just now");
        lag.measured_at = lag.measured_at.checked_sub(KNOWN_FOR).expect("a minute ago");
        lag.round().await.expect_err("nothing can be asked");
        assert_eq!(series(), [false; 3]);
    }
}
