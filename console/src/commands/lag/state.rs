//! How a partition does, judged from a few looks at it: no I/O.
//!
//! What the states mean is the keeper's definition (`spillway_keeper::lag::state`), so that
//! dashboards, alerts and this console never use one word for two things. Where the keeper has
//! measured a moment ago its word holds: it has watched all the time. Else the same rules are
//! applied to what these looks and MySQL's `positions.updated_at` tell. REWIND is ours alone: it
//! needs two looks.
//!
//! The states and their order are Burrow's (linkedin/Burrow, core/internal/evaluator/caching.go),
//! with limits in time: a look at night spans seconds, not Burrow's ten commits.

use std::time::Duration;

use serde_json::Value as Json;
pub use spillway_keeper::lag::State;
use spillway_keeper::lag::state::{self, waiting};
use spillway_keeper::settings::LagSettings;

use crate::answer::Verdict;

/// Looks that are remembered of each partition; `--watch` makes one every two seconds.
pub const SEEN_MAX: usize = 30;

/// Only what is known to be well is well.
pub fn verdict(state: State) -> Verdict {
    match state {
        State::Ok => Verdict::Ok,
        State::Warn => Verdict::Warning,
        State::Stall | State::Stop | State::Rewind | State::Unknown => Verdict::Critical,
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
        waiting(self.next, self.end)
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
    /// When MySQL's position moved last; `None` if MySQL has none.
    pub moved_at_ms: Option<i64>,
    /// When the record was appended at which it stands, if that could be read.
    pub appended_ms: Option<i64>,
    /// What the keeper says of it, if that is of now.
    pub keepers: Option<State>,
    pub now_ms: i64,
}

/// Judges a partition of a shard whose MySQL answers; `seen` is oldest first and ends with `last`.
pub fn judge(seen: &[Seen], last: Seen, signs: &Signs) -> State {
    let placed = signs.moved_at_ms.is_some();
    // Also before the question whether anything waits: at a failover nothing may be appended.
    if placed && seen.windows(2).any(|pair| matches!(pair, [a, b] if b.next < a.next)) {
        return State::Rewind;
    }
    // What the keeper said before the position came or went says nothing.
    let of_this = |state: &State| match placed {
        true => *state != State::Unknown,
        false => *state >= State::Unknown,
    };
    if let Some(state) = signs.keepers.filter(of_this) {
        return state;
    }
    let since = |at_ms: i64| Duration::from_millis((signs.now_ms - at_ms).max(0).unsigned_abs());
    let age = signs.appended_ms.map(since);
    let unmoved = since(unmoved_since(seen, signs));
    let signs = state::Signs { placed, records: last.records(), age, unmoved };
    state::judge(&LagSettings::default(), &signs)
}

/// Since when records have waited with the position where it is: since it came there, or, if it
/// stood there before, since the first of them was appended. Nothing is said of what no look saw.
fn unmoved_since(seen: &[Seen], signs: &Signs) -> i64 {
    let next = seen.last().map(|last| last.next);
    let run = seen.iter().rev().take_while(|look| Some(look.next) == next);
    let Some(appended) = signs.appended_ms else {
        let waited = run.take_while(|look| look.records() > 0).last();
        return waited.map_or(signs.now_ms, |look| look.at_ms);
    };
    let Some(moved_at) = signs.moved_at_ms else { return appended };
    let came_by = run.clone().last().map_or(signs.now_ms, |look| look.at_ms);
    let left_after = seen.iter().rev().nth(run.count()).map_or(i64::MIN, |look| look.at_ms);
    // One clock is not the other, and the other topic's position moves the same row.
    moved_at.max(left_after).min(came_by).max(appended)
}

/// Rates and the rest, as a table's cells: in_per_s, out_per_s, trend, eta_s.
/// `records`: `None` if it is not known how many wait.
pub fn cells(flow: Option<&Flow>, records: Option<i64>) -> [Json; 4] {
    let Some(flow) = flow else { return [Json::Null, Json::Null, Json::Null, Json::Null] };
    let tenths = |value: f64| Json::from((value * 10.0).round() / 10.0);
    let eta = match records.and_then(|records| flow.eta_s(records)) {
        Some(seconds) => tenths(seconds),
        None => Json::Null,
    };
    [tenths(flow.in_per_s), tenths(flow.out_per_s), flow.trend().into(), eta]
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;
    use crate::cli::Cli;

    const NOW_S: i64 = 1_000;

    /// `at_s`: relative to now.
    fn seen(at_s: i64, next: i64, end: i64) -> Seen {
        Seen { at_ms: (NOW_S + at_s) * 1_000, next, end }
    }

    fn signs(age_s: Option<i64>, moved_s_ago: i64) -> Signs {
        let ago = |seconds: i64| (NOW_S - seconds) * 1_000;
        let (moved_at_ms, appended_ms) = (Some(ago(moved_s_ago)), age_s.map(ago));
        Signs { moved_at_ms, appended_ms, keepers: None, now_ms: NOW_S * 1_000 }
    }

    fn judged(looks: &[Seen], signs: &Signs) -> State {
        judge(looks, *looks.last().unwrap(), signs)
    }

    #[test]
    fn a_partition_at_its_end_is_ok_however_long_nothing_came() {
        assert_eq!(judged(&[seen(0, 5, 5)], &signs(None, 900)), State::Ok);
    }

    #[test]
    fn one_fresh_record_after_a_long_rest_is_in_work_and_not_a_stop() {
        let rested = [seen(-2, 5, 5), seen(0, 5, 6)];
        assert_eq!(judged(&rested, &signs(Some(1), 900)), State::Ok);
        assert_eq!(judged(&[seen(0, 5, 6)], &signs(Some(12), 900)), State::Warn);
        assert_eq!(judged(&[seen(0, 5, 6)], &signs(Some(21), 900)), State::Stall);
    }

    #[test]
    fn young_records_are_in_work_and_old_ones_warn_while_the_position_moves() {
        let moving = [seen(-2, 5, 90), seen(0, 8, 95)];
        assert_eq!(judged(&moving, &signs(Some(2), 0)), State::Ok);
        assert_eq!(judged(&moving, &signs(Some(300), 0)), State::Warn);
        assert_eq!(judged(&moving, &signs(Some(300), 200)), State::Warn, "a clock that lags");
        let catching_up = [seen(-2, 5, 90), seen(0, 80, 91)];
        assert_eq!(judged(&catching_up, &signs(Some(30), 0)), State::Warn, "still behind");
    }

    #[test]
    fn a_position_that_stands_still_stalls_then_stops() {
        let still = [seen(-2, 5, 90), seen(0, 5, 95)];
        for (moved_s_ago, state) in
            [(5, State::Warn), (20, State::Stall), (119, State::Stall), (120, State::Stop)]
        {
            assert_eq!(judged(&still, &signs(Some(300), moved_s_ago)), state, "{moved_s_ago}");
        }
        let watched = [seen(-60, 5, 90), seen(0, 5, 95)];
        let other_topic_moves = signs(Some(300), 0);
        assert_eq!(judged(&watched, &other_topic_moves), State::Stall);
    }

    #[test]
    fn a_position_that_went_back_is_a_rewind_even_at_the_end() {
        let back = [seen(-2, 50, 90), seen(0, 5, 95)];
        assert_eq!(judged(&back, &signs(Some(1), 0)), State::Rewind);
        let and_forth = [seen(-4, 90, 90), seen(-2, 5, 90), seen(0, 90, 90)];
        assert_eq!(judged(&and_forth, &signs(None, 0)), State::Rewind);
    }

    #[test]
    fn an_age_that_nobody_can_tell_is_unknown_and_not_late() {
        let fresh = [seen(-2, 5, 5), seen(0, 5, 9)];
        assert_eq!(judged(&fresh, &signs(None, 900)), State::Unknown);
        let watched = [seen(-130, 5, 9), seen(-60, 5, 9), seen(0, 5, 9)];
        assert_eq!(judged(&watched, &signs(None, 900)), State::Stop, "waited for that long");
    }

    #[test]
    fn the_keepers_word_holds_here_so_that_no_state_means_two_things() {
        let still = [seen(-2, 5, 90), seen(0, 5, 95)];
        for keepers in [State::Ok, State::Warn, State::Stall, State::Stop] {
            let told = Signs { keepers: Some(keepers), ..signs(Some(300), 50) };
            assert_eq!(judged(&still, &told), keepers);
        }
    }

    #[test]
    fn without_a_position_it_is_never_ok_whatever_the_keeper_saw_before() {
        let unplaced = Signs { moved_at_ms: None, ..signs(Some(3), 0) };
        let stale = Signs { keepers: Some(State::Ok), ..unplaced };
        assert_eq!(judged(&[seen(0, 5, 9)], &stale), State::Stall);
        let old = Signs { moved_at_ms: None, ..signs(Some(300), 0) };
        assert_eq!(judged(&[seen(0, 5, 9)], &old), State::Stop);
        assert_eq!(judged(&[seen(0, 9, 9)], &unplaced), State::Unknown);
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

    #[test]
    fn the_limits_are_the_same_numbers_wherever_they_are_told() {
        let mut cli = Cli::command();
        let help = cli.find_subcommand_mut("lag").unwrap().render_long_help().to_string();
        let operations = include_str!("../../../../docs/operations.md");
        let dashboards = include_str!("../../../../docs/dashboards.md");
        let limits = LagSettings::default();
        let told = [
            format!("older than {} s", limits.warn_after.get().as_secs()),
            format!("waited for {} s", limits.stall_after.get().as_secs()),
            format!("for {} s", limits.stop_after.get().as_secs()),
        ];
        for text in [help.as_str(), operations, dashboards] {
            for limit in &told {
                assert!(text.contains(limit), "{limit}: {text}");
            }
        }
    }
}
