//! The first stage: whether a request may come in now. Everything refused here can come later.

mod budget;
mod rules;
mod turns;

use std::num::NonZero;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use spillway_proto::frame::Header;
use spillway_runtime::watched_file::WatchedFile;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

pub use budget::{Budget, NoRoom, Room};
pub use rules::{Rules, RulesError};
pub use turns::{Turn, Turns};

use crate::authenticate::Caller;
use crate::metrics::Metrics;
use crate::settings::IngestSettings;

/// Small requests that are checked at once beyond the processors: while one waits for its turn to
/// run, another one does.
const SMALL_AT_ONCE_BEYOND: usize = 1;

/// Why a request may not come in now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAdmitted {
    #[error("this server is shutting down")]
    Draining,
    #[error("Kafka's topics could not be checked yet, because Kafka does not answer")]
    KafkaUnchecked,
    #[error("the operators have paused this environment")]
    Paused,
    #[error("the operators admit a part of all agents at a time, and this one is not in it yet")]
    NotInShare,
    #[error("too much is in work: {0}")]
    NoRoom(#[from] NoRoom),
}

/// The door of ingest-api.
#[derive(Debug)]
pub struct Admission {
    budget: Arc<Budget>,
    /// At checking requests that unfold to little.
    pub small: Turns,
    /// At checking those that unfold to much.
    pub large: Turns,
    /// At unpacking, reading and cutting foreign bodies.
    pub foreign: Turns,
    rules: Option<WatchedFile<Rules>>,
    topics_checked: AtomicBool,
    closing: CancellationToken,
}

impl Admission {
    #[must_use]
    pub fn new(
        settings: &IngestSettings,
        metrics: &Metrics,
        reload: watch::Receiver<u64>,
        closing: CancellationToken,
    ) -> Self {
        let body_bytes_max = settings.http.body_bytes_max.as_usize();
        let file = settings.admission.file.as_ref();
        let threads = std::thread::available_parallelism().map_or(1, NonZero::get);
        let large = settings.admission.large_at_once as usize;
        Self {
            budget: Budget::new(&settings.admission, body_bytes_max, metrics),
            small: Turns::new(threads + SMALL_AT_ONCE_BEYOND, threads),
            large: Turns::new(large, threads),
            foreign: Turns::new(large, threads),
            rules: file.map(|path| {
                let without = "every environment is let in";
                WatchedFile::optional(path, reload, without, Rules::parse)
            }),
            topics_checked: AtomicBool::new(false),
            closing,
        }
    }

    /// The topics are what they must be: batches may be published.
    pub fn topics_are_checked(&self) {
        self.topics_checked.store(true, Ordering::Release);
    }

    /// Whether anything is taken at all.
    ///
    /// # Errors
    /// [`NotAdmitted::Draining`] or [`NotAdmitted::KafkaUnchecked`].
    pub fn open(&self) -> Result<(), NotAdmitted> {
        if self.closing.is_cancelled() {
            return Err(NotAdmitted::Draining);
        }
        if !self.topics_checked.load(Ordering::Acquire) {
            return Err(NotAdmitted::KafkaUnchecked);
        }
        Ok(())
    }

    /// Room for a body of `bytes`; it is held until the answer is known.
    ///
    /// # Errors
    /// [`NotAdmitted::Paused`] or [`NotAdmitted::NoRoom`], the latter after a bounded wait.
    pub async fn room(
        &self,
        caller: &Caller,
        bytes: usize,
        within: Duration,
    ) -> Result<Room, NotAdmitted> {
        if self.rules().is_some_and(|rules| rules.is_paused(&caller.environment)) {
            return Err(NotAdmitted::Paused);
        }
        Ok(self.budget.reserve(&caller.environment, bytes, within).await?)
    }

    /// Whether the agent that made the first frame of `body` is in the admitted share. A body
    /// comes from one agent, and one that can't be read is refused for that, later.
    ///
    /// # Errors
    /// [`NotAdmitted::NotInShare`].
    pub fn agent(&self, body: &Bytes) -> Result<(), NotAdmitted> {
        let Some(rules) = self.rules() else { return Ok(()) };
        match Header::parse(body) {
            Ok(header) if !rules::admits(&rules, &header.id) => Err(NotAdmitted::NotInShare),
            Ok(_) | Err(_) => Ok(()),
        }
    }

    /// How long a request's records took to be acknowledged, or were waited for in vain.
    pub fn observe(&self, waited: Duration) {
        self.budget.observe(waited);
    }

    fn rules(&self) -> Option<Arc<Rules>> {
        self.rules.as_ref().and_then(WatchedFile::current)
    }
}
