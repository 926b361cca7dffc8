//! Samples as curves: gauges by their mean, counters by their rise per second. A step without a
//! sample is a gap in the curve, not a line across it.

use std::collections::BTreeMap;

use serde_json::{Value as Json, json};

use super::Range;
use super::ask::Sample;

/// Curves in one chart: the ones that reach highest.
const CURVES_MAX: usize = 8;

/// `{"ts": […], "series": [{"label": …, "values": […]}], "hidden": n}`
pub fn curves(samples: Vec<Sample>, range: Range, to: i64) -> Json {
    let step = i64::from(range.step);
    let first = (to - i64::from(range.seconds)) / step * step;
    let ts: Vec<i64> = (0..).map(|i| first + i * step).take_while(|at| *at < to).collect();
    let mut series: BTreeMap<String, Vec<Option<f64>>> = BTreeMap::new();
    let mut before: Option<(String, i64, f64)> = None;
    for sample in samples {
        let value = value_of(&sample, step, before.as_ref());
        if let Some(last) = sample.last {
            before = Some((sample.labels.clone(), sample.at, last));
        }
        let Ok(index) = usize::try_from((sample.at - first) / step) else { continue };
        let values = series.entry(label_of(&sample.labels)).or_insert_with(|| vec![None; ts.len()]);
        if let Some(slot) = values.get_mut(index) {
            *slot = value;
        }
    }
    let mut series: Vec<_> = series.into_iter().collect();
    let top = |values: &[Option<f64>]| values.iter().flatten().copied().fold(0.0, f64::max);
    series.sort_by(|(_, a), (_, b)| top(b).total_cmp(&top(a)));
    let hidden = series.len().saturating_sub(CURVES_MAX);
    series.truncate(CURVES_MAX);
    let series: Vec<Json> = series
        .into_iter()
        .map(|(label, values)| json!({ "label": label, "values": values }))
        .collect();
    json!({ "ts": ts, "series": series, "hidden": hidden })
}

fn value_of(sample: &Sample, step: i64, before: Option<&(String, i64, f64)>) -> Option<f64> {
    match sample.kind.as_str() {
        "delta" => Some(sample.sum? / step as f64),
        "cumulative" if sample.rise.is_some() => {
            let (rise, seconds) = sample.rise?;
            Some(rise / seconds.max(1) as f64)
        }
        "cumulative" => {
            let (_, at, last) = before.filter(|(labels, _, _)| *labels == sample.labels)?;
            let rise = sample.last? - last;
            // A counter that fell was reset: what it rose by in between is not known here.
            (rise >= 0.0).then(|| rise / (sample.at - at).max(1) as f64)
        }
        _ => sample.mean,
    }
}

/// `{"device":"sda"}` is `sda`; several labels are `a=b, c=d`.
fn label_of(labels: &str) -> String {
    let parsed: BTreeMap<String, Json> = serde_json::from_str(labels).unwrap_or_default();
    let value = |json: &Json| json.as_str().map_or_else(|| json.to_string(), str::to_owned);
    match parsed.len() {
        1 => parsed.values().map(value).collect(),
        _ => {
            let pairs = parsed.iter().map(|(name, json)| format!("{name}={}", value(json)));
            pairs.collect::<Vec<_>>().join(", ")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(kind: &str, at: i64, last: f64) -> Sample {
        let labels = "{\"device\":\"<b>\"}".to_owned();
        let kind = kind.to_owned();
        Sample { labels, kind, at, mean: Some(last), sum: Some(last), last: Some(last), rise: None }
    }

    const RANGE: Range = Range { seconds: 50, step: 10 };

    #[test]
    fn a_counter_becomes_a_rate_and_a_reset_or_a_pause_is_a_gap() {
        let samples = [(0, 100.0), (10, 150.0), (20, 10.0), (40, 30.0)];
        let samples = samples.map(|(at, last)| sample("cumulative", at, last)).into();
        let drawn = curves(samples, RANGE, 50);
        assert_eq!(drawn["ts"], json!([0, 10, 20, 30, 40]));
        assert_eq!(drawn["series"][0]["values"], json!([null, 5.0, null, null, 1.0]));
        assert_eq!(drawn["series"][0]["label"], "<b>", "text, for the page to keep as text");
    }

    #[test]
    fn a_rollups_increase_is_taken_as_the_keeper_computed_it() {
        let mut minute = sample("cumulative", 20, 7.0);
        minute.rise = Some((120.0, 60));
        let drawn = curves(vec![minute], RANGE, 50);
        assert_eq!(drawn["series"][0]["values"], json!([null, null, 2.0, null, null]));
    }

    #[test]
    fn gauges_are_means_and_deltas_are_per_second() {
        let gauge = curves(vec![sample("gauge", 20, 7.0)], RANGE, 50);
        assert_eq!(gauge["series"][0]["values"], json!([null, null, 7.0, null, null]));
        let delta = curves(vec![sample("delta", 20, 70.0)], RANGE, 50);
        assert_eq!(delta["series"][0]["values"][2], 7.0);
    }
}
