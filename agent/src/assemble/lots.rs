//! Lots: as many series as one batch takes.

use spillway_proto::{Series, limits};

use super::Window;
use crate::collect::tray::Pack;
use crate::metrics::Metrics;

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
}

impl Packed {
    pub fn new(packs: Vec<Pack>) -> Self {
        let mut packs = packs.into_iter();
        let current = packs.next().map(|pack| (pack, 0));
        Self { packs, current }
    }

    /// The next lot; none when all was taken.
    pub fn next_lot(&mut self, metrics: &Metrics) -> Option<Vec<Series>> {
        let (mut lot, mut points) = (Window::default(), 0);
        while let Some((pack, taken)) = &mut self.current {
            for (ts_ms, reading) in pack.readings().skip(*taken) {
                if lot.series() >= PACKED_SERIES_MAX || points >= PACKED_POINTS_MAX {
                    return Some(lot.into_series());
                }
                lot.place(ts_ms, reading, metrics);
                *taken += 1;
                points += 1;
            }
            self.current = self.packs.next().map(|pack| (pack, 0));
        }
        Some(lot.into_series()).filter(|series| !series.is_empty())
    }
}
