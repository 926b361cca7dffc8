//! Cutting: alike each time, nothing lost, every batch fits a frame, bounds hold.

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;
use spillway_proto::frame::Decoder;
use spillway_proto::{Kind, Point};

use super::*;

/// (host, metric, label, time) to value's bits.
type Points = BTreeMap<(String, String, String, i64), u64>;

#[derive(Clone, Debug)]
struct Sent {
    host: Option<String>,
    metric: String,
    label: String,
    points: Vec<(i64, f64)>,
}

fn intake(body: &[Sent]) -> Intake {
    let mut intake = Intake::new(Arc::from("token-1"), 0);
    for (index, sent) in body.iter().enumerate() {
        let naming = Naming {
            place: ("series", index),
            host: sent.host.as_deref(),
            metric: &sent.metric,
            labels: &[("label", &sent.label)],
            kind: Kind::Gauge,
            unit: "",
        };
        let points: Vec<Point> = sent
            .points
            .iter()
            .map(|(ts_ms, value)| Point { ts_ms: *ts_ms, value: *value })
            .collect();
        intake.put(&naming, &points).unwrap();
    }
    intake
}

fn sent() -> impl Strategy<Value = Sent> {
    let points = prop::collection::vec((0..2_000_000_i64, any::<f64>()), 1..40);
    let names = (prop::option::of("[ab]"), "[a-c]{1,2}", "[xy]?");
    (names, points).prop_map(|((host, metric, label), points)| Sent { host, metric, label, points })
}

fn stored(frames: &[Bytes]) -> Points {
    let mut decoder = Decoder::new();
    let mut stored = Points::new();
    for frame in frames {
        let batch = decoder.decode(frame).unwrap().to_batch();
        for series in batch.series {
            for point in series.points {
                let label = series.labels[0].1.clone();
                let key = (batch.host.clone(), series.metric.clone(), label, point.ts_ms);
                let before = stored.insert(key.clone(), point.value.to_bits());
                assert_eq!(before, None, "{key:?} is there twice");
            }
        }
    }
    stored
}

proptest! {
    #[test]
    fn a_body_is_cut_alike_each_time_and_loses_nothing(
        body in prop::collection::vec(sent(), 0..20),
    ) {
        let (frames, misfits) = frames("demo", intake(&body));
        prop_assert_eq!(misfits, 0);
        let again = super::frames("demo", intake(&body)).0;
        prop_assert_eq!(&frames, &again);
        let mut wanted = Points::new();
        for sent in &body {
            for (ts_ms, value) in &sent.points {
                let host = sent.host.clone().unwrap_or_else(|| "token-1".to_owned());
                let key = (host, sent.metric.clone(), sent.label.clone(), *ts_ms);
                wanted.insert(key, value.to_bits());
            }
        }
        prop_assert_eq!(stored(&frames), wanted);
    }
}

fn large(points: usize) -> Vec<Sent> {
    let points: Vec<(i64, f64)> = (0..points)
        .map(|n| (n as i64, f64::from_bits((n as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15))))
        .collect();
    vec![Sent { host: None, metric: "m".to_owned(), label: "l".to_owned(), points }]
}

#[test]
fn a_series_that_does_not_fit_one_batch_goes_on_in_the_next() {
    let (frames, misfits) = frames("demo", intake(&large(45_000)));
    assert_eq!((frames.len(), misfits), (3, 0));
    assert_eq!(stored(&frames).len(), 45_000);
}

#[test]
fn texts_that_can_not_be_compressed_fit_a_frame_too() {
    let body: Vec<Sent> = (0..20_000_u64)
        .map(|n| {
            let noise = |seed: u64| {
                let words =
                    (0..30).map(|word| (n * 64 + word + seed).wrapping_mul(0x9e37_79b9_7f4a));
                words.map(|word| format!("{word:x}")).collect::<String>()
            };
            Sent { host: None, metric: noise(0), label: noise(7), points: vec![(1, 1.0)] }
        })
        .collect();
    let (frames, misfits) = frames("demo", intake(&body));
    assert_eq!((misfits, stored(&frames).len()), (0, 20_000));
}

#[test]
fn what_a_frame_refuses_is_refused_by_series_and_the_rest_is_taken() {
    let mut body = large(3);
    body.push(Sent { metric: String::new(), ..body[0].clone() });
    body.push(Sent { metric: "x".repeat(513), ..body[0].clone() });
    body.push(Sent { host: Some("h".repeat(256)), ..body[0].clone() });
    body.push(Sent { label: "v".repeat(1_025), ..body[0].clone() });
    body.push(Sent { points: vec![(-1, 0.0), (7, 0.0), (i64::MAX, 0.0)], ..body[0].clone() });
    let intake = intake(&body);
    assert_eq!((intake.points(), intake.refusals.points), (4, 4 * 3 + 2));
    assert_eq!(intake.refusals.told.len(), 5);
    assert!(intake.refusals.told[1].contains("the limit is 512"), "{:?}", intake.refusals.told);
    let text = intake.refusals.text(100);
    assert!(text.starts_with("14 points refused: ") && text.len() <= 100, "{text}");
    assert_eq!(frames("demo", intake).1, 0);
}

#[test]
fn a_body_that_unfolds_beyond_the_budget_is_refused_whole() {
    let mut intake = Intake::new(Arc::from("t"), 0);
    let long = "v".repeat(1_000);
    let refused = (0..1_000_000).find_map(|n: usize| {
        let number = n.to_string();
        let labels = [("a", number.as_str()), ("b", long.as_str())];
        let naming = Naming {
            place: ("series", n),
            host: None,
            metric: "m",
            labels: &labels,
            kind: Kind::Gauge,
            unit: "",
        };
        intake.put(&naming, &[Point { ts_ms: 1, value: 1.0 }]).err()
    });
    assert_eq!(refused.map(|much| much.what), Some("bytes of names and points"));
}

#[test]
fn a_name_with_nul_costs_its_own_series_and_no_other() {
    let sent = |host: Option<&str>, metric: &str, label: &str| Sent {
        host: host.map(str::to_owned),
        metric: metric.to_owned(),
        label: label.to_owned(),
        points: vec![(1_000, 1.0)],
    };
    let body = [
        sent(None, "good", "x"),
        sent(None, "b\0d", "x"),
        sent(None, "bad", "x\0"),
        sent(Some("h\0"), "bad", "x"),
    ];
    let intake = intake(&body);
    assert_eq!((intake.points(), intake.refusals.points), (1, 3));
    let (frames, misfits) = frames("demo", intake);
    assert_eq!((frames.len(), misfits), (1, 0));
}
