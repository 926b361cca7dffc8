//! `spillway lag`: how far the consumer is behind, looked at without it.
//!
//! The positions come from MySQL and the ends from Kafka, now; a partition that is behind is as old
//! as the record it stands at. So the answer grows while the consumer is dead. With a shard's MySQL
//! down its partitions are `UNKNOWN`, their lag is what the consumers' group last noted in Kafka,
//! and the others are told all the same. Rates and trend need two looks: the command takes them
//! `--window` apart, and counts what the keeper measured before as one more.

mod answer;
mod state;
mod watch;

use std::collections::BTreeMap;

use spillway_proto::kafka_record::Lane;
use spillway_runtime::mysql::text;
use spillway_runtime::program::chain;
use spillway_runtime::shards::{Shard, ShardMap};
use sqlx::Row;

pub use state::State;
pub use watch::watch;

use self::state::{Flow, SEEN_MAX, Seen, Signs, judge};
use super::positions::{self, Position};
use crate::answer::Answer;
use crate::cli::Lag;
use crate::desk::Desk;
use crate::failure::Failure;
use crate::reach::kafka::AllEnds;
use crate::reach::mysql::{MysqlFault, Server};

/// Partitions whose oldest record is read to know its age.
const AGED_MAX: usize = 256;
/// What the keeper measured longer ago says little of the present.
const KEEPERS_LOOK_MS_MAX: i64 = 120_000;

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
    /// From the looks so far.
    flow: Option<Flow>,
    /// When MySQL's position moved last; `None` where MySQL did not tell.
    moved_at: Option<i64>,
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

/// What was seen before, oldest first, of each lane of each partition.
#[derive(Debug, Default)]
struct History {
    seen: BTreeMap<(Lane, u16), Vec<Seen>>,
}

impl History {
    /// A look is older than none that is known already, or it is left out.
    fn note(&mut self, place: (Lane, u16), look: Seen) {
        let seen = self.seen.entry(place).or_default();
        if seen.last().is_none_or(|last| last.at_ms < look.at_ms) {
            seen.push(look);
        }
        if seen.len() > SEEN_MAX {
            seen.remove(0);
        }
    }

    fn of(&self, place: &Place) -> &[Seen] {
        self.seen.get(&(place.lane, place.partition)).map_or(&[], Vec::as_slice)
    }
}

/// What one shard's MySQL tells.
struct Told {
    rows: Vec<Position>,
    keepers: Vec<((Lane, u16), Seen)>,
}

/// Looks at Kafka and every shard, once.
pub async fn measure(desk: &Desk, map: &ShardMap) -> Result<Look, Failure> {
    measure_again(desk, map, &mut History::default()).await
}

async fn measure_again(
    desk: &Desk,
    map: &ShardMap,
    history: &mut History,
) -> Result<Look, Failure> {
    let kafka = desk.kafka()?;
    let mut look = Look::default();
    let mut told = Vec::new();
    for shard in &map.shards {
        // Before Kafka's ends: what is appended meanwhile only adds to the lag.
        match read(desk, shard).await {
            Ok(found) => {
                found.keepers.iter().for_each(|(place, seen)| history.note(*place, *seen));
                told.push((shard, found.rows));
            }
            Err(fault) => {
                look.troubles.push(chain(&fault));
                told.push((shard, Vec::new()));
            }
        }
    }
    let ends = kafka.ends(Lane::ALL.to_vec(), map.partitions).await?;
    for (shard, rows) in told {
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
    let now_ms = jiff::Timestamp::now().as_millisecond();
    for place in &mut look.places {
        let key = (place.lane, place.partition);
        if let Some(next) = place.next {
            history.note(key, Seen { at_ms: now_ms, next, end: place.end });
        }
        settle(place, history, times.get(&key).copied(), now_ms);
    }
    Ok(look)
}

async fn read(desk: &Desk, shard: &Shard) -> Result<Told, MysqlFault> {
    let mut server = Server::connect(&desk.settings, shard).await?;
    let rows = positions::read(&mut server).await?.rows;
    let now = jiff::Timestamp::now().as_millisecond();
    let keepers = server.ask(async |conn| {
        let sql = "SELECT topic, partition_id, next_offset, end_offset, measured_at
                   FROM spillway_store.lag_measurements
                   WHERE measured_at BETWEEN ? AND ?";
        let since = now - KEEPERS_LOOK_MS_MAX;
        let rows = sqlx::query(sql).bind(since).bind(now).fetch_all(conn).await?;
        let mut keepers = Vec::new();
        for row in &rows {
            let partition: u32 = row.try_get(1)?;
            let lane = Lane::of_topic(&text(row, 0)?);
            let Some(place) = lane.zip(u16::try_from(partition).ok()) else { continue };
            let (next, end, at_ms) = (row.try_get(2)?, row.try_get(3)?, row.try_get(4)?);
            keepers.push((place, Seen { at_ms, next, end }));
        }
        Ok(keepers)
    });
    let keepers = keepers.await?;
    Ok(Told { rows, keepers })
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
                flow: None,
                moved_at: row.map(|row| row.updated_at),
            });
        }
    }
    places
}

/// `appended`: when the record was appended at which the partition stands, if it was read.
fn settle(place: &mut Place, history: &History, appended: Option<i64>, now_ms: i64) {
    let Some(records) = place.records() else { return };
    let seen = history.of(place);
    place.flow = Flow::of(seen);
    place.lag_s = match records {
        0 => Some(0.0),
        _ => appended.map(|at| (now_ms - at).max(0) as f64 / 1e3),
    };
    // Without MySQL it is only what the consumers' group noted: never an OK.
    if let Some(moved_at_ms) = place.moved_at {
        place.state = judge(seen, &Signs { lag_s: place.lag_s, moved_at_ms, now_ms });
    }
}

/// Two looks, `--window` apart, as an answer.
pub async fn look(desk: &Desk, options: &Lag) -> Result<Answer, Failure> {
    let map = desk.shards()?;
    let mut history = History::default();
    let mut look = measure_again(desk, &map, &mut history).await?;
    if !options.window.is_zero() {
        tokio::time::sleep(options.window.get()).await;
        look = measure_again(desk, &map, &mut history).await?;
    }
    Ok(answer::answer(&look, options.partitions))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(next: Option<i64>, end: i64, moved_at: i64) -> Place {
        let moved_at = next.map(|_| moved_at);
        let (lane, shard) = (Lane::Live, "s0".to_owned());
        let (state, flow, lag_s) = (State::Unknown, None, None);
        Place { lane, partition: 0, shard, next, end, lag_s, state, flow, moved_at }
    }

    fn settled(mut place: Place, appended: Option<i64>, now: i64) -> (State, Option<f64>) {
        let mut history = History::default();
        if let Some(next) = place.next {
            history.note((Lane::Live, 0), Seen { at_ms: now, next, end: place.end });
        }
        settle(&mut place, &history, appended, now);
        (place.state, place.lag_s)
    }

    #[test]
    fn one_look_tells_lag_and_state_from_what_mysql_says() {
        let now = 1_000_000;
        assert_eq!(settled(place(Some(5), 5, 0), None, now), (State::Ok, Some(0.0)));
        let stopped = settled(place(Some(5), 9, now - 61_000), Some(now - 90_000), now);
        assert_eq!(stopped, (State::Stop, Some(90.0)));
    }

    #[test]
    fn what_the_group_noted_in_kafka_gives_a_lag_but_never_an_ok() {
        let noted = Place { moved_at: None, ..place(Some(5), 9, 0) };
        assert_eq!(settled(noted, Some(1_000), 31_000), (State::Unknown, Some(30.0)));
    }

    #[test]
    fn a_position_that_mysql_does_not_tell_is_unknown_not_ok() {
        assert_eq!(settled(place(None, 9, 0), None, 1).0, State::Unknown);
        let troubles = vec!["s0 is down".to_owned()];
        let look = Look { places: vec![place(None, 9, 0)], troubles };
        let answer = answer::answer(&look, false);
        assert_eq!(answer.verdict, crate::answer::Verdict::Critical);
        assert_eq!(answer.to_json()["partitions"][0]["next_offset"], serde_json::Value::Null);
    }

    #[test]
    fn the_keepers_look_is_an_earlier_one_and_a_stale_one_never_follows_a_newer() {
        let mut history = History::default();
        let seen = |at_ms| Seen { at_ms, next: 1, end: 2 };
        for at_ms in [10, 20, 15, 20, 30] {
            history.note((Lane::Live, 0), seen(at_ms));
        }
        assert_eq!(history.of(&place(Some(1), 2, 0)), [seen(10), seen(20), seen(30)]);
    }
}
