//! The books over what was received. Each record enters when it comes and leaves once, whatever
//! way it goes, so that at any time, in batches and in points (as the frames' headers state them):
//!
//! received = applied (and expired) + duplicate + quarantined + dropped + in flight

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use spillway_proto::kafka_record::Lane;
use std::sync::Arc;

use crate::metrics::{OfLane, add};

/// Handles on the counters; all receipts share them.
#[derive(Debug, Default)]
pub struct Books {
    batches_received: Family<OfLane, Counter>,
    points_received: Family<OfLane, Counter>,
    batches_dropped: Counter,
    points_dropped: Counter,
    batches_in_flight: Gauge,
    points_in_flight: Gauge,
}

impl Books {
    pub fn register(&self, r: &mut Registry) {
        r.register("batches_received", "Records taken from Kafka", self.batches_received.clone());
        let help = "Points of those records, as their headers state";
        r.register("points_received", help, self.points_received.clone());
        let help = "Records let go unapplied, since they are applied already or read again";
        r.register("batches_dropped", help, self.batches_dropped.clone());
        r.register("points_dropped", "Points of those records", self.points_dropped.clone());
        let help = "Records read and not yet committed";
        r.register("batches_in_flight", help, self.batches_in_flight.clone());
        r.register("points_in_flight", "Points of those records", self.points_in_flight.clone());
    }
}

/// A record's entry in the books. Who lets go of a record without [`Receipt::settle`] has it
/// counted as dropped.
#[derive(Debug)]
pub struct Receipt {
    books: Arc<Books>,
    points: u32,
    settled: bool,
}

impl Receipt {
    /// Enters a record with `points` that came by `lane`.
    #[must_use]
    pub fn new(books: &Arc<Books>, lane: Lane, points: usize) -> Self {
        // A header that states more than a frame can have is refused before it is stored.
        let points = u32::try_from(points).unwrap_or(u32::MAX);
        let label = OfLane { lane: lane.as_str() };
        books.batches_received.get_or_create(&label).inc();
        books.points_received.get_or_create(&label).inc_by(u64::from(points));
        add(&books.batches_in_flight, 1);
        add(&books.points_in_flight, i64::from(points));
        Self { books: Arc::clone(books), points, settled: false }
    }

    /// Points that the record's header states.
    #[must_use]
    pub fn points(&self) -> u64 {
        u64::from(self.points)
    }

    /// What became of the record is counted elsewhere.
    pub fn settle(mut self) {
        self.settled = true;
    }
}

impl Drop for Receipt {
    fn drop(&mut self) {
        if !self.settled {
            self.books.batches_dropped.inc();
            self.books.points_dropped.inc_by(u64::from(self.points));
        }
        add(&self.books.batches_in_flight, -1);
        add(&self.books.points_in_flight, -i64::from(self.points));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_received_is_settled_dropped_or_in_flight() {
        let books = Arc::new(Books::default());
        let mut receipts: Vec<Receipt> =
            (1..=4).map(|points| Receipt::new(&books, Lane::Live, points)).collect();
        receipts.remove(0).settle();
        drop(receipts.remove(0));
        let live = OfLane { lane: Lane::Live.as_str() };
        let received = books.points_received.get_or_create(&live).get();
        let (dropped, flying) = (books.points_dropped.get(), books.points_in_flight.get());
        assert_eq!((received, dropped, flying), (10, 2, 7));
        let received = books.batches_received.get_or_create(&live).get();
        let (dropped, flying) = (books.batches_dropped.get(), books.batches_in_flight.get());
        assert_eq!((received, dropped, flying), (4, 1, 2));
    }
}
