//! What a series may be called: one rule for whoever reads a frame and whoever makes one of a
//! stranger's words.

use super::about::check_host;
use super::{FrameError, within};
use crate::limits;

/// What is wrong with a series' names.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameFault {
    #[error("{what} is {got}, the limit is {max}")]
    Limit { what: &'static str, got: u64, max: u64 },
    #[error("{0}")]
    Wrong(&'static str),
}

impl NameFault {
    pub(super) fn of(self, series: usize) -> FrameError {
        match self {
            Self::Limit { what, got, max } => FrameError::Limit { what, got, max },
            Self::Wrong(what) => FrameError::Series { series, what },
        }
    }
}

impl From<FrameError> for NameFault {
    fn from(error: FrameError) -> Self {
        match error {
            FrameError::Limit { what, got, max } => Self::Limit { what, got, max },
            FrameError::Content(what) => Self::Wrong(what),
            _ => Self::Wrong("its names are malformed"),
        }
    }
}

/// Whether a host may be called so.
///
/// # Errors
/// [`NameFault`].
pub fn check_host_name(host: &str) -> Result<(), NameFault> {
    Ok(check_host(host)?)
}

/// Whether a series may have this metric, unit and labels; labels come sorted by name.
///
/// # Errors
/// The first [`NameFault`].
pub fn check<'a>(
    metric: &str,
    unit: &str,
    labels: impl Iterator<Item = (&'a str, &'a str)>,
) -> Result<(), NameFault> {
    within("length of a metric's name", metric.len(), limits::METRIC_BYTES_MAX)?;
    within("length of a unit", unit.len(), limits::UNIT_BYTES_MAX)?;
    if metric.is_empty() {
        return Err(NameFault::Wrong("its metric has no name"));
    }
    let (mut before, mut bytes, mut count) = (None, 0, 0);
    for (name, value) in labels {
        within("length of a label's name", name.len(), limits::LABEL_NAME_BYTES_MAX)?;
        within("length of a label's value", value.len(), limits::LABEL_VALUE_BYTES_MAX)?;
        bytes += name.len() + value.len();
        count += 1;
        if name.is_empty() {
            return Err(NameFault::Wrong("a label has no name"));
        }
        if before.is_some_and(|before| before >= name) {
            return Err(NameFault::Wrong("its labels are not sorted and unique"));
        }
        before = Some(name);
    }
    within("labels of one series", count, limits::LABELS_MAX)?;
    within("length of one series' labels", bytes, limits::LABELS_BYTES_MAX)?;
    Ok(())
}
