//! A pack gives back what was put in, and nothing is there that was not reserved.

use proptest::prelude::*;

use super::*;

fn sample<'a>(metric: &'a str, labels: &'a [(Cow<'a, str>, Cow<'a, str>)]) -> Sample<'a> {
    Sample { metric, labels, kind: Kind::Gauge, unit: "1", ts_ms: 7, value: 1.5 }
}

proptest! {
    #[test]
    fn what_was_packed_comes_out_again(
        all in prop::collection::vec(
            (".{1,20}", prop::collection::btree_map("[a-zé]{1,8}", ".{1,12}", 0..6), any::<f64>()),
            0..40,
        )
    ) {
        let tray = Tray::new(1 << 20);
        let shared = vec![("job".into(), "x".to_owned()), ("a".into(), "shared".to_owned())];
        let mut pack = tray.pack(shared);
        for (metric, labels, value) in &all {
            let own = |(k, v): (&'_ String, &'_ String)| (k.clone().into(), v.clone().into());
            let labels: Vec<(Cow<'_, str>, Cow<'_, str>)> = labels.iter().map(own).collect();
            pack.push(&Sample { value: *value, ..sample(metric, &labels) }).unwrap();
        }
        tray.put(pack).unwrap();
        let mut packs = tray.drain();
        let got: Vec<_> = packs.iter().flat_map(Pack::readings).collect();
        prop_assert_eq!(got.len(), all.len());
        for ((ts_ms, reading), (metric, labels, value)) in got.iter().zip(&all) {
            prop_assert_eq!(*ts_ms, 7);
            prop_assert_eq!(reading.metric.as_ref(), metric.as_str());
            prop_assert_eq!(reading.value.to_bits(), value.to_bits());
            let mut expected = labels.clone();
            expected.entry("job".to_owned()).or_insert("x".to_owned());
            expected.entry("a".to_owned()).or_insert("shared".to_owned());
            let got = reading.labels.iter().map(|(k, v)| (k.to_string(), v.clone()));
            let got: Vec<_> = got.collect();
            prop_assert_eq!(got, expected.into_iter().collect::<Vec<_>>());
        }
        packs.clear();
        prop_assert_eq!(tray.bytes(), 0, "every reserved byte came back");
    }
}

#[test]
fn a_spent_budget_is_told_and_costs_nothing_that_is_there() {
    let tray = Tray::new(4_096);
    let mut pack = tray.pack(Labels::new());
    let mut taken = 0;
    while pack.push(&sample("some.metric.with.a.name", &[])).is_ok() {
        taken += 1;
        assert!(tray.bytes() <= 4_096);
    }
    assert!(taken > 10, "{taken}");
    assert_eq!(pack.len(), taken);
    let again = pack.push(&sample("some.metric.with.a.name", &[]));
    assert_eq!(again, Err(Unpackable::Full(Full)));
    tray.put(pack).unwrap();
    let drained = tray.drain();
    assert_eq!(drained[0].readings().count(), taken);
    drop(drained);
    assert_eq!(tray.bytes(), 0);
    assert!(tray.pack(Labels::new()).push(&sample("m", &[])).is_ok());
}

#[test]
fn a_closed_tray_gives_what_it_has_and_refuses_the_rest() {
    let tray = Tray::new(4_096);
    let one = || {
        let mut pack = tray.pack(Labels::new());
        pack.push(&sample("m", &[])).unwrap();
        pack
    };
    tray.put(one()).unwrap();
    assert_eq!(tray.close().len(), 1);
    assert_eq!(tray.put(one()), Err(Full));
    assert_eq!(tray.bytes(), 0);
}

#[test]
fn what_no_batch_can_carry_is_refused_and_an_empty_label_is_none() {
    let tray = Tray::new(1 << 20);
    let mut pack = tray.pack(Labels::new());
    let long = "n".repeat(limits::METRIC_BYTES_MAX + 1);
    assert_eq!(pack.push(&sample(&long, &[])), Err(Unpackable::TooLong));
    let value = "v".repeat(limits::LABEL_VALUE_BYTES_MAX + 1);
    let labels = [(Cow::from("k"), Cow::from(value))];
    assert_eq!(pack.push(&sample("m", &labels)), Err(Unpackable::TooLong));
    let labels = [(Cow::from("k"), Cow::from(""))];
    pack.push(&sample("m", &labels)).unwrap();
    let (_, reading) = pack.readings().next().unwrap();
    assert!(reading.labels.is_empty());
}
