//! Prometheus text, as far as the page needs it: each metric's samples folded over its labels.

use std::collections::BTreeMap;

/// Names on one page at most; more is not one of our programs.
const NAMES_MAX: usize = 10_000;

/// One program's page, folded.
#[derive(Debug, Clone, Default)]
pub struct Readings {
    sums: BTreeMap<String, f64>,
    peaks: BTreeMap<String, f64>,
    /// Sums over the samples whose label `status` is 5xx.
    refusals: BTreeMap<String, f64>,
}

impl Readings {
    /// What is no sample is passed over.
    pub fn parse(text: &str) -> Self {
        let mut readings = Self::default();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let Some((name, labels, value)) = sample(line) else { continue };
            if readings.sums.len() >= NAMES_MAX && !readings.sums.contains_key(name) {
                continue;
            }
            *readings.sums.entry(name.to_owned()).or_insert(0.0) += value;
            let peak = readings.peaks.entry(name.to_owned()).or_insert(value);
            *peak = peak.max(value);
            if labels.contains("status=\"5") {
                *readings.refusals.entry(name.to_owned()).or_insert(0.0) += value;
            }
        }
        readings
    }

    /// Summed over all labels.
    pub fn sum(&self, name: &str) -> Option<f64> {
        self.sums.get(name).copied()
    }

    /// The largest over all labels.
    pub fn peak(&self, name: &str) -> Option<f64> {
        self.peaks.get(name).copied()
    }

    /// Of a counter of requests: those answered with 5xx.
    pub fn refusals(&self, name: &str) -> f64 {
        self.refusals.get(name).copied().unwrap_or(0.0)
    }
}

fn sample(line: &str) -> Option<(&str, &str, f64)> {
    let end = line.find(['{', ' '])?;
    let (name, rest) = line.split_at_checked(end)?;
    // A label's value may hold spaces and escaped quotes, but the last brace ends the labels.
    let (labels, values) = match rest.starts_with('{') {
        true => rest.rsplit_once('}')?,
        false => ("", rest),
    };
    let value: f64 = values.split_whitespace().next()?.parse().ok()?;
    value.is_finite().then_some((name, labels, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_folded_over_their_labels_and_noise_is_passed_over() {
        let text = "# HELP a b\na_total{x=\"1 }\",y=\"q\"} 2\na_total{x=\"2\"} 3.5 1700000000\n\
                    b 7\nbroken\nnan NaN\nr{status=\"503\"} 4\nr{status=\"200\"} 9\n# EOF\n";
        let readings = Readings::parse(text);
        assert_eq!((readings.sum("a_total"), readings.peak("a_total")), (Some(5.5), Some(3.5)));
        assert_eq!(readings.sum("b"), Some(7.0));
        assert_eq!((readings.sum("nan"), readings.sum("broken")), (None, None));
        assert_eq!((readings.sum("r"), readings.refusals("r")), (Some(13.0), 4.0));
    }
}
