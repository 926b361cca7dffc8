//! A worker with an S3 server and a Kafka cluster of its own, all in this process: objects go in
//! sealed as an agent seals them, and what S3 answers can be spoiled.

#![allow(dead_code, reason = "each test file uses a part of the rig")]

pub mod kafka;
pub mod objects;
pub mod s3;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use prometheus_client::registry::Registry;
use spillway_proto::partition::Partitioning;
use spillway_publisher::{KafkaSettings, LogGate, Publisher};
use spillway_recovery_worker::bucket::{Bucket, Condition};
use spillway_recovery_worker::bucket_error::BucketError;
use spillway_recovery_worker::drain::{Drain, Probes};
use spillway_recovery_worker::journey::{OPENED_AT_ONCE_MAX, Parts};
use spillway_recovery_worker::metrics::Metrics;
use spillway_recovery_worker::pace::Pace;
use spillway_recovery_worker::private_keys::KeyFolder;
use spillway_recovery_worker::progress::GroupWatch;
use spillway_recovery_worker::republish::Way;
use spillway_recovery_worker::settings::{DrainSettings, S3Settings};
use spillway_runtime::program::Context;
use spillway_runtime::settings::{Dur, Secret};
use spillway_runtime::shutdown::Shutdown;
use spillway_runtime::tokens::{self, Token, TokenFile};
use tempfile::TempDir;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;

use kafka::Kafka;
use objects::Sealer;
use s3::S3;

pub const PARTITIONS: u16 = 8;
/// Longer than anything here takes; a test that waits this long has failed.
const PATIENCE: Duration = Duration::from_secs(60);

pub struct Rig {
    pub s3: S3,
    pub kafka: Kafka,
    pub bucket: Bucket,
    pub sealer: Sealer,
    /// What an agent of environment `demo` was given.
    pub token: String,
    folder: TempDir,
}

/// A worker that runs in this process.
pub struct Worker {
    pub metrics: Metrics,
    shutdown: Shutdown,
    running: JoinHandle<usize>,
    publisher: Publisher,
}

impl Rig {
    pub async fn start() -> Self {
        Self::with(Kafka::start()).await
    }

    pub async fn with(kafka: Kafka) -> Self {
        // Shown with a failed test; the first one of a process sets it up.
        let log = tracing_subscriber::fmt().with_test_writer().with_ansi(false);
        log.with_env_filter("spillway_recovery_worker=debug,librdkafka=warn").try_init().ok();
        let folder = TempDir::new().unwrap();
        let s3 = S3::start(&folder.path().join("s3")).await;
        let patient = Dur::from_secs(30);
        let settings = s3_settings(&s3);
        let bucket =
            S3Settings { attempt_timeout: patient, operation_timeout: patient, ..settings };
        let bucket = Bucket::new(&bucket).unwrap();
        let sealer = Sealer::new();
        std::fs::create_dir(folder.path().join("keys")).unwrap();
        let rig = Self { s3, kafka, bucket, token: String::new(), sealer, folder };
        rig.install_key(&rig.sealer);
        let token = rig.add_token("demo", |_| ());
        Self { token, ..rig }
    }

    pub fn install_key(&self, sealer: &Sealer) {
        let name = format!("{}.key", sealer.key_id().to_hex());
        std::fs::write(self.folder.path().join("keys").join(name), sealer.private_hex()).unwrap();
    }

    /// A new row in tokens.toml; gives the credential.
    pub fn add_token(&self, environment: &str, change: impl FnOnce(&mut Token)) -> String {
        let day = jiff::SignedDuration::from_hours(24);
        let created = jiff::Timestamp::now() - day;
        let (secret, mut row) = tokens::generate(None, environment, created).unwrap();
        change(&mut row);
        tokens::append(&self.tokens_path(), row).unwrap();
        secret.reveal().to_owned()
    }

    fn tokens_path(&self) -> PathBuf {
        self.folder.path().join("tokens.toml")
    }

    /// Puts a sealed object with these frames into the bucket; gives its key.
    pub async fn park(&self, frames: &[Bytes]) -> String {
        self.put_spill(|key| self.sealer.seal(key, &self.token, frames)).await
    }

    /// Puts what `make` makes of a new key.
    pub async fn put_spill(&self, make: impl FnOnce(&str) -> Vec<u8>) -> String {
        let key = objects::new_key();
        let body = Bytes::from(make(&key));
        self.bucket.put(&key, body, Condition::Always).await.unwrap();
        key
    }

    pub async fn exists(&self, key: &str) -> bool {
        loop {
            match self.bucket.head(key).await {
                Ok(head) => return head.is_some(),
                // s3s-fs answers so when a file vanishes while it is looked at.
                Err(BucketError::Answer { status: 500, .. }) => {}
                Err(error) => panic!("{error}"),
            }
        }
    }

    /// The reason beside a quarantined object.
    pub async fn quarantine_reason(&self, key: &str) -> serde_json::Value {
        let (bytes, _) =
            self.bucket.get(&format!("{}.json", quarantined(key)), None, 65_536).await.unwrap();
        serde_json::from_slice(&bytes).unwrap()
    }

    pub fn worker(&self) -> Worker {
        self.worker_with("worker-a", |_| ())
    }

    pub fn worker_with(&self, owner: &str, change: impl FnOnce(&mut DrainSettings)) -> Worker {
        let mut settings = DrainSettings {
            poll_period: Dur::from_millis(100),
            owner: owner.to_owned(),
            hold: Dur::from_millis(0),
            publish_timeout: Dur::from_secs(5),
            progress_timeout: Dur::from_secs(5),
            ..DrainSettings::default()
        };
        change(&mut settings);
        let kafka = KafkaSettings { brokers: vec![self.kafka.brokers()], ..Default::default() };
        let publisher = Publisher::start(&kafka, &mut Registry::default()).unwrap();
        let timeout = settings.progress_timeout.get();
        let metrics = Metrics::register(&mut Registry::default());
        let (_, reload) = watch::channel(0);
        let parts = Parts {
            bucket: Bucket::new(&s3_settings(&self.s3)).unwrap(),
            keys: KeyFolder::open(&self.folder.path().join("keys")).unwrap(),
            tokens: TokenFile::watch(self.tokens_path(), reload),
            way: Way {
                publisher: publisher.clone(),
                partitioning: Partitioning::new(PARTITIONS, 4).unwrap(),
                timeout: settings.publish_timeout.get(),
            },
            pace: Arc::new(Pace::new(settings.bytes_per_second.get())),
            metrics: metrics.clone(),
            opening: Arc::new(Semaphore::new(OPENED_AT_ONCE_MAX)),
            log: Arc::new(LogGate::default()),
            patience: Duration::ZERO,
        };
        let context = Context::for_test("recovery-worker");
        let probes = Probes {
            s3: context.health.register("s3"),
            kafka: context.health.register("kafka"),
            tokens: context.health.register("tokens"),
        };
        let group = GroupWatch::start(&kafka, PARTITIONS, timeout).unwrap();
        let drain = Drain::new(parts, group, &settings, probes);
        let shutdown = Shutdown::new(Duration::from_secs(10));
        let stop = shutdown.clone();
        let running = tokio::spawn(async move { drain.run(&stop).await });
        Worker { metrics, shutdown, running, publisher }
    }

    /// Waits until the worker has listed the bucket `times` more times, so that it had every
    /// chance to do what it must not.
    pub async fn after_looks(&self, times: u64) {
        let seen = self.s3.listings();
        until("more listings", async || self.s3.listings() >= seen + times).await;
    }
}

impl Worker {
    /// Ends it in order; gives what it left in the middle.
    pub async fn stop(self) -> usize {
        self.shutdown.trigger();
        let left = self.running.await.unwrap();
        self.publisher.drain(Duration::from_secs(5)).await;
        left
    }

    /// Ends it as a crash would.
    pub async fn crash(self) {
        self.running.abort();
        assert!(self.running.await.unwrap_err().is_cancelled());
    }
}

/// Waits for something that must come, and says what did not.
pub async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let waited = tokio::time::timeout(PATIENCE, async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    assert!(waited.await.is_ok(), "{what}: did not come about");
}

pub fn quarantined(key: &str) -> String {
    key.replace("spill/", "quarantine/")
}

pub fn claim_of(key: &str) -> String {
    key.replace("spill/", "claims/")
}

fn s3_settings(s3: &S3) -> S3Settings {
    S3Settings {
        endpoint: s3.endpoint(),
        bucket: s3::BUCKET.to_owned(),
        access_key: s3::ACCESS_KEY.to_owned(),
        secret_key: Secret::new(s3::SECRET_KEY.to_owned()),
        attempt_timeout: Dur::from_secs(3),
        operation_timeout: Dur::from_secs(6),
        attempts: 1,
        ..S3Settings::default()
    }
}
