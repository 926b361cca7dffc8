//! Whether a series behaves as it never did: a pure function of its recent minutes and of what it
//! was at this hour before.
//!
//! The measure is the robust z-score: how many deviations the present lies from the median of the
//! recent past, the deviation being 1.4826 × the median absolute deviation (Iglewicz and Hoaglin,
//! "How to Detect and Handle Outliers", 1993; 1.4826 makes it the standard deviation's equal for
//! normal noise). Median and MAD bear up to half of the past being odd itself.
//!
//! What keeps false alarms few:
//! - It must last: all but one of the last minutes lie beyond the threshold, on the same side.
//! - A series that hardly moves has no deviation to speak of: a share of its level stands in.
//! - What it did at this hour of the day or the week before is no anomaly, however odd it looks
//!   beside the last hours.

/// Minutes that are judged.
pub const PRESENT: usize = 6;
/// Of them, how many may be inconspicuous.
const CALM_MAX: usize = 1;
/// Minutes of history needed, and used.
pub const HISTORY_MIN: usize = 60;
pub const HISTORY: usize = 180;
/// Deviations from which on a minute is conspicuous, and below which an anomaly is over.
const Z_OPEN: f64 = 6.0;
const Z_CLOSE: f64 = 3.5;
/// From MAD to standard deviation.
const MAD_TO_SIGMA: f64 = 1.482_6;
/// A deviation is at least this share of the level…
const LEVEL_SHARE: f64 = 0.01;
/// …and this share of the range the history spans, which a quiet median hides from the MAD.
const RANGE_SHARE: f64 = 0.1;
/// At this many earlier hours of the same name it must not have been so.
const SEEN_BEFORE: usize = 2;

/// What one hour of the past spanned.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Reach {
    pub min: f64,
    pub max: f64,
}

/// What is known of a series, oldest first.
#[derive(Clone, Debug, Default)]
pub struct Known {
    /// A value a minute; the last [`PRESENT`] are judged by the others.
    pub minutes: Vec<f64>,
    /// The same hour of earlier days and weeks.
    pub same_hour: Vec<Reach>,
}

/// What is found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Finding {
    /// As ever, or too little is known.
    Calm,
    /// Between the thresholds: an open anomaly stays open, a new one is not opened.
    Uneasy,
    Anomaly(Oddity),
}

/// How odd.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Oddity {
    /// The median of the last minutes and of the history.
    pub value: f64,
    pub usual: f64,
    /// Deviations between the two.
    pub z: f64,
}

/// Judges the last minutes.
#[must_use]
pub fn judge(known: &Known) -> Finding {
    let count = known.minutes.len();
    let (history, present) = known.minutes.split_at(count.saturating_sub(PRESENT));
    let history = history.get(history.len().saturating_sub(HISTORY)..).unwrap_or_default();
    if history.len() < HISTORY_MIN || present.len() < PRESENT {
        return Finding::Calm;
    }
    let Some(usual) = median(history.to_vec()) else { return Finding::Calm };
    let sigma = deviation(history, usual);
    let scores: Vec<f64> = present.iter().map(|value| (value - usual) / sigma).collect();
    let beyond = |z: f64, side: f64| scores.iter().filter(|score| *score * side > z).count();
    let side = if beyond(Z_CLOSE, 1.0) >= beyond(Z_CLOSE, -1.0) { 1.0 } else { -1.0 };
    if beyond(Z_CLOSE, side) <= CALM_MAX {
        return Finding::Calm;
    }
    let Some(value) = median(present.to_vec()) else { return Finding::Calm };
    let slack = Z_CLOSE * sigma;
    let seen = known.same_hour.iter().filter(|reach| {
        if side > 0.0 { reach.max + slack >= value } else { reach.min - slack <= value }
    });
    if seen.count() >= SEEN_BEFORE {
        return Finding::Calm;
    }
    if beyond(Z_OPEN, side) + CALM_MAX < PRESENT {
        return Finding::Uneasy;
    }
    Finding::Anomaly(Oddity { value, usual, z: (value - usual) / sigma })
}

fn deviation(history: &[f64], usual: f64) -> f64 {
    let distances: Vec<f64> = history.iter().map(|value| (value - usual).abs()).collect();
    let mad = median(distances).unwrap_or(0.0);
    // One or two odd minutes in the past are not the range.
    let (low, high) = (quantile(history.to_vec(), 0.02), quantile(history.to_vec(), 0.98));
    let range = high.unwrap_or(usual) - low.unwrap_or(usual);
    let least = (usual.abs() * LEVEL_SHARE).max(range * RANGE_SHARE).max(f64::MIN_POSITIVE);
    (mad * MAD_TO_SIGMA).max(least)
}

fn median(values: Vec<f64>) -> Option<f64> {
    quantile(values, 0.5)
}

fn quantile(mut values: Vec<f64>, share: f64) -> Option<f64> {
    values.sort_unstable_by(f64::total_cmp);
    let last = values.len().checked_sub(1)?;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "a place in a short list"
    )]
    let place = (last as f64 * share).round() as usize;
    values.get(place).copied()
}

#[cfg(test)]
#[path = "detect_tests.rs"]
mod tests;
