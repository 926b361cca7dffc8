//! The books over what senders brought. What a request holds enters once it is read and leaves when
//! the request ends, however it ends, so that at any time, in batches and in points:
//!
//! received = accepted + rejected + not taken + in flight
//!
//! A body that can't be read at all brought nothing that could be counted: it is a request and a
//! problem, and no batch.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::metrics::Reason;
use crate::publish::Acknowledged;
use crate::verify::Checked;

/// Why single points of a foreign body are rejected: their time, name or value has no place here.
const NOT_STORABLE: &str = "not-storable";

/// Counters, cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Books {
    batches: Book,
    points: Book,
}

/// One unit's book.
#[derive(Clone, Debug, Default)]
struct Book {
    received: Counter,
    accepted: Counter,
    rejected: Family<Reason, Counter>,
    not_taken: Counter,
    in_flight: Gauge,
}

impl Books {
    pub fn register(&self, to: &mut Registry) {
        for (unit, book) in [("batches", &self.batches), ("points", &self.points)] {
            let name = |fate: &str| format!("{unit}_{fate}");
            let help = format!("What could be read, in {unit}; repetitions count again");
            to.register(name("received"), help, book.received.clone());
            let help = format!("What senders were told that Kafka has, in {unit}");
            to.register(name("accepted"), help, book.accepted.clone());
            let help = format!("What will never be taken as it is, in {unit}");
            to.register(name("rejected"), help, book.rejected.clone());
            let help = format!("What senders have to bring again, since nobody knows, in {unit}");
            to.register(name("not_taken"), help, book.not_taken.clone());
            let help = format!("What waits for Kafka, in {unit}");
            to.register(name("in_flight"), help, book.in_flight.clone());
        }
    }

    /// Enters what a request brought: its batches, and `refused` points that came into none.
    #[must_use]
    pub fn enter(&self, checked: &Checked, refused: usize) -> Receipt {
        let batches = checked.batches.len() + checked.rejected.len();
        let points = checked.points() + refused;
        Receipt { batches: self.batches.enter(batches), points: self.points.enter(points), refused }
    }
}

impl Book {
    fn enter(&self, number: usize) -> Entry {
        let number = i64::try_from(number).unwrap_or(i64::MAX);
        self.received.inc_by(number.unsigned_abs());
        self.in_flight.inc_by(number);
        Entry { book: self.clone(), open: number }
    }
}

/// What a request brought. Dropped without an outcome, all of it was not taken.
#[derive(Debug)]
pub struct Receipt {
    batches: Entry,
    points: Entry,
    refused: usize,
}

impl Receipt {
    /// Kafka has all that it can take of it.
    pub fn acknowledged(mut self, by: &Acknowledged) {
        self.batches.accepted(by.batches);
        self.points.accepted(by.points);
        for rejection in &by.rejected {
            let reason = rejection.batch.refusal.as_str();
            self.batches.rejected(reason, 1);
            self.points.rejected(reason, rejection.points);
        }
        self.points.rejected(NOT_STORABLE, self.refused);
    }
}

#[derive(Debug)]
struct Entry {
    book: Book,
    /// Without an outcome yet.
    open: i64,
}

impl Entry {
    fn accepted(&mut self, number: usize) {
        let number = self.close(number);
        self.book.accepted.inc_by(number);
    }

    fn rejected(&mut self, reason: &'static str, number: usize) {
        let number = self.close(number);
        if number > 0 {
            self.book.rejected.get_or_create(&Reason { reason }).inc_by(number);
        }
    }

    fn close(&mut self, number: usize) -> u64 {
        let number = i64::try_from(number).unwrap_or(i64::MAX).min(self.open);
        self.open -= number;
        self.book.in_flight.dec_by(number);
        number.unsigned_abs()
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.book.in_flight.dec_by(self.open);
        self.book.not_taken.inc_by(self.open.unsigned_abs());
    }
}
