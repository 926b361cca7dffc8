//! Reads a program's `/metrics` page (Prometheus text format, OpenMetrics included).
//! Source of the format: prometheus.io, "Exposition formats".

use std::collections::BTreeMap;

/// One line of the page.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    pub name: String,
    pub labels: BTreeMap<String, String>,
    pub value: f64,
}

/// All samples of one page at one moment.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Metrics {
    samples: Vec<Sample>,
}

impl Metrics {
    /// Lines that are no samples are left out.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        Self { samples: text.lines().filter_map(sample).collect() }
    }

    #[must_use]
    pub fn samples(&self) -> &[Sample] {
        &self.samples
    }

    /// The sum over all label sets; 0 when there is none.
    #[must_use]
    pub fn sum(&self, name: &str) -> f64 {
        self.sum_where(name, &[])
    }

    /// The sum over the samples that carry all of `labels`.
    #[must_use]
    pub fn sum_where(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.matching(name, labels).map(|sample| sample.value).sum()
    }

    /// The largest value over all label sets; `None` when there is none.
    #[must_use]
    pub fn max(&self, name: &str) -> Option<f64> {
        self.matching(name, &[]).map(|sample| sample.value).reduce(f64::max)
    }

    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.matching(name, &[]).next().is_some()
    }

    fn matching<'a>(
        &'a self,
        name: &'a str,
        labels: &'a [(&'a str, &'a str)],
    ) -> impl Iterator<Item = &'a Sample> {
        let wanted = move |sample: &&Sample| {
            sample.name == name
                && labels
                    .iter()
                    .all(|(key, value)| sample.labels.get(*key).is_some_and(|have| have == value))
        };
        self.samples.iter().filter(wanted)
    }
}

fn sample(line: &str) -> Option<Sample> {
    if line.starts_with('#') {
        return None;
    }
    let name_end = line.find(['{', ' '])?;
    let (name, rest) = line.split_at(name_end);
    let (labels, rest) = match rest.strip_prefix('{') {
        Some(rest) => labels(rest)?,
        None => (BTreeMap::new(), rest),
    };
    let value = rest.split_whitespace().next()?.parse().ok()?;
    Some(Sample { name: name.to_owned(), labels, value })
}

/// `a="x",b="y"} …`: the labels, and what follows the brace.
fn labels(mut text: &str) -> Option<(BTreeMap<String, String>, &str)> {
    let mut labels = BTreeMap::new();
    loop {
        text = text.trim_start_matches([',', ' ']);
        if let Some(rest) = text.strip_prefix('}') {
            return Some((labels, rest));
        }
        let (key, rest) = text.split_once("=\"")?;
        let mut value = String::new();
        let mut characters = rest.char_indices();
        text = loop {
            match characters.next()? {
                (at, '"') => break rest.get(at + 1..)?,
                (_, '\\') => value.push(match characters.next()?.1 {
                    'n' => '\n',
                    other => other,
                }),
                (_, other) => value.push(other),
            }
        };
        labels.insert(key.to_owned(), value);
    }
}

#[cfg(test)]
mod tests {
    use super::Metrics;

    const PAGE: &str = "# HELP a_total Things.\n# TYPE a_total counter\n\
        a_total{environment=\"demo\",reason=\"say \\\"}\\\"\\n\"} 3\n\
        a_total{environment=\"acme\"} 4.5\n\
        b_seconds 1e3 1700000000\n# EOF\n";

    #[test]
    fn samples_are_summed_over_labels_and_by_label() {
        let metrics = Metrics::parse(PAGE);
        assert_eq!(metrics.samples().len(), 3);
        assert_eq!(metrics.sum("a_total"), 7.5);
        assert_eq!(metrics.sum_where("a_total", &[("environment", "acme")]), 4.5);
        assert_eq!(metrics.sum_where("a_total", &[("reason", "say \"}\"\n")]), 3.0);
        assert_eq!(metrics.max("b_seconds"), Some(1000.0));
        assert_eq!(metrics.max("nothing"), None);
        assert_eq!(metrics.sum("nothing"), 0.0);
    }
}
