//! Wiring and the order of shutdown: stop reading objects, let those on their way arrive, then
//! empty the producer. What does not arrive in time is still in the bucket.

use std::sync::Arc;
use std::time::Duration;

use spillway_publisher::{LogGate, Publisher};
use spillway_runtime::backoff::Backoff;
use spillway_runtime::program::{Context, Drained, Misconfigured, RunError};
use spillway_runtime::tokens::TokenFile;
use tokio::sync::Semaphore;

use crate::bucket::Bucket;
use crate::drain::{Drain, Probes};
use crate::journey::{OPENED_AT_ONCE_MAX, Parts};
use crate::metrics::Metrics;
use crate::pace::Pace;
use crate::private_keys::KeyFolder;
use crate::progress::GroupWatch;
use crate::republish::Way;
use crate::settings::RecoverySettings;

/// Between looks at the topics while Kafka is away.
const TOPICS_PAUSE: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(10));

/// Runs until SIGTERM.
pub async fn run(settings: RecoverySettings, context: Context) -> Result<Drained, RunError> {
    let misconfigured = |error: &dyn std::fmt::Display| Misconfigured(error.to_string());
    let partitioning = settings
        .topics
        .partitioning()
        .ok_or_else(|| misconfigured(&"partitions and group don't fit"))?;
    let keys = KeyFolder::open(&settings.unseal.keys_dir).map_err(|error| misconfigured(&error))?;
    let publisher =
        context.metrics.register(|registry| Publisher::start(&settings.kafka, registry))?;
    let drain = &settings.drain;
    let partitions = partitioning.partitions();
    let watch = GroupWatch::start(&settings.kafka, partitions, drain.progress_timeout.get())?;
    let way =
        Way { publisher: publisher.clone(), partitioning, timeout: drain.publish_timeout.get() };
    let tokens_file = &settings.unseal.tokens_file;
    let parts = Parts {
        bucket: Bucket::new(&settings.s3).map_err(|error| misconfigured(&error))?,
        keys,
        tokens: TokenFile::watch(tokens_file.clone(), context.reload.clone()),
        way,
        pace: Arc::new(Pace::new(drain.bytes_per_second.get())),
        metrics: context.metrics.register(Metrics::register),
        opening: Arc::new(Semaphore::new(OPENED_AT_ONCE_MAX)),
        log: Arc::new(LogGate::default()),
        patience: settings.unseal.patience.get(),
    };
    let probes = Probes {
        s3: context.health.register("s3"),
        kafka: context.health.register("kafka"),
        tokens: context.health.register("tokens"),
    };
    context.health.set_ready(true);
    let mut left = 0;
    if topics_are_right(&settings, &publisher, &probes, &context).await? {
        left = Drain::new(parts, watch, drain, probes).run(&context.shutdown).await;
    }
    let unreported = publisher.drain(context.shutdown.remaining()).await;
    if left + unreported == 0 {
        return Ok(Drained::Everything);
    }
    Ok(Drained::Left(format!(
        "{left} objects on their way and {unreported} records without a delivery report; \
         the objects are still in the bucket"
    )))
}

/// `false` if shutdown came before Kafka did.
async fn topics_are_right(
    settings: &RecoverySettings,
    publisher: &Publisher,
    probes: &Probes,
    context: &Context,
) -> Result<bool, RunError> {
    let within = settings.drain.progress_timeout.get();
    let mut pauses = Backoff::new(TOPICS_PAUSE.0, TOPICS_PAUSE.1);
    let log = LogGate::default();
    loop {
        let checked = tokio::select! {
            () = context.shutdown.wait() => return Ok(false),
            checked = publisher.check_topics(settings.topics.partitions, within) => checked,
        };
        match checked {
            Ok(()) => return Ok(true),
            Err(error) if error.is_transient() => {
                probes.kafka.failed(&error);
                if let Some(held_back) = log.pass() {
                    tracing::warn!(%error, held_back, "waiting for Kafka");
                }
            }
            Err(error) => return Err(Misconfigured(error.to_string()).into()),
        }
        tokio::select! {
            () = context.shutdown.wait() => return Ok(false),
            () = tokio::time::sleep(pauses.next_delay()) => {}
        }
    }
}
