//! Prometheus text, as far as the page needs it: the sum of each metric's samples over its labels.

use std::collections::BTreeMap;

/// Names on one page at most; more is not one of our programs.
const NAMES_MAX: usize = 10_000;

/// Each metric's samples, summed over labels. What is no sample is passed over.
pub fn sums(text: &str) -> BTreeMap<String, f64> {
    let mut sums = BTreeMap::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let Some((name, value)) = sample(line) else { continue };
        if sums.len() >= NAMES_MAX && !sums.contains_key(name) {
            continue;
        }
        *sums.entry(name.to_owned()).or_insert(0.0) += value;
    }
    sums
}

fn sample(line: &str) -> Option<(&str, f64)> {
    let end = line.find(['{', ' '])?;
    let (name, rest) = line.split_at_checked(end)?;
    // A label's value may hold spaces and escaped quotes, but the last brace ends the labels.
    let values = match rest.starts_with('{') {
        true => rest.rsplit_once('}')?.1,
        false => rest,
    };
    let value: f64 = values.split_whitespace().next()?.parse().ok()?;
    value.is_finite().then_some((name, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_summed_over_their_labels_and_noise_is_passed_over() {
        let text = "# HELP a b\na_total{x=\"1 }\",y=\"q\"} 2\na_total{x=\"2\"} 3.5 1700000000\n\
                    b 7\nbroken\nnan NaN\n# EOF\n";
        let sums = sums(text);
        assert_eq!(sums.get("a_total"), Some(&5.5));
        assert_eq!(sums.get("b"), Some(&7.0));
        assert_eq!(sums.len(), 2);
    }
}
