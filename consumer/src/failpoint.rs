//! Crash points for tests: between any two steps that a crash could part, a build with the feature
//! `failpoints` can die, panic or stall. Every other build has nothing here.
//!
//! `SPILLWAY_FAILPOINT=after-rows=abort@3` dies at the third passage, `…=panic@3` panics there;
//! `…=sleep:500` stalls each passage by 500 ms, `…=sleep:500@3` the third only.
//!
//! `client-lies=skip:7` has the first Kafka client never hand out offset 7 of any log.

use rdkafka::message::{BorrowedMessage, Message as _};

/// Where a test may intervene, in travel order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failpoint {
    /// Rows are in the transaction, positions are not.
    AfterRows,
    /// Everything is in the transaction, COMMIT is not sent.
    BeforeCommit,
    /// COMMIT was answered, Kafka's group offsets are not written.
    AfterCommit,
    /// A dead letter is in Kafka, its record is not passed yet.
    AfterDeadLetter,
}

#[cfg(not(feature = "failpoints"))]
pub async fn pass(_point: Failpoint) {}

#[cfg(feature = "failpoints")]
pub use armed::pass;

/// Whether the client lies about this message; `given_up` clients came before it.
#[must_use]
pub fn passes_over(given_up: u32, message: &BorrowedMessage<'_>) -> bool {
    hides(given_up, message.offset())
}

#[cfg(not(feature = "failpoints"))]
fn hides(_given_up: u32, _offset: i64) -> bool {
    false
}

#[cfg(feature = "failpoints")]
use armed::hides;

#[cfg(feature = "failpoints")]
mod armed {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::Duration;

    use super::Failpoint;

    enum Action {
        Abort,
        Panic,
        Sleep(Duration),
        /// An offset.
        Skip(i64),
    }

    struct Armed {
        name: String,
        action: Action,
        /// The passage at which it acts; `None` is every one.
        at: Option<u64>,
        passages: AtomicU64,
    }

    fn armed(name: &str) -> Option<&'static Armed> {
        static ARMED: OnceLock<Option<Armed>> = OnceLock::new();
        let armed = ARMED.get_or_init(|| crate::settings::failpoint().as_deref().and_then(parse));
        armed.as_ref().filter(|armed| armed.name == name)
    }

    pub fn hides(given_up: u32, offset: i64) -> bool {
        let lies = armed("client-lies").filter(|_| given_up == 0);
        lies.is_some_and(|lies| matches!(lies.action, Action::Skip(hidden) if hidden == offset))
    }

    #[expect(clippy::disallowed_methods, reason = "that is what it is for")]
    pub async fn pass(point: Failpoint) {
        let Some(armed) = armed(name_of(point)) else { return };
        let passage = armed.passages.fetch_add(1, Ordering::AcqRel) + 1;
        if armed.at.is_some_and(|at| at != passage) {
            return;
        }
        tracing::warn!(?point, passage, "failpoint");
        match armed.action {
            Action::Abort => std::process::abort(),
            Action::Panic => panic!("failpoint"),
            Action::Sleep(pause) => tokio::time::sleep(pause).await,
            Action::Skip(_) => {}
        }
    }

    fn name_of(point: Failpoint) -> &'static str {
        match point {
            Failpoint::AfterRows => "after-rows",
            Failpoint::BeforeCommit => "before-commit",
            Failpoint::AfterCommit => "after-commit",
            Failpoint::AfterDeadLetter => "after-dead-letter",
        }
    }

    fn parse(text: &str) -> Option<Armed> {
        let (name, rest) = text.split_once('=')?;
        let (action, at) = match rest.split_once('@') {
            Some((action, at)) => (action, Some(at.parse().ok()?)),
            None => (rest, None),
        };
        let action = match action.split_once(':') {
            None if action == "abort" => Action::Abort,
            None if action == "panic" => Action::Panic,
            Some(("sleep", millis)) => Action::Sleep(Duration::from_millis(millis.parse().ok()?)),
            Some(("skip", offset)) => Action::Skip(offset.parse().ok()?),
            _ => return None,
        };
        Some(Armed { name: name.to_owned(), action, at, passages: AtomicU64::new(0) })
    }
}
