//! A client for questions only (where logs end, what a group committed), in programs that live for
//! months. librdkafka answers such questions from what it heard of the topics last, takes a
//! partition without a leader or one it does not know for settled, and asks nobody anew (2.12.1,
//! `rd_kafka_topic_partition_list_get_leaders`, "This is a permanent error"). What it heard while a
//! broker was going or coming would hold for minutes, or until the program is started anew.
//!
//! So a client that fails is replaced by one that knows nothing yet and has to ask.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::config::FromClientConfig as _;
use rdkafka::consumer::BaseConsumer;
use rdkafka::error::KafkaError;
use tracing::{info, warn};

/// A client that fails is replaced once it is this old: a younger one may still be connecting, and
/// in an outage no more than one is made in this time.
pub const REPLACED_AFTER: Duration = Duration::from_secs(10);

/// Asks Kafka by a client that is made anew when it fails.
pub struct Asking {
    config: ClientConfig,
    current: Mutex<Current>,
}

struct Current {
    client: Arc<BaseConsumer>,
    made_at: Instant,
}

impl Asking {
    /// Makes the first client. Kafka need not be there.
    ///
    /// # Errors
    /// When librdkafka does not take the configuration.
    pub fn new(config: ClientConfig) -> Result<Self, KafkaError> {
        let current = Mutex::new(Current::make(&config)?);
        Ok(Self { config, current })
    }

    /// Asks; blocks as long as the question does, which has a deadline of its own.
    ///
    /// # Errors
    /// The question's own.
    pub fn ask<T, E>(&self, question: impl FnOnce(&BaseConsumer) -> Result<T, E>) -> Result<T, E> {
        let client = Arc::clone(&self.current().client);
        let answer = question(&client);
        drop(client);
        if answer.is_err() {
            self.replace();
        }
        answer
    }

    fn replace(&self) {
        let mut current = self.current();
        if current.made_at.elapsed() < REPLACED_AFTER {
            return;
        }
        match Current::make(&self.config) {
            Ok(fresh) => {
                info!("Kafka does not answer as it should: asked by a new client from now on");
                retire(std::mem::replace(&mut *current, fresh));
            }
            // The old one goes on: it may recover by itself.
            Err(error) => warn!(%error, "the client that asks Kafka can't be made anew"),
        }
    }

    fn current(&self) -> std::sync::MutexGuard<'_, Current> {
        // Nothing panics while it is held, and it is replaced as a whole.
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Current {
    fn make(config: &ClientConfig) -> Result<Self, KafkaError> {
        let client = Arc::new(BaseConsumer::from_config(config)?);
        Ok(Self { client, made_at: Instant::now() })
    }
}

/// Closing a client takes as long as librdkafka likes: nobody who asks waits for it.
fn retire(old: Current) {
    let closing = std::thread::Builder::new().name("retire-kafka".to_owned());
    if let Err(error) = closing.spawn(move || drop(old)) {
        warn!(%error, "no thread for closing a Kafka client: closed on the spot");
    }
}
