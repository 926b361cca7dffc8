//! What the states of lag mean, in one place: the keeper measures by it, and `spillway lag` judges
//! by it where no keeper's measurement is at hand. One partition, from what was seen of it and the
//! clock: no I/O. The states are Burrow's.

use std::fmt;
use std::time::Duration;

use crate::settings::LagSettings;

/// How a partition does, from well to worst.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// Nothing waits, or nothing waits long.
    Ok,
    /// It moves, but what waits is old.
    Warn,
    /// Nobody can tell. Never worse than what is known of others to be bad.
    Unknown,
    /// Records wait and the position does not move, or there is none.
    Stall,
    /// The same, for so long that somebody must look.
    Stop,
    /// The position went back: told by who remembers more than one, `spillway lag`.
    Rewind,
}

impl State {
    const ALL: [Self; 6] =
        [Self::Ok, Self::Warn, Self::Unknown, Self::Stall, Self::Stop, Self::Rewind];

    #[must_use]
    pub fn is_unmoved(self) -> bool {
        matches!(self, Self::Stall | Self::Stop)
    }

    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "OK",
            Self::Warn => "WARN",
            Self::Unknown => "UNKNOWN",
            Self::Stall => "STALL",
            Self::Stop => "STOP",
            Self::Rewind => "REWIND",
        }
    }

    /// As it stands in `lag_measurements`.
    #[must_use]
    pub fn of_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == word)
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a state is judged from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signs {
    /// Whether MySQL has a position of the partition. Without one no consumer goes on with it.
    pub placed: bool,
    pub records: i64,
    /// How long the first record that waits has been in Kafka; `None` if nobody can tell.
    pub age: Option<Duration>,
    /// For how long records have waited with the position where it is.
    pub unmoved: Duration,
}

/// The definition of the states.
#[must_use]
pub fn judge(settings: &LagSettings, signs: &Signs) -> State {
    let Signs { placed, records, age, unmoved } = *signs;
    if records == 0 {
        return if placed { State::Ok } else { State::Unknown };
    }
    if unmoved >= settings.stop_after.get() {
        return State::Stop;
    }
    if !placed || unmoved >= settings.stall_after.get() {
        return State::Stall;
    }
    match age {
        None => State::Unknown,
        Some(age) if age >= settings.warn_after.get() => State::Warn,
        Some(_) => State::Ok,
    }
}

/// Records from `next` to `end`. Where the position lies beyond the end, the topic is not the one
/// that was applied: that counts as one record, so that the partition is seen not to move.
#[must_use]
pub fn waiting(next: i64, end: i64) -> i64 {
    if next > end { 1 } else { end - next }
}

/// One measurement.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Measured {
    /// Whether MySQL has a position; without one `next` is from where nothing is known as applied.
    pub placed: bool,
    pub next: i64,
    pub end: i64,
    pub records: i64,
    pub seconds: f64,
    pub state: State,
}

/// What is remembered of a partition from one measurement to the next.
#[derive(Clone, Copy, Debug, Default)]
pub struct Track {
    placed: bool,
    next: i64,
    end: i64,
    /// When the position was first seen where it is, with records waiting.
    unmoved_since_ms: Option<i64>,
    /// When the record at `next` was appended, once it was read.
    appended_ms: Option<i64>,
}

impl Track {
    /// Takes in where the position and the end are now.
    pub fn moved(&mut self, next: i64, end: i64, now_ms: i64) {
        if next != self.next {
            (self.appended_ms, self.unmoved_since_ms) = (None, None);
        }
        (self.placed, self.next, self.end) = (true, next, end);
        if self.records() == 0 {
            (self.appended_ms, self.unmoved_since_ms) = (None, None);
        } else {
            self.unmoved_since_ms.get_or_insert(now_ms);
        }
    }

    /// MySQL has no position; nothing from `next` on is known as applied.
    pub fn unplaced(&mut self, next: i64, end: i64, now_ms: i64) {
        self.moved(next, end, now_ms);
        self.placed = false;
    }

    /// Where it was last seen.
    #[must_use]
    pub fn next(&self) -> i64 {
        self.next
    }

    /// Whether the record at the position is still to be read for its time.
    #[must_use]
    pub fn wants_time(&self) -> bool {
        self.appended_ms.is_none() && self.end > self.next
    }

    pub fn appended(&mut self, at_ms: i64) {
        self.appended_ms = Some(at_ms);
    }

    fn records(&self) -> i64 {
        waiting(self.next, self.end)
    }

    /// A record whose time could not be read is at least as old as the wait for it.
    #[must_use]
    pub fn measured(&self, settings: &LagSettings, now_ms: i64) -> Measured {
        let Self { placed, next, end, .. } = *self;
        let records = self.records();
        let since = |at: Option<i64>| Duration::from_millis(elapsed(at, now_ms));
        let unmoved = since(self.unmoved_since_ms);
        let age = since(self.appended_ms.or(self.unmoved_since_ms));
        let state = judge(settings, &Signs { placed, records, age: Some(age), unmoved });
        Measured { placed, next, end, records, seconds: age.as_secs_f64(), state }
    }
}

fn elapsed(since_ms: Option<i64>, now_ms: i64) -> u64 {
    since_ms.map_or(0, |at| u64::try_from(now_ms.saturating_sub(at)).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> LagSettings {
        LagSettings::default()
    }

    #[test]
    fn nothing_waiting_is_ok_however_long_the_position_stands() {
        let mut track = Track::default();
        track.moved(5, 5, 0);
        track.moved(5, 5, 10_000_000);
        let measured = track.measured(&settings(), 10_000_000);
        assert_eq!((measured.records, measured.seconds, measured.state), (0, 0.0, State::Ok));
    }

    #[test]
    fn lag_grows_from_the_records_own_time_while_nothing_moves() {
        let mut track = Track::default();
        track.moved(5, 8, 100_000);
        assert!(track.wants_time());
        track.appended(95_000);
        for (now_ms, seconds, state) in [
            (100_000, 5.0, State::Ok),
            (106_000, 11.0, State::Warn),
            (121_000, 26.0, State::Stall),
            (221_000, 126.0, State::Stop),
        ] {
            track.moved(5, 9, now_ms);
            assert!(!track.wants_time(), "read once, not again");
            let measured = track.measured(&settings(), now_ms);
            assert_eq!((measured.records, measured.seconds, measured.state), (4, seconds, state));
        }
    }

    #[test]
    fn a_moving_position_with_old_records_warns_and_never_stalls() {
        let mut track = Track::default();
        for step in 0..100i64 {
            let now_ms = 1_000_000 + step * 2_000;
            track.moved(step, 1_000, now_ms);
            track.appended(now_ms - 60_000);
            assert_eq!(track.measured(&settings(), now_ms).state, State::Warn);
        }
    }

    #[test]
    fn a_record_that_can_not_be_read_is_as_old_as_the_wait_for_it() {
        let mut track = Track::default();
        track.moved(5, 8, 100_000);
        track.moved(5, 8, 112_000);
        assert_eq!(track.measured(&settings(), 112_000).seconds, 12.0);
    }

    #[test]
    fn a_position_beyond_the_end_is_seen_as_not_moving() {
        let mut track = Track::default();
        track.moved(50, 8, 0);
        track.moved(50, 9, 200_000);
        assert!(!track.wants_time());
        assert_eq!(track.measured(&settings(), 200_000).state, State::Stop);
    }
    #[test]
    fn a_partition_without_a_position_is_never_ok_and_stops_like_any_other() {
        let mut track = Track::default();
        track.moved(5, 8, 100_000);
        track.appended(99_000);
        assert_eq!(track.measured(&settings(), 101_000).state, State::Ok);
        track.unplaced(5, 9, 102_000);
        let measured = track.measured(&settings(), 102_000);
        assert_eq!((measured.records, measured.seconds, measured.state), (4, 3.0, State::Stall));
        track.unplaced(5, 9, 221_000);
        assert_eq!(track.measured(&settings(), 221_000).state, State::Stop);
        track.unplaced(9, 9, 222_000);
        assert_eq!(track.measured(&settings(), 222_000).state, State::Unknown, "nothing waits");
    }

    #[test]
    fn an_age_that_nobody_can_tell_is_unknown_and_never_hides_what_is_known() {
        let unmoved = |seconds| Signs {
            placed: true,
            records: 1,
            age: None,
            unmoved: Duration::from_secs(seconds),
        };
        let judged = [0, 20, 120].map(|seconds| judge(&settings(), &unmoved(seconds)));
        assert_eq!(judged, [State::Unknown, State::Stall, State::Stop]);
        assert!(State::Warn < State::Unknown && State::Unknown < State::Stall);
    }

    #[test]
    fn a_states_word_is_read_as_it_was_written() {
        for state in State::ALL {
            assert_eq!(State::of_word(&state.to_string()), Some(state));
        }
        assert_eq!(State::of_word("ok"), None);
    }
}
