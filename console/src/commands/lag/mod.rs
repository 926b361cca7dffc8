//! `spillway lag`: how far the consumer is behind, looked at without it.
//!
//! The positions come from MySQL and the ends from Kafka, now; a partition that is behind is as old
//! as the record it stands at. So the answer grows while the consumer is dead. With a shard's MySQL
//! down its partitions are `UNKNOWN`, their lag is what the consumers' group last noted in Kafka,
//! and the others are told all the same. A partition without a position is not applied by anybody:
//! from what the group noted, or from the log's begin, everything waits. Rates and trend need two
//! looks: the command takes them `--window` apart, and counts what the keeper measured before as
//! one more.

mod answer;
mod state;
mod watch;

use std::collections::BTreeMap;

use spillway_keeper::lag::state::waiting;
use spillway_proto::kafka_record::Lane;
use spillway_runtime::mysql::text;
use spillway_runtime::program::chain;
use spillway_runtime::shards::{Shard, ShardMap};
use sqlx::Row;

pub use state::{State, verdict};
pub use watch::watch;

use self::state::{Flow, SEEN_MAX, Seen, Signs, judge};
use super::positions::{self, Position};
use crate::answer::{Answer, Verdict, duration};
use crate::cli::Lag;
use crate::desk::Desk;
use crate::failure::Failure;
use crate::reach::kafka::{AllEnds, Kafka};
use crate::reach::mysql::{MysqlFault, Server};

/// Partitions whose oldest record is read to know its age.
const AGED_MAX: usize = 256;
/// What the keeper measured longer ago says little of the present.
const KEEPERS_LOOK_MS_MAX: i64 = 120_000;
/// The keeper's word on a state holds so long: by then its next round has ended (2 s from one to
/// the next, two look-ups in Kafka of 2 s each and 1.5 s for records' times).
const KEEPERS_WORD_MS_MAX: i64 = 10_000;

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
    /// When MySQL's position moved last; `None` where MySQL did not tell, or has none.
    moved_at: Option<i64>,
    /// MySQL was asked and has no position: every consumer holds the partition.
    pub unplaced: bool,
}

impl Place {
    pub fn records(&self) -> Option<i64> {
        self.next.map(|next| waiting(next, self.end))
    }

    fn seen(&self, at_ms: i64) -> Option<Seen> {
        Some(Seen { at_ms, next: self.next?, end: self.end })
    }
}

/// Everything once, and what could not be asked.
#[derive(Debug, Clone, Default)]
pub struct Look {
    pub places: Vec<Place>,
    pub troubles: Vec<String>,
}

impl Look {
    pub fn behind(&self) -> Behind {
        let mut behind = Behind::default();
        self.places.iter().for_each(|place| behind.add(place));
        behind
    }

    /// Partitions that are not applied, or of which nobody can say whether they are.
    pub fn not_applied(&self) -> usize {
        self.places.iter().filter(|place| verdict(place.state) == Verdict::Critical).count()
    }
}

/// How far partitions are behind, and how many of them nobody can tell of: what is not known is
/// never added up as nought.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Behind {
    records: i64,
    seconds: Option<f64>,
    uncounted: usize,
    ageless: usize,
}

impl Behind {
    fn add(&mut self, place: &Place) {
        match place.records() {
            Some(records) => self.records += records,
            None => self.uncounted += 1,
        }
        match place.lag_s {
            Some(seconds) => self.seconds = Some(self.seconds.map_or(seconds, |s| s.max(seconds))),
            None => self.ageless += 1,
        }
    }

    /// `None` if not all of them are known.
    pub fn records(&self) -> Option<i64> {
        (self.uncounted == 0).then_some(self.records)
    }

    /// As [`Self::records`].
    pub fn seconds(&self) -> Option<f64> {
        self.seconds.filter(|_| self.ageless == 0)
    }

    /// The part that is known, where not all of it is.
    fn known(&self) -> String {
        format!("{}, at least {} records", self.words(), self.records)
    }

    pub fn words(&self) -> String {
        let known = self.seconds.unwrap_or(0.0);
        match self.ageless {
            0 => format!("{} behind at most", duration(known)),
            _ if known > 0.0 => format!("at least {} behind", duration(known)),
            _ => "how far behind is not known".to_owned(),
        }
    }
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

/// What the keeper measured of one lane of one partition.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Keepers {
    seen: Seen,
    lag_s: f64,
    state: Option<State>,
}

type AllKeepers = BTreeMap<(Lane, u16), Keepers>;

/// What one shard's MySQL tells.
struct Told {
    rows: Vec<Position>,
    keepers: AllKeepers,
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
    let mut keepers = AllKeepers::new();
    for shard in &map.shards {
        // Before Kafka's ends: what is appended meanwhile only adds to the lag.
        match read(desk, shard).await {
            Ok(found) => {
                found.keepers.iter().for_each(|(place, of)| history.note(*place, of.seen));
                keepers.extend(found.keepers);
                told.push((shard, Some(found.rows)));
            }
            Err(fault) => {
                look.troubles.push(chain(&fault));
                told.push((shard, None));
            }
        }
    }
    let ends = kafka.ends(Lane::ALL.to_vec(), map.partitions).await?;
    for (shard, rows) in told {
        look.places.extend(places(map, shard, rows.as_deref(), &ends));
    }
    if look.places.iter().any(|place| place.next.is_none()) {
        let noted = match kafka.noted(map.partitions).await {
            Ok(noted) => noted,
            Err(fault) => {
                look.troubles.push(chain(&fault));
                BTreeMap::new()
            }
        };
        for place in look.places.iter_mut().filter(|place| place.next.is_none()) {
            let key = (place.lane, place.partition);
            place.next = begin(place, noted.get(&key).copied(), keepers.get(&key), &ends);
        }
    }
    let times = append_times(&kafka, &look.places).await?;
    let now_ms = jiff::Timestamp::now().as_millisecond();
    for place in &mut look.places {
        let key = (place.lane, place.partition);
        if let Some(seen) = place.seen(now_ms) {
            history.note(key, seen);
        }
        let keepers = keepers.get(&key).filter(|of| now_ms - of.seen.at_ms <= KEEPERS_WORD_MS_MAX);
        settle(place, history, &Known { appended: times.get(&key).copied(), keepers, now_ms });
    }
    Ok(look)
}

/// When the records were appended at which the places stand that are behind.
async fn append_times(
    kafka: &Kafka,
    places: &[Place],
) -> Result<BTreeMap<(Lane, u16), i64>, Failure> {
    let behind = |place: &Place| {
        let next = place.next.filter(|next| *next < place.end)?;
        Some((place.lane, place.partition, next))
    };
    let wanted: Vec<_> = places.iter().filter_map(behind).take(AGED_MAX).collect();
    match wanted.is_empty() {
        true => Ok(BTreeMap::new()),
        false => Ok(kafka.append_times(wanted).await?),
    }
}

/// From where on nothing is known as applied, where MySQL tells no position: what the group noted.
/// If MySQL was asked and has none, also what the keeper saw, or else the log's begin; if it can't
/// be asked, it may have applied everything for all we know.
fn begin(
    place: &Place,
    noted: Option<i64>,
    keepers: Option<&Keepers>,
    ends: &AllEnds,
) -> Option<i64> {
    if !place.unplaced {
        return noted;
    }
    let low = ends.get(&(place.lane, place.partition)).map_or(0, |ends| ends.low);
    let known = [noted, keepers.map(|of| of.seen.next)].into_iter().flatten();
    Some(known.filter(|at| *at <= place.end).fold(low, i64::max))
}

async fn read(desk: &Desk, shard: &Shard) -> Result<Told, MysqlFault> {
    let mut server = Server::connect(&desk.settings, shard).await?;
    let rows = positions::read(&mut server).await?.rows;
    let now = jiff::Timestamp::now().as_millisecond();
    let keepers = server.ask(async |conn| {
        let sql = "SELECT topic, partition_id, next_offset, end_offset, measured_at, lag_s, state
                   FROM spillway_store.lag_measurements
                   WHERE measured_at BETWEEN ? AND ?";
        let since = now - KEEPERS_LOOK_MS_MAX;
        let rows = sqlx::query(sql).bind(since).bind(now).fetch_all(conn).await?;
        let mut keepers = AllKeepers::new();
        for row in &rows {
            let partition: u32 = row.try_get(1)?;
            let lane = Lane::of_topic(&text(row, 0)?);
            let Some(place) = lane.zip(u16::try_from(partition).ok()) else { continue };
            let (next, end, at_ms) = (row.try_get(2)?, row.try_get(3)?, row.try_get(4)?);
            let (lag_s, state) = (row.try_get(5)?, State::of_word(&text(row, 6)?));
            keepers.insert(place, Keepers { seen: Seen { at_ms, next, end }, lag_s, state });
        }
        Ok(keepers)
    });
    let keepers = keepers.await?;
    Ok(Told { rows, keepers })
}

/// `rows`: `None` if the shard's MySQL did not tell.
fn places(map: &ShardMap, shard: &Shard, rows: Option<&[Position]>, ends: &AllEnds) -> Vec<Place> {
    let mut places = Vec::new();
    for partition in map.partitions_of(shard) {
        let row = rows.and_then(|rows| rows.iter().find(|row| row.partition == partition));
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
                unplaced: rows.is_some() && row.is_none(),
            });
        }
    }
    places
}

/// What is known of a place beside its offsets.
struct Known<'a> {
    /// When the record was appended at which it stands, if it was read.
    appended: Option<i64>,
    /// What the keeper measured a moment ago.
    keepers: Option<&'a Keepers>,
    now_ms: i64,
}

fn settle(place: &mut Place, history: &History, known: &Known<'_>) {
    let now_ms = known.now_ms;
    let Some(last) = place.seen(now_ms) else { return };
    let seen = history.of(place);
    place.flow = Flow::of(seen);
    // The keeper's counts if it is of the same record; it grew older since.
    let same = known.keepers.filter(|of| of.seen.next == last.next && of.seen.records() > 0);
    let keepers_s = same.map(|of| of.lag_s + (now_ms - of.seen.at_ms).max(0) as f64 / 1e3);
    place.lag_s = match last.records() {
        0 if place.unplaced => None,
        0 => Some(0.0),
        _ => known.appended.map(|at| (now_ms - at).max(0) as f64 / 1e3).or(keepers_s),
    };
    // Without MySQL it is only what the consumers' group noted: never an OK.
    if place.moved_at.is_some() || place.unplaced {
        let keepers = known.keepers.and_then(|of| of.state);
        let (moved_at_ms, appended_ms) = (place.moved_at, known.appended);
        place.state = judge(seen, last, &Signs { moved_at_ms, appended_ms, keepers, now_ms });
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
    use serde_json::Value as Json;

    use super::*;
    use crate::reach::kafka::Ends;

    fn place(next: Option<i64>, end: i64, moved_at: i64) -> Place {
        let moved_at = next.map(|_| moved_at);
        let (lane, shard) = (Lane::Live, "s0".to_owned());
        let (state, flow, lag_s) = (State::Unknown, None, None);
        let (partition, unplaced) = (0, false);
        Place { lane, partition, shard, next, end, lag_s, state, flow, moved_at, unplaced }
    }

    fn settled(mut place: Place, appended: Option<i64>, now: i64) -> (State, Option<f64>) {
        let mut history = History::default();
        if let Some(next) = place.next {
            history.note((Lane::Live, 0), Seen { at_ms: now, next, end: place.end });
        }
        settle(&mut place, &history, &Known { appended, keepers: None, now_ms: now });
        (place.state, place.lag_s)
    }

    #[test]
    fn one_look_tells_lag_and_state_from_what_mysql_says() {
        let now = 1_000_000;
        assert_eq!(settled(place(Some(5), 5, 0), None, now), (State::Ok, Some(0.0)));
        let stopped = settled(place(Some(5), 9, now - 121_000), Some(now - 130_000), now);
        assert_eq!(stopped, (State::Stop, Some(130.0)));
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

    #[test]
    fn a_sum_with_an_unknown_part_is_unknown_and_never_nought() {
        let known = |lag_s, state| Place { lag_s, state, ..place(Some(5), 9, 0) };
        let idle = Place { lag_s: Some(0.0), state: State::Ok, ..place(Some(9), 9, 0) };
        let ageless = known(None, State::Unknown);
        let of = |places: Vec<Place>| Look { places, troubles: Vec::new() };
        let row = |look: &Look| answer::answer(look, false).to_json()["shards"][0].clone();

        let look = of(vec![idle.clone(), ageless.clone()]);
        assert_eq!((&row(&look)["lag_s"], &row(&look)["lag_records"]), (&Json::Null, &4.into()));
        assert_eq!(row(&look)["state"], "UNKNOWN");
        assert_eq!(look.behind().words(), "how far behind is not known");

        let look = of(vec![idle.clone(), ageless.clone(), known(Some(13.7), State::Warn)]);
        assert_eq!(row(&look)["lag_s"], Json::Null);
        assert_eq!(look.behind().words(), "at least 14 s behind");
        let notes = answer::answer(&look, false).to_json()["notes"].to_string();
        assert!(notes.contains("at least 14 s behind"), "{notes}");

        let look = of(vec![ageless, known(Some(130.0), State::Stop)]);
        assert_eq!(row(&look)["state"], "STOP", "what is known to be bad is told");

        let look = of(vec![idle.clone(), place(None, 9, 0)]);
        assert_eq!(row(&look)["lag_records"], Json::Null);
        assert_eq!(of(vec![idle]).behind().words(), "0.0 s behind at most");
    }

    #[test]
    fn where_the_age_can_not_be_read_the_keepers_counts_and_so_does_its_state() {
        let now = 1_000_000;
        let seen = Seen { at_ms: now - 2_000, next: 5, end: 8 };
        let keepers = Keepers { seen, lag_s: 13.0, state: Some(State::Warn) };
        let mut waits = place(Some(5), 9, 0);
        let known = Known { appended: None, keepers: Some(&keepers), now_ms: now };
        settle(&mut waits, &History::default(), &known);
        assert_eq!((waits.state, waits.lag_s), (State::Warn, Some(15.0)));
        let mut moved = place(Some(6), 9, 0);
        settle(&mut moved, &History::default(), &known);
        assert_eq!(moved.lag_s, None, "that was another record");
    }

    #[test]
    fn without_a_position_everything_waits_that_nobody_is_known_to_have_applied() {
        let ends: AllEnds = [((Lane::Live, 0), Ends { low: 3, high: 9 })].into();
        let unplaced = Place { unplaced: true, ..place(None, 9, 0) };
        let seen = Seen { at_ms: 1, next: 7, end: 8 };
        let keepers = Keepers { seen, lag_s: 0.0, state: None };
        let from = |noted, keepers| begin(&unplaced, noted, keepers, &ends);
        assert_eq!(from(None, None), Some(3));
        assert_eq!(from(Some(5), None), Some(5));
        assert_eq!(from(Some(5), Some(&keepers)), Some(7));
        assert_eq!(from(Some(50), None), Some(3), "of another log");
        assert_eq!(begin(&place(None, 9, 0), None, None, &ends), None, "MySQL was not asked");
        let waiting = Place { next: Some(3), ..unplaced };
        assert_eq!(settled(waiting.clone(), Some(1_000), 4_000), (State::Stall, Some(3.0)));
        let answer = answer::answer(&Look { places: vec![waiting], troubles: vec![] }, false);
        let notes = answer.to_json()["notes"].to_string();
        assert!(notes.contains("no position"), "{notes}");
        assert!(!notes.contains("MySQL does not tell"), "{notes}");
    }
}
