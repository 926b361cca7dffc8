//! Lag as tables: a line per shard and topic, and the partitions that are not well.

use std::collections::BTreeMap;

use serde_json::Value as Json;
use spillway_proto::kafka_record::Lane;

use super::state::{Flow, State, cells};
use super::{Behind, Look, Place, verdict};
use crate::answer::{Answer, Verdict};

/// A topic of a shard, summed up.
struct Sum {
    behind: Behind,
    state: State,
    flow: Option<Flow>,
}

impl Default for Sum {
    fn default() -> Self {
        Self { behind: Behind::default(), state: State::Ok, flow: None }
    }
}

impl Sum {
    fn add(&mut self, place: &Place) {
        self.behind.add(place);
        self.state = self.state.max(place.state);
        if let Some(flow) = &place.flow {
            self.flow.get_or_insert_default().add(flow);
        }
    }
}

const SHARD_COLUMNS: [&str; 9] =
    ["shard", "topic", "state", "lag_s", "lag_records", "in_per_s", "out_per_s", "trend", "eta_s"];

const PARTITION_COLUMNS: [&str; 12] = [
    "shard",
    "topic",
    "partition",
    "state",
    "lag_s",
    "lag_records",
    "in_per_s",
    "out_per_s",
    "trend",
    "eta_s",
    "next_offset",
    "end_offset",
];

pub fn answer(look: &Look, every_partition: bool) -> Answer {
    let mut answer = Answer::default();
    let mut sums: BTreeMap<(&str, Lane), Sum> = BTreeMap::new();
    for place in &look.places {
        sums.entry((&place.shard, place.lane)).or_default().add(place);
        answer.worsen(verdict(place.state));
    }
    let section = answer.section("shards", &SHARD_COLUMNS);
    for ((shard, lane), sum) in &sums {
        let [rate_in, rate_out, trend, eta] = cells(sum.flow.as_ref(), sum.behind.records());
        section.row([
            (*shard).into(),
            lane.topic().into(),
            sum.state.as_str().into(),
            sum.behind.seconds().into(),
            sum.behind.records().into(),
            rate_in,
            rate_out,
            trend,
            eta,
        ]);
    }
    let waiting =
        |place: &Place| place.records().is_none_or(|records| records > 0) && place.end > 0;
    let waiting = |place: &Place| place.unplaced || waiting(place);
    let shown = |place: &&Place| every_partition || (place.state != State::Ok && waiting(place));
    let rows: Vec<_> = look.places.iter().filter(shown).map(row).collect();
    if every_partition || !rows.is_empty() {
        answer.section("partitions", &PARTITION_COLUMNS).rows = rows;
    }
    for trouble in &look.troubles {
        answer.trouble(Verdict::Critical, trouble.clone());
    }
    for ((shard, lane), sum) in &sums {
        if sum.behind.seconds().is_none() || sum.behind.records().is_none() {
            let (topic, words) = (lane.topic(), sum.behind.known());
            answer.note(format!("{shard} {topic}: not known of all its partitions: {words}."));
        }
    }
    advise(&mut answer, look);
    answer
}

/// What to do, once for each state that is there.
fn advise(answer: &mut Answer, look: &Look) {
    let any = |state: State| look.places.iter().any(|place| place.state == state);
    if any(State::Stop) || any(State::Stall) {
        answer.note(
            "STALL, STOP: nobody applies these partitions. Is a consumer running? Its /deepz and \
             spillway_consumer_partitions_held say more.",
        );
    }
    if any(State::Rewind) {
        answer.note("REWIND: a position went back. After a failover that is right; else find out.");
    }
    if look.places.iter().any(|place| place.unplaced) {
        answer.note(
            "MySQL has no position of some partitions: consumers hold them, and what Kafka has \
             of them waits. `spillway topics check` names them.",
        );
    }
    let untold = |place: &Place| place.moved_at.is_none() && !place.unplaced;
    if look.places.iter().any(untold) {
        answer.note(
            "UNKNOWN: MySQL does not tell. The lag shown is from what the consumers last noted in \
             Kafka: nothing is lost, it waits there.",
        );
    }
    if look.places.iter().any(|place| place.state == State::Unknown && place.moved_at.is_some()) {
        answer.note(
            "UNKNOWN: the first record that waits could not be read in time: nobody knows how old \
             it is.",
        );
    }
}

fn row(place: &Place) -> Vec<Json> {
    let [rate_in, rate_out, trend, eta] = cells(place.flow.as_ref(), place.records());
    vec![
        place.shard.clone().into(),
        place.lane.topic().into(),
        place.partition.into(),
        place.state.as_str().into(),
        place.lag_s.into(),
        place.records().into(),
        rate_in,
        rate_out,
        trend,
        eta,
        place.next.into(),
        place.end.into(),
    ]
}
