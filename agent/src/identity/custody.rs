//! What a batch's custodian (spool, deliver) tells the agent's books.

use std::io;

use spillway_proto::BatchId;
use uuid::Uuid;

/// The agent's books, as spool and deliver see them.
pub trait CustodyLog: Send + Sync {
    /// The API answered 2xx for this batch: what it carried has arrived. Not said for S3, where
    /// a batch only waits.
    fn accepted(&self, id: &BatchId);

    /// The agent will never send this range, whose bytes it still has. Noted durably before this
    /// returns, so it must be said before the bytes are removed; saying it again for the same
    /// range is harmless. Blocks.
    ///
    /// # Errors
    /// Nothing is noted: whoever has the bytes keeps them.
    fn given_up(&self, given_up: &GivenUp) -> io::Result<()>;

    /// The same of a range whose bytes are gone: what can't be noted durably now is carried all
    /// the same, and noted with what comes next. Blocks.
    fn gone(&self, given_up: &GivenUp);
}

/// A range of batches of one epoch that will not come.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct GivenUp {
    pub epoch: Uuid,
    pub first_seq: u64,
    /// Inclusive.
    pub last_seq: u64,
    /// As far as known.
    pub points: u64,
    pub reason: GivenUpReason,
}

/// Why.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum GivenUpReason {
    /// The oldest backlog made room.
    SpoolFull,
    /// It waited longer than `spool.age_max`.
    SpoolTooOld,
    /// Its record did not survive on disk.
    SpoolDamaged,
    /// It could not be stored.
    SpoolIo,
    /// Its content was refused, twice.
    Refused,
    /// The token is refused and what may be kept for better days is full.
    AuthCap,
    /// It was in memory alone when the agent ended.
    Volatile,
}

impl GivenUpReason {
    /// All of them, so that each is a series from the start.
    pub const ALL: [Self; 7] = [
        Self::SpoolFull,
        Self::SpoolTooOld,
        Self::SpoolDamaged,
        Self::SpoolIo,
        Self::Refused,
        Self::AuthCap,
        Self::Volatile,
    ];

    /// The word in metrics, and the reason of the declaration.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::SpoolFull => "spool-full",
            Self::SpoolTooOld => "spool-too-old",
            Self::SpoolDamaged => "spool-damaged",
            Self::SpoolIo => "spool-io",
            Self::Refused => "refused",
            Self::AuthCap => "auth-cap",
            Self::Volatile => "volatile",
        }
    }
}
