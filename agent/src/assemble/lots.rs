//! Lots: as many series as one batch takes.

use spillway_proto::{Series, limits};

use super::Window;
use crate::collect::tray::Pack;
use crate::metrics::{Metrics, Reason};

/// Series of what comes out of packs in one batch. Below the limit: while a batch is made, each
/// takes about 1 KB, and the agent's memory is not ours.
const PACKED_SERIES_MAX: usize = 2_000;
/// Points of them: a batch of these fits a frame whatever their values.
const PACKED_POINTS_MAX: usize = 10_000;

const _: () = assert!(PACKED_SERIES_MAX <= limits::BATCH_SERIES_MAX);
const _: () = assert!(PACKED_POINTS_MAX <= limits::BATCH_POINTS_MAX);

/// Cuts series into lots that the limits allow.
pub fn cut(series: Vec<Series>) -> Vec<Vec<Series>> {
    let (mut lots, mut lot, mut points) = (Vec::new(), Vec::new(), 0);
    for one in series {
        let full = lot.len() >= limits::BATCH_SERIES_MAX
            || points + one.points.len() > limits::BATCH_POINTS_MAX;
        if full && !lot.is_empty() {
            lots.push(std::mem::take(&mut lot));
            points = 0;
        }
        points += one.points.len();
        lot.push(one);
    }
    lots.push(lot);
    lots
}

/// Packs that are unpacked a lot at a time; each goes as soon as it is empty.
pub struct Packed {
    packs: std::vec::IntoIter<Pack>,
    /// The one under way, and how many of its readings were taken.
    current: Option<(Pack, usize)>,
    /// What lies later would cost its whole batch where it is stored.
    latest_ms: i64,
}

impl Packed {
    /// Packs of a window that ended at `now_ms`.
    pub fn new(packs: Vec<Pack>, now_ms: i64) -> Self {
        let mut packs = packs.into_iter();
        let current = packs.next().map(|pack| (pack, 0));
        let latest_ms = now_ms.saturating_add(limits::EDGE_FUTURE_MS_MAX);
        Self { packs, current, latest_ms }
    }

    /// The next lot; none when all was taken.
    pub fn next_lot(&mut self, metrics: &Metrics) -> Option<Vec<Series>> {
        let (mut lot, mut points) = (Window::default(), 0);
        while let Some((pack, taken)) = &mut self.current {
            for (ts_ms, reading) in pack.readings().skip(*taken) {
                if lot.series() >= PACKED_SERIES_MAX || points >= PACKED_POINTS_MAX {
                    return Some(lot.into_series());
                }
                *taken += 1;
                if ts_ms > self.latest_ms {
                    let reason = Reason { reason: "future-time" };
                    metrics.points_dropped.get_or_create(&reason).inc();
                    continue;
                }
                lot.place(ts_ms, reading, metrics);
                points += 1;
            }
            self.current = self.packs.next().map(|pack| (pack, 0));
        }
        Some(lot.into_series()).filter(|series| !series.is_empty())
    }
}
