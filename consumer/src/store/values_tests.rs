//! Every f64 comes back exact from the text it is stored as, in each of its forms.

use proptest::prelude::*;

use super::*;

fn text(samples: &[(i64, f64)]) -> String {
    let mut out = Vec::new();
    encode_vals(&mut out, samples);
    String::from_utf8(out).expect("ascii")
}

fn decoded(text: &str) -> Vec<(i64, f64)> {
    let mut out = Vec::new();
    decode_vals(text.as_bytes(), &mut out).expect("our own text");
    out
}

/// Equal bit by bit, where every NaN and infinity counts as the one null.
fn same(left: &[(i64, f64)], right: &[(i64, f64)]) -> bool {
    let bits = |v: f64| if v.is_finite() { v.to_bits() } else { f64::NAN.to_bits() };
    left.len() == right.len()
        && left.iter().zip(right).all(|(a, b)| a.0 == b.0 && bits(a.1) == bits(b.1))
}

#[test]
fn regular_samples_are_a_plain_array_and_others_are_pairs() {
    assert_eq!(text(&[(0, 1.0), (2500, 2.5), (5000, -3.0), (7500, 0.25)]), "[1,2.5,-3,0.25]");
    assert_eq!(text(&[(0, 1.0), (2501, 2.0)]), "[[0,1],[2501,2]]");
    assert_eq!(text(&[(0, 7.0)]), "[7]");
    assert_eq!(text(&[(1, 7.0)]), "[[1,7]]");
    assert_eq!(text(&[]), "[]");
}

#[test]
fn values_no_double_can_hold_are_null_and_never_stand_in_a_plain_array_of_several() {
    assert_eq!(text(&[(0, f64::NAN)]), "[null]");
    assert_eq!(text(&[(0, f64::INFINITY), (5000, 1.0)]), "[[0,null],[5000,1]]");
}

#[test]
fn numbers_are_bare_only_where_the_servers_json_parser_is_exact() {
    for (value, expected) in [
        (0.0, "[0]"),
        (-0.0, "[\"-0.0\"]"),
        (9_007_199_254_740_991.0, "[9007199254740991]"),
        (9_007_199_254_740_992.0, "[\"9007199254740992.0\"]"),
        (0.1, "[0.1]"),
        (123.456, "[123.456]"),
        (1.5e-10, "[1.5e-10]"),
        (1.5e-22, "[\"1.5e-22\"]"),
        (0.123_456_789_012_345, "[0.123456789012345]"),
        (0.123_456_789_012_345_6, "[\"0.1234567890123456\"]"),
        (1e300, "[\"1e+300\"]"),
        (5e-324, "[\"5e-324\"]"),
        (f64::MAX, "[\"1.7976931348623157e+308\"]"),
    ] {
        assert_eq!(text(&[(0, value)]), expected, "{value:e}");
    }
}

#[test]
fn a_row_of_one_sample_has_no_summary() {
    assert_eq!(summarize(&[(3, 1.0)]), None);
}

#[test]
fn a_summary_counts_values_only_and_saturates() {
    let summary = summarize(&[(0, f64::NAN), (1, 3.0), (2, -1.0), (3, f64::NAN)]);
    let expected = Summary {
        cnt: 2,
        sum: Some(2.0),
        min: Some(-1.0),
        max: Some(3.0),
        first: Some(3.0),
        last: Some(-1.0),
    };
    assert_eq!(summary, Some(expected));
    let huge = summarize(&[(0, f64::MAX), (1, f64::MAX)]).expect("two samples");
    assert_eq!(huge.sum, Some(f64::MAX));
    let none = summarize(&[(0, f64::NAN), (1, f64::NAN)]).expect("two samples");
    assert_eq!((none.cnt, none.sum, none.last), (0, None, None));
}

#[test]
fn the_last_given_sample_of_a_millisecond_wins() {
    let mut samples = vec![(5, 1.0), (1, 2.0), (5, 3.0), (5, 4.0), (0, 0.0)];
    normalize(&mut samples);
    assert_eq!(samples, [(0, 0.0), (1, 2.0), (5, 4.0)]);
}

#[test]
fn a_text_of_someone_else_is_an_error_and_not_a_panic() {
    let others =
        ["", "[", "[1", "[1,]", "[1]]", "[[1,2]", "[[1],2]", "[x]", "[\"1]", "1", "[1,[2,3]]"];
    for text in others {
        let mut out = Vec::new();
        assert!(decode_vals(text.as_bytes(), &mut out).is_err(), "{text}");
    }
}

fn any_samples() -> impl Strategy<Value = Vec<(i64, f64)>> {
    let value = prop_oneof![
        any::<u64>().prop_map(f64::from_bits),
        (-1_000_000i32..1_000_000).prop_map(f64::from),
        (-1_000_000i32..1_000_000).prop_map(|v| f64::from(v) / 100.0),
    ];
    prop_oneof![
        prop::collection::vec((0i64..10_000, value.clone()), 0..40),
        prop::sample::select(vec![1usize, 2, 4, 5, 8, 10, 20])
            .prop_flat_map(move |n| prop::collection::vec(value.clone(), n))
            .prop_map(|values| {
                let step = 10_000 / i64::try_from(values.len()).expect("small");
                (0i64..).zip(values).map(|(i, v)| (i * step, v)).collect()
            }),
    ]
    .prop_map(|mut samples| {
        normalize(&mut samples);
        samples
    })
}

proptest! {
    #[test]
    fn what_is_encoded_is_decoded_bit_by_bit(samples in any_samples()) {
        prop_assert!(same(&decoded(&text(&samples)), &samples));
    }

    #[test]
    fn applying_samples_again_changes_nothing(a in any_samples(), b in any_samples()) {
        let once = merge(&a, &b);
        prop_assert!(once.is_sorted_by(|x, y| x.0 < y.0));
        prop_assert!(same(&merge(&once, &b), &once));
        prop_assert!(same(&merge(&decoded(&text(&once)), &b), &once));
    }

    #[test]
    fn decoding_any_bytes_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
        let mut out = Vec::new();
        match decode_vals(&bytes, &mut out) { Ok(()) | Err(_) => {} }
    }
}
