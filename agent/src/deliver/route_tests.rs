//! The route's properties, over random histories.

use proptest::prelude::*;

use super::*;

const RULES: Rules = Rules {
    spill: true,
    park_after_ms: 60_000,
    park_fill: 0.5,
    probe_min_ms: 5_000,
    probe_max_ms: 60_000,
    retry_min_ms: 500,
    retry_max_ms: 30_000,
    auth_park_bytes_max: 1_000,
};
const CALM: Pressure = Pressure { fill: 0.0, urgent: false };
const FAILED: Heard = Heard::Failed { retry_after_ms: None };

#[derive(Clone, Copy, Debug)]
enum Event {
    Heard(Heard),
    Parked(u64),
    ParkFailed,
    Pass(i64),
    Ask(f64),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        1 => Just(Event::Heard(Heard::Answered)),
        4 => (0_i64..900_000).prop_map(|ms| {
            Event::Heard(Heard::Failed { retry_after_ms: (ms % 3 == 0).then_some(ms) })
        }),
        2 => any::<bool>().prop_map(|revoked| Event::Heard(Heard::Denied { revoked })),
        2 => (1_u64..500).prop_map(Event::Parked),
        1 => Just(Event::ParkFailed),
        4 => (0_i64..100_000).prop_map(Event::Pass),
        6 => (0.0..1.0_f64).prop_map(Event::Ask),
    ]
}

/// Plays a history; `see` is told of each question: healthy, failing since, denied bytes, answer.
fn play(events: &[Event], mut see: impl FnMut(i64, Option<i64>, f64, Way)) -> (Route, i64) {
    let (mut route, mut now) = (Route::new(RULES), 0);
    let mut failing_since = None;
    for event in events {
        match *event {
            Event::Heard(heard) => {
                route.heard(now, heard, 0.5);
                failing_since = (heard != Heard::Answered).then_some(failing_since.unwrap_or(now));
            }
            Event::Parked(bytes) => route.parked(bytes),
            Event::ParkFailed => route.park_failed(now, None, 0.5),
            Event::Pass(ms) => now += ms,
            Event::Ask(fill) => {
                let way = route.way(now, Pressure { fill, urgent: false });
                see(now, failing_since, fill, way);
            }
        }
    }
    (route, now)
}

proptest! {
    #[test]
    fn nothing_is_parked_while_the_api_works(events in prop::collection::vec(event(), 0..60)) {
        let mut bad = None;
        play(&events, |_, failing_since, _, way| {
            if failing_since.is_none() && way != Way::Direct {
                bad = Some(way);
            }
        });
        prop_assert_eq!(bad, None);
    }

    #[test]
    fn the_first_errors_park_nothing(events in prop::collection::vec(event(), 0..60)) {
        let (mut marked, mut bad, mut since_then) = (false, false, None);
        play(&events, |now, failing_since, fill, way| {
            if since_then != failing_since {
                (since_then, marked) = (failing_since, false);
            }
            let long = failing_since.is_some_and(|since| now - since >= RULES.park_after_ms);
            marked |= fill >= RULES.park_fill || long;
            bad |= way == Way::Park && !marked;
        });
        prop_assert!(!bad);
    }

    #[test]
    fn the_api_is_always_tried_again(events in prop::collection::vec(event(), 0..60)) {
        let (mut route, mut now) = play(&events, |_, _, _, _| {});
        let limit = now + PROBE_PATIENCE_MS + RETRY_AFTER_MS_MAX + RULES.probe_max_ms;
        loop {
            match route.way(now, CALM) {
                Way::Direct | Way::Probe => break,
                Way::Park => now += 1_000,
                Way::Wait { until_ms } => now = until_ms,
            }
            prop_assert!(now <= limit, "not tried until {now}");
        }
    }

    #[test]
    fn waiting_ends_in_the_future_and_soon(events in prop::collection::vec(event(), 0..60)) {
        let mut bad = None;
        play(&events, |now, _, _, way| {
            if let Way::Wait { until_ms } = way
                && !(now + 1..=now + RETRY_AFTER_MS_MAX).contains(&until_ms)
            {
                bad = Some((now, until_ms));
            }
        });
        prop_assert_eq!(bad, None);
    }

    #[test]
    fn one_probe_at_a_time(events in prop::collection::vec(event(), 0..60)) {
        let (mut route, now) = play(&events, |_, _, _, _| {});
        if route.way(now, CALM) == Way::Probe {
            prop_assert_ne!(route.way(now, CALM), Way::Probe);
        }
    }
}

/// A route that is parking, with no probe due.
fn parking() -> Route {
    let mut route = Route::new(RULES);
    route.heard(0, FAILED, 0.0);
    assert_eq!(route.way(60_000, CALM), Way::Probe);
    route.heard(60_000, FAILED, 0.0);
    assert_eq!(route.way(60_000, CALM), Way::Park);
    route
}

#[test]
fn a_long_failure_parks_and_the_first_answer_ends_it() {
    let mut route = Route::new(RULES);
    route.heard(0, FAILED, 0.0);
    assert_eq!(route.way(0, CALM), Way::Wait { until_ms: 500 });
    assert_eq!(route.way(500, CALM), Way::Direct);
    let mut route = parking();
    assert_eq!(route.state(), State::Park);
    assert_eq!(route.way(65_000, CALM), Way::Probe);
    assert_eq!(route.state(), State::Probe);
    assert_eq!(route.way(65_000, CALM), Way::Park, "the others go on parking");
    route.heard(65_001, Heard::Answered, 0.0);
    assert_eq!((route.way(65_001, CALM), route.state()), (Way::Direct, State::Direct));
}

#[test]
fn a_full_spool_parks_at_once_if_the_api_fails_and_not_if_it_works() {
    let full = Pressure { fill: 0.9, urgent: false };
    let mut route = Route::new(RULES);
    assert_eq!(route.way(0, full), Way::Direct);
    route.heard(0, FAILED, 0.0);
    assert_eq!(route.way(1, full), Way::Park);
}

#[test]
fn what_would_not_survive_the_stop_is_parked_at_once_if_the_api_fails() {
    let urgent = Pressure { fill: 0.0, urgent: true };
    let mut route = Route::new(RULES);
    assert_eq!(route.way(0, urgent), Way::Direct);
    route.heard(0, FAILED, 0.0);
    assert_eq!(route.way(1, urgent), Way::Park);
}

#[test]
fn a_revoked_token_parks_nothing_and_probes_go_on() {
    let mut route = Route::new(RULES);
    route.heard(0, Heard::Denied { revoked: true }, 0.0);
    assert_eq!(route.way(60_000, CALM), Way::Probe);
    route.heard(60_000, Heard::Denied { revoked: true }, 0.0);
    assert_eq!(route.way(60_000, CALM), Way::Wait { until_ms: 65_000 });
    let urgent = Pressure { fill: 0.0, urgent: true };
    assert_eq!(route.way(60_000, urgent), Way::Park, "quarantine is better than nothing");
    route.heard(65_000, Heard::Answered, 0.0);
    assert_eq!(route.way(65_000, CALM), Way::Direct, "with another token");
}

#[test]
fn another_token_is_tried_at_once_and_after_other_failures_changes_nothing() {
    let mut route = Route::new(RULES);
    route.heard(0, Heard::Denied { revoked: true }, 0.0);
    assert_eq!(route.way(60_000, CALM), Way::Probe);
    route.heard(60_000, Heard::Denied { revoked: true }, 0.0);
    assert_eq!(route.way(60_001, CALM), Way::Wait { until_ms: 65_000 });
    route.new_token();
    assert!(!route.denied());
    assert_eq!(route.way(60_002, CALM), Way::Probe);
    route.heard(60_003, FAILED, 0.0);
    let before = route.way(60_004, CALM);
    route.new_token();
    assert_eq!(route.way(60_004, CALM), before);
}

#[test]
fn a_refused_token_parks_up_to_its_cap_and_then_holds() {
    let mut route = Route::new(RULES);
    route.heard(0, Heard::Denied { revoked: false }, 0.0);
    assert_eq!(route.way(60_000, CALM), Way::Probe);
    route.heard(60_000, Heard::Denied { revoked: false }, 0.0);
    assert_eq!(route.way(60_000, CALM), Way::Park);
    route.parked(999);
    assert_eq!(route.way(60_000, CALM), Way::Park);
    route.parked(1);
    assert_eq!(route.way(60_000, CALM), Way::Wait { until_ms: 65_000 });
    assert_eq!(route.way(65_000, CALM), Way::Probe);
    route.heard(65_000, FAILED, 0.0);
    assert_eq!(route.way(65_000, CALM), Way::Park, "a plain failure has no such cap");
}

#[test]
fn retry_after_is_honoured_up_to_its_bound() {
    let mut route = Route::new(RULES);
    route.heard(0, Heard::Failed { retry_after_ms: Some(7_000) }, 0.0);
    assert_eq!(route.way(0, CALM), Way::Wait { until_ms: 7_000 });
    route.heard(7_000, Heard::Failed { retry_after_ms: Some(i64::MAX) }, 0.0);
    assert_eq!(route.way(7_000, CALM), Way::Wait { until_ms: 607_000 });
}

#[test]
fn without_s3_the_api_is_tried_for_ever_with_bounded_pauses() {
    let mut route = Route::new(Rules { spill: false, ..RULES });
    let mut now = 0;
    for _ in 0..50 {
        route.heard(now, FAILED, 0.0);
        let Way::Wait { until_ms } = route.way(now, CALM) else { panic!("no pause") };
        assert!(until_ms - now <= RULES.retry_max_ms);
        now = until_ms;
        assert_eq!(route.way(now, CALM), Way::Direct);
    }
}

#[test]
fn when_s3_fails_too_there_are_pauses_and_probes_go_on() {
    let mut route = parking();
    route.park_failed(60_000, Some(20_000), 0.0);
    assert_eq!(route.way(60_000, CALM), Way::Wait { until_ms: 65_000 });
    assert_eq!(route.way(65_000, CALM), Way::Probe);
}
