//! What goes wrong at the moment: each fault has a rate in percent, set by the director
//! (`director.rs`) and asked by whatever it strikes.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use crate::chance;

/// Everything that may strike an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// No connection to ingest-api.
    ApiUnreachable,
    /// The request never arrives; the sender hears nothing.
    RequestLost,
    /// The request is taken, the sender hears nothing.
    AnswerLost,
    /// The connection breaks before the request arrives.
    ResetBefore,
    /// The connection breaks after the request was taken.
    ResetAfter,
    /// Seconds on the way, which also lets requests overtake each other.
    NetworkSlow,
    /// Something in between sends the request once more, up to half a minute later.
    RequestTwice,
    /// A captive portal says 200, a broken proxy 502, a narrow one 413.
    Portal,
    /// The head of a true answer, and then the end of the connection.
    AnswerCut,
    /// The token is not accepted for a while.
    TokenRefused,
    S3Denied,
    S3SlowDown,
    /// A request is lost before it takes effect.
    S3Lost,
    /// A request takes effect and its answer is lost.
    S3AnswerLost,
    /// New objects are listed late.
    S3ListsLate,
    /// A GET ends early.
    S3Truncated,
    /// A GET gives other bytes.
    S3Garbled,
    /// A condition does not hold though nobody wrote (412).
    S3Precondition,
    /// Consumers stand still.
    ConsumersAway,
    /// The broker takes nothing until it is back.
    BrokerDown,
    /// Acknowledgements come seconds later.
    BrokerSlow,
    /// Stored, and reported as timed out.
    AckLost,
    /// Not stored, and reported as timed out.
    RecordLost,
    /// Stored, and recognised as a repetition: no offset.
    Offsetless,
    /// The broker's own validation refuses the record.
    InvalidRecord,
    QueueFull,
    /// A fatal error of the producer.
    ProducerFatal,
    DiskWrite,
    DiskSync,
    DiskRead,
    DiskFull,
    DiskSlow,
    /// The state directory can't be written.
    StateWrite,
}

impl Fault {
    pub const ALL: [Self; 33] = [
        Self::ApiUnreachable,
        Self::RequestLost,
        Self::AnswerLost,
        Self::ResetBefore,
        Self::ResetAfter,
        Self::NetworkSlow,
        Self::RequestTwice,
        Self::Portal,
        Self::AnswerCut,
        Self::TokenRefused,
        Self::S3Denied,
        Self::S3SlowDown,
        Self::S3Lost,
        Self::S3AnswerLost,
        Self::S3ListsLate,
        Self::S3Truncated,
        Self::S3Garbled,
        Self::S3Precondition,
        Self::ConsumersAway,
        Self::BrokerDown,
        Self::BrokerSlow,
        Self::AckLost,
        Self::RecordLost,
        Self::Offsetless,
        Self::InvalidRecord,
        Self::QueueFull,
        Self::ProducerFatal,
        Self::DiskWrite,
        Self::DiskSync,
        Self::DiskRead,
        Self::DiskFull,
        Self::DiskSlow,
        Self::StateWrite,
    ];
}

/// The rates in force.
#[derive(Debug, Default)]
pub struct Weather {
    rates: Mutex<BTreeMap<Fault, u32>>,
}

impl Weather {
    pub fn set(&self, fault: Fault, percent: u32) {
        let mut rates = self.rates.lock().unwrap_or_else(PoisonError::into_inner);
        match percent {
            0 => rates.remove(&fault),
            percent => rates.insert(fault, percent),
        };
    }

    /// Nothing goes wrong from now on.
    pub fn clear(&self) {
        self.rates.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Whether it strikes this time.
    #[must_use]
    pub fn strikes(&self, fault: Fault) -> bool {
        chance::percent(self.rate(fault))
    }

    /// Whether it is there at all.
    #[must_use]
    pub fn is_on(&self, fault: Fault) -> bool {
        self.rate(fault) > 0
    }

    fn rate(&self, fault: Fault) -> u32 {
        let rates = self.rates.lock().unwrap_or_else(PoisonError::into_inner);
        rates.get(&fault).copied().unwrap_or_default()
    }
}
