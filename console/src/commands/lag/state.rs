//! How a partition does, judged from a few looks at it: no I/O.
//!
//! The states and their order are Burrow's (linkedin/Burrow, core/internal/evaluator/caching.go:
//! lag zero in the window → OK; offset went back → REWIND; no commit for longer than the window →
//! STOP; commits that do not move → STALL; moving, but lag never falls → WARN). Three things are
//! ours, because one look at night spans seconds, not Burrow's ten commits:
//!  - what waits for less than [`BEHIND_AFTER_S`] is simply in work, so OK;
//!  - when a position moved last is read from MySQL, so STALL and STOP need no long window;
//!  - a partition that catches up stays WARN until it is no longer behind. Burrow calls it OK.

use serde_json::Value as Json;

use crate::answer::Verdict;

/// Younger records are simply in work.
pub const BEHIND_AFTER_S: f64 = 15.0;
/// A position that has not moved for this long, with records waiting, stalls. A consumer that is
/// well commits every second or two; its longest statement takes less than this.
pub const STALL_AFTER_MS: i64 = 10_000;
/// …and for this long, it is stopped.
pub const STOP_AFTER_MS: i64 = 60_000;
/// Looks that are remembered of each partition; `--watch` makes one every two seconds.
pub const SEEN_MAX: usize = 30;

/// In Burrow's words, and one of ours: without MySQL nobody knows what is applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    Ok,
    /// What waits is old; the position moves.
    Warn,
    /// Records wait, and the position has not moved for some seconds.
    Stall,
    /// The same, for a minute: nobody applies.
    Stop,
    /// The position went back: a failover to a replica that lagged, or somebody set it.
    Rewind,
    /// MySQL does not tell the position.
    Unknown,
}

impl State {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "OK",
            Self::Warn => "WARN",
            Self::Stall => "STALL",
            Self::Stop => "STOP",
            Self::Rewind => "REWIND",
            Self::Unknown => "UNKNOWN",
        }
    }

    pub fn verdict(self) -> Verdict {
        match self {
            Self::Ok => Verdict::Ok,
            Self::Warn => Verdict::Warning,
            Self::Stall | Self::Stop | Self::Rewind | Self::Unknown => Verdict::Critical,
        }
    }
}

/// One look at a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    pub at_ms: i64,
    pub next: i64,
    pub end: i64,
}

impl Seen {
    pub fn records(&self) -> i64 {
        (self.end - self.next).max(0)
    }
}

/// What a window of looks says of the stream.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Flow {
    pub in_per_s: f64,
    pub out_per_s: f64,
    /// Waiting records at the window's end, less those at its beginning.
    pub change: i64,
}

impl Flow {
    /// From the first and the last look; `None` if they are (nearly) the same moment.
    pub fn of(seen: &[Seen]) -> Option<Self> {
        const WINDOW_MS_MIN: i64 = 500;
        let (first, last) = (seen.first()?, seen.last()?);
        let took_ms = last.at_ms - first.at_ms;
        if took_ms < WINDOW_MS_MIN {
            return None;
        }
        let per_s = |records: i64| records as f64 * 1e3 / took_ms as f64;
        Some(Self {
            in_per_s: per_s(last.end - first.end),
            out_per_s: per_s(last.next - first.next),
            change: last.records() - first.records(),
        })
    }

    pub fn add(&mut self, other: &Self) {
        self.in_per_s += other.in_per_s;
        self.out_per_s += other.out_per_s;
        self.change += other.change;
    }

    pub fn trend(&self) -> &'static str {
        match self.change {
            ..0 => "falling",
            0 => "steady",
            1.. => "rising",
        }
    }

    /// Seconds until `records` are applied at this pace; `None` if that never happens.
    pub fn eta_s(&self, records: i64) -> Option<f64> {
        let gain = self.out_per_s - self.in_per_s;
        match records {
            ..=0 => Some(0.0),
            _ if gain > 0.0 => Some(records as f64 / gain),
            _ => None,
        }
    }
}

/// What is known of a partition beside its offsets.
#[derive(Debug, Clone, Copy)]
pub struct Signs {
    /// How old the record is at which it stands, if that could be read.
    pub lag_s: Option<f64>,
    /// When MySQL's position moved last.
    pub moved_at_ms: i64,
    pub now_ms: i64,
}

/// Judges a partition whose position MySQL tells; `seen` is oldest first and not empty.
pub fn judge(seen: &[Seen], signs: &Signs) -> State {
    // Also before the question whether anything waits: at a failover nothing may be appended.
    if seen.windows(2).any(|pair| matches!(pair, [a, b] if b.next < a.next)) {
        return State::Rewind;
    }
    if seen.iter().any(|seen| seen.records() == 0) {
        return State::Ok;
    }
    if signs.lag_s.is_some_and(|lag| lag <= BEHIND_AFTER_S) {
        return State::Ok;
    }
    let still = seen.windows(2).all(|pair| matches!(pair, [a, b] if b.next == a.next));
    match signs.now_ms - signs.moved_at_ms {
        since if still && since > STOP_AFTER_MS => State::Stop,
        since if still && since > STALL_AFTER_MS => State::Stall,
        _ => State::Warn,
    }
}

/// Rates and the rest, as a table's cells: in_per_s, out_per_s, trend, eta_s.
pub fn cells(flow: Option<&Flow>, records: i64) -> [Json; 4] {
    let Some(flow) = flow else { return [Json::Null, Json::Null, Json::Null, Json::Null] };
    let tenths = |value: f64| Json::from((value * 10.0).round() / 10.0);
    let eta = match flow.eta_s(records) {
        Some(seconds) => tenths(seconds),
        None => Json::Null,
    };
    [tenths(flow.in_per_s), tenths(flow.out_per_s), flow.trend().into(), eta]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(at_s: i64, next: i64, end: i64) -> Seen {
        Seen { at_ms: at_s * 1_000, next, end }
    }

    fn judged(looks: &[Seen], lag_s: f64, moved_s_ago: i64) -> State {
        let now_ms = 1_000_000;
        let moved_at_ms = now_ms - moved_s_ago * 1_000;
        judge(looks, &Signs { lag_s: Some(lag_s), moved_at_ms, now_ms })
    }

    #[test]
    fn a_partition_at_its_end_is_ok_however_long_nothing_came() {
        assert_eq!(judged(&[seen(0, 5, 5)], 0.0, 900), State::Ok);
        let caught_up_once = [seen(0, 5, 5), seen(2, 5, 9)];
        assert_eq!(judged(&caught_up_once, 20.0, 900), State::Ok, "Burrow's first rule");
    }

    #[test]
    fn young_records_are_in_work_and_old_ones_warn_while_the_position_moves() {
        let moving = [seen(0, 5, 90), seen(2, 8, 95)];
        assert_eq!(judged(&moving, 2.0, 0), State::Ok);
        assert_eq!(judged(&moving, 30.0, 0), State::Warn);
        let catching_up = [seen(0, 5, 90), seen(2, 80, 91)];
        assert_eq!(judged(&catching_up, 30.0, 0), State::Warn, "still behind");
    }

    #[test]
    fn a_position_that_stands_still_stalls_then_stops() {
        let still = [seen(0, 5, 90), seen(2, 5, 95)];
        assert_eq!(judged(&still, 30.0, 5), State::Warn);
        assert_eq!(judged(&still, 30.0, 11), State::Stall);
        assert_eq!(judged(&still, 90.0, 61), State::Stop);
    }

    #[test]
    fn a_position_that_went_back_is_a_rewind_even_at_the_end() {
        assert_eq!(judged(&[seen(0, 50, 90), seen(2, 5, 95)], 1.0, 0), State::Rewind);
        assert_eq!(
            judged(&[seen(0, 90, 90), seen(2, 5, 90), seen(4, 90, 90)], 0.0, 0),
            State::Rewind
        );
    }

    #[test]
    fn rates_trend_and_eta_come_from_the_first_and_the_last_look() {
        let flow = Flow::of(&[seen(0, 100, 200), seen(1, 0, 0), seen(10, 180, 220)]).unwrap();
        assert_eq!((flow.in_per_s, flow.out_per_s, flow.trend()), (2.0, 8.0, "falling"));
        assert_eq!(flow.eta_s(40), Some(40.0 / 6.0));
        let losing = Flow::of(&[seen(0, 100, 200), seen(10, 110, 300)]).unwrap();
        assert_eq!((losing.trend(), losing.eta_s(190)), ("rising", None));
        assert_eq!(losing.eta_s(0), Some(0.0));
        assert!(Flow::of(&[seen(0, 1, 2)]).is_none());
    }
}
