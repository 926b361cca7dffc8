//! `spillway lag`: how far the consumer is behind, looked at without it.
//!
//! The positions come from MySQL and the ends from Kafka, now; a partition that is behind is as old
//! as the record it stands at. So the answer grows while the consumer is dead. With a shard's MySQL
//! down its partitions are `unknown`, their lag is what the consumers' group last noted in Kafka,
//! and the others are told all the same.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value as Json;
use spillway_proto::kafka_record::Lane;
use spillway_runtime::program::chain;
use spillway_runtime::shards::{Shard, ShardMap};

use super::positions::{self, Position};
use crate::answer::{Answer, Verdict};
use crate::cli::Lag;
use crate::desk::Desk;
use crate::failure::Failure;
use crate::reach::kafka::AllEnds;
use crate::reach::mysql::Server;

/// Below this a partition is simply in work.
const LAGGING_AFTER_S: f64 = 15.0;
/// A lagging partition whose position has not moved for this long is stopped.
const STOPPED_AFTER_MS: i64 = 60_000;
/// How often `--watch` looks.
const WATCH_EVERY: Duration = Duration::from_secs(2);
/// Partitions whose oldest record is read to know its age.
const AGED_MAX: usize = 256;

/// In Burrow's sense: is it keeping up, and if not, does it move?
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    Ok,
    /// Behind, and moving.
    Lagging,
    /// Behind, and its position does not move.
    Stopped,
    /// MySQL does not tell the position.
    Unknown,
}

impl State {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Lagging => "lagging",
            Self::Stopped => "stopped",
            Self::Unknown => "unknown",
        }
    }

    pub fn verdict(self) -> Verdict {
        match self {
            Self::Ok => Verdict::Ok,
            Self::Lagging => Verdict::Warning,
            Self::Stopped | Self::Unknown => Verdict::Critical,
        }
    }
}

/// One lane of one partition.
#[derive(Debug, Clone, PartialEq)]
pub struct Place {
    pub lane: Lane,
    pub partition: u16,
    pub shard: String,
    pub next: Option<i64>,
    pub end: i64,
    pub lag_s: Option<f64>,
    pub state: State,
    /// When MySQL's position moved last; `None` where MySQL did not tell.
    updated_at: Option<i64>,
}

impl Place {
    pub fn records(&self) -> Option<i64> {
        self.next.map(|next| (self.end - next).max(0))
    }
}

/// Everything once, and what could not be asked.
#[derive(Debug, Clone, Default)]
pub struct Look {
    pub places: Vec<Place>,
    pub troubles: Vec<String>,
}

/// Looks at Kafka and every shard.
pub async fn measure(desk: &Desk, map: &ShardMap) -> Result<Look, Failure> {
    let kafka = desk.kafka()?;
    let ends = kafka.ends(Lane::ALL.to_vec(), map.partitions).await?;
    let mut look = Look::default();
    for shard in &map.shards {
        let rows = read_positions(desk, shard).await.unwrap_or_else(|trouble| {
            look.troubles.push(trouble);
            Vec::new()
        });
        look.places.extend(places(map, shard, &rows, &ends));
    }
    if !look.troubles.is_empty() {
        let noted = kafka.noted(map.partitions).await?;
        for place in look.places.iter_mut().filter(|place| place.next.is_none()) {
            place.next = noted.get(&(place.lane, place.partition)).copied();
        }
    }
    let behind = |place: &&Place| place.records().is_some_and(|records| records > 0);
    let wanted = look.places.iter().filter(behind).take(AGED_MAX);
    let wanted: Vec<_> =
        wanted.filter_map(|p| p.next.map(|next| (p.lane, p.partition, next))).collect();
    let times = match wanted.is_empty() {
        true => BTreeMap::new(),
        false => kafka.append_times(wanted).await?,
    };
    let now = jiff::Timestamp::now().as_millisecond();
    for place in &mut look.places {
        judge(place, times.get(&(place.lane, place.partition)).copied(), now);
    }
    Ok(look)
}

async fn read_positions(desk: &Desk, shard: &Shard) -> Result<Vec<Position>, String> {
    let mut server = Server::connect(&desk.settings, shard).await.map_err(|e| chain(&e))?;
    let known = positions::read(&mut server).await.map_err(|e| chain(&e))?;
    Ok(known.rows)
}

fn places(map: &ShardMap, shard: &Shard, rows: &[Position], ends: &AllEnds) -> Vec<Place> {
    let mut places = Vec::new();
    for partition in map.partitions_of(shard) {
        let row = rows.iter().find(|row| row.partition == partition);
        for lane in Lane::ALL {
            places.push(Place {
                lane,
                partition,
                shard: shard.name.clone(),
                next: row.map(|row| row.next(lane)),
                end: ends.get(&(lane, partition)).map_or(0, |ends| ends.high),
                lag_s: None,
                state: State::Unknown,
                updated_at: row.map(|row| row.updated_at),
            });
        }
    }
    places
}

/// `appended`: when the record was appended at which the partition stands, if it was read.
fn judge(place: &mut Place, appended: Option<i64>, now: i64) {
    let Some(records) = place.records() else { return };
    if place.updated_at.is_none() {
        // Only noted by the consumers' group: how far behind it was then, at least.
        place.lag_s = appended.map(|at| (now - at).max(0) as f64 / 1e3);
        return;
    }
    if records == 0 {
        (place.lag_s, place.state) = (Some(0.0), State::Ok);
        return;
    }
    let lag_s = appended.map(|at| (now - at).max(0) as f64 / 1e3);
    place.lag_s = lag_s;
    let behind = lag_s.is_none_or(|lag| lag > LAGGING_AFTER_S);
    place.state = match (behind, place.updated_at.is_none_or(|at| now - at > STOPPED_AFTER_MS)) {
        (false, _) => State::Ok,
        (true, false) => State::Lagging,
        (true, true) => State::Stopped,
    };
}

/// One look, as an answer.
pub async fn look(desk: &Desk, options: &Lag) -> Result<Answer, Failure> {
    let map = desk.shards()?;
    let look = measure(desk, &map).await?;
    Ok(answer(&look, options.partitions))
}

fn answer(look: &Look, every_partition: bool) -> Answer {
    let mut answer = Answer::default();
    let mut sums: BTreeMap<(&str, Lane), (i64, f64, State)> = BTreeMap::new();
    for place in &look.places {
        let sum = sums.entry((&place.shard, place.lane)).or_insert((0, 0.0, State::Ok));
        sum.0 += place.records().unwrap_or(0);
        sum.1 = sum.1.max(place.lag_s.unwrap_or(0.0));
        sum.2 = sum.2.max(place.state);
        answer.worsen(place.state.verdict());
    }
    let columns = ["shard", "topic", "lag_records", "lag_s", "state"];
    let section = answer.section("shards", &columns);
    for ((shard, lane), (records, lag_s, state)) in sums {
        section.row([
            shard.into(),
            lane.topic().into(),
            records.into(),
            lag_s.into(),
            state.as_str().into(),
        ]);
    }
    let waiting =
        |place: &Place| place.records().is_none_or(|records| records > 0) && place.end > 0;
    let shown = |place: &&Place| every_partition || (place.state != State::Ok && waiting(place));
    let rows: Vec<_> = look.places.iter().filter(shown).map(row).collect();
    if every_partition || !rows.is_empty() {
        let columns = [
            "shard",
            "topic",
            "partition",
            "next_offset",
            "end_offset",
            "lag_records",
            "lag_s",
            "state",
        ];
        answer.section("partitions", &columns).rows = rows;
    }
    for trouble in &look.troubles {
        answer.trouble(Verdict::Critical, trouble.clone());
    }
    answer
}

fn row(place: &Place) -> Vec<Json> {
    vec![
        place.shard.clone().into(),
        place.lane.topic().into(),
        place.partition.into(),
        place.next.into(),
        place.end.into(),
        place.records().into(),
        place.lag_s.into(),
        place.state.as_str().into(),
    ]
}

/// Looks again and again until interrupted; a look that fails is told and tried again.
pub async fn watch(desk: &Desk, options: &Lag) -> Result<Answer, Failure> {
    loop {
        match look(desk, options).await {
            Ok(answer) => {
                println!("{}", jiff::Timestamp::now().strftime("%H:%M:%S"));
                crate::app::show(desk, &answer);
            }
            Err(failure) => eprintln!("spillway: {}", failure.sentence()),
        }
        tokio::select! {
            interrupted = tokio::signal::ctrl_c() => {
                interrupted?;
                return Ok(Answer::default());
            }
            () = tokio::time::sleep(WATCH_EVERY) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(next: Option<i64>, end: i64, updated_at: i64) -> Place {
        let updated_at = next.map(|_| updated_at);
        let (lane, shard) = (Lane::Live, "s0".to_owned());
        let state = State::Unknown;
        Place { lane, partition: 0, shard, next, end, lag_s: None, state, updated_at }
    }

    fn judged(mut place: Place, appended: Option<i64>, now: i64) -> (State, Option<f64>) {
        judge(&mut place, appended, now);
        (place.state, place.lag_s)
    }

    #[test]
    fn a_partition_at_its_end_is_ok_however_long_nothing_came() {
        assert_eq!(judged(place(Some(5), 5, 0), None, 1_000_000_000), (State::Ok, Some(0.0)));
    }

    #[test]
    fn behind_and_moving_is_lagging_and_behind_and_still_is_stopped() {
        let now = 1_000_000;
        assert_eq!(judged(place(Some(5), 9, now), Some(now - 2_000), now).0, State::Ok);
        let lagging = judged(place(Some(5), 9, now - 1_000), Some(now - 30_000), now);
        assert_eq!(lagging, (State::Lagging, Some(30.0)));
        let stopped = judged(place(Some(5), 9, now - 61_000), Some(now - 90_000), now);
        assert_eq!(stopped, (State::Stopped, Some(90.0)));
    }

    #[test]
    fn what_the_group_noted_in_kafka_gives_a_lag_but_never_an_ok() {
        let noted = Place { updated_at: None, ..place(Some(5), 9, 0) };
        assert_eq!(judged(noted, Some(1_000), 31_000), (State::Unknown, Some(30.0)));
    }

    #[test]
    fn a_position_that_mysql_does_not_tell_is_unknown_not_ok() {
        assert_eq!(judged(place(None, 9, 0), None, 1).0, State::Unknown);
        let look =
            Look { places: vec![place(None, 9, 0)], troubles: vec!["s0 is down".to_owned()] };
        let answer = answer(&look, false);
        assert_eq!(answer.verdict, Verdict::Critical);
        assert_eq!(answer.to_json()["partitions"][0]["next_offset"], Json::Null);
    }
}
