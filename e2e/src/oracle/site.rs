//! The system under test, as `stack.json` describes it: a stack of our own, or one that
//! `cargo xtask up` keeps running.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use spillway_testkit::metrics::Metrics;
use spillway_testkit::stack::{ProcessEntry, Stack, StackFile};
use spillway_testkit::{StackError, http};
use sqlx::MySqlPool;
use sqlx::mysql::MySqlPoolOptions;

use crate::mix::S3Door;

/// A log-in's limit.
const ACQUIRE_DEADLINE: Duration = Duration::from_secs(10);

/// Where everything is.
#[derive(Clone)]
pub struct Site {
    file: StackFile,
    from: From,
}

#[derive(Clone)]
enum From {
    Stack(Arc<Stack>),
    Dir(PathBuf),
}

impl Site {
    /// A stack of our own, which we may break.
    #[must_use]
    pub fn of_stack(stack: Arc<Stack>) -> Self {
        Self { file: stack.file(), from: From::Stack(stack) }
    }

    /// A stack that somebody else keeps in a folder.
    ///
    /// # Errors
    /// There is no `stack.json` in it, or it is none.
    pub fn of_dir(dir: &Path) -> Result<Self, StackError> {
        Ok(Self { file: read(dir)?, from: From::Dir(dir.to_owned()) })
    }

    #[must_use]
    pub fn file(&self) -> &StackFile {
        &self.file
    }

    /// The stack, if it is ours to break.
    #[must_use]
    pub fn stack(&self) -> Option<&Arc<Stack>> {
        match &self.from {
            From::Stack(stack) => Some(stack),
            From::Dir(_) => None,
        }
    }

    /// All processes as they are now.
    #[must_use]
    pub fn processes(&self) -> Vec<ProcessEntry> {
        match &self.from {
            From::Stack(stack) => stack.file().processes,
            From::Dir(dir) => read(dir).map(|file| file.processes).unwrap_or_default(),
        }
    }

    /// What a program tells of itself; `None` while it does not answer.
    pub async fn metrics(&self, process: &ProcessEntry) -> Option<Metrics> {
        let address = process.admin.as_deref()?.parse().ok()?;
        let page = http::get(address, "/metrics").await.ok()?;
        Some(Metrics::parse(&page.body))
    }

    /// An environment's shard, through the views, as an operator who sees everything.
    #[must_use]
    pub fn reader(&self, environment: &str) -> Option<MySqlPool> {
        let holds = |names: &[String]| names.iter().any(|name| name == environment);
        let shard = self.file.mysql.iter().find(|shard| holds(&shard.environments))?;
        pool(shard.reader.as_deref()?)
    }

    /// Every shard's reader, for what belongs to no environment.
    pub fn readers(&self) -> impl Iterator<Item = (&str, MySqlPool)> {
        let of = |url: &Option<String>| url.as_deref().and_then(pool);
        self.file.mysql.iter().filter_map(move |s| of(&s.reader).map(|p| (s.shard.as_str(), p)))
    }

    /// Every shard with a door to its tables.
    pub fn shards(&self) -> impl Iterator<Item = (&str, MySqlPool)> {
        self.file.mysql.iter().filter_map(|s| pool(&s.primary).map(|p| (s.shard.as_str(), p)))
    }

    /// The way to S3, if the stack says to whom objects are sealed.
    #[must_use]
    pub fn s3_door(&self) -> Option<S3Door> {
        S3Door::of(&self.file)
    }

    /// Objects that wait in S3: counted in the bucket's folder where it is ours, else by the
    /// recovery worker's own word.
    pub async fn parked_objects(&self) -> u64 {
        if let Some(stack) = self.stack() {
            return stack.parked_objects() as u64;
        }
        for process in self.processes() {
            if process.name.starts_with("recovery-worker")
                && let Some(metrics) = self.metrics(&process).await
            {
                return metrics.sum("spillway_recovery_objects_pending") as u64;
            }
        }
        0
    }
}

fn read(dir: &Path) -> Result<StackFile, StackError> {
    let file = dir.join("stack.json");
    let what = format!("reading {}", file.display());
    let text = std::fs::read_to_string(&file).map_err(StackError::io(what.clone()))?;
    serde_json::from_str(&text)
        .map_err(|error| StackError::Refused { what: format!("{what}: {error}") })
}

fn pool(url: &str) -> Option<MySqlPool> {
    let options = MySqlPoolOptions::new().max_connections(2).acquire_timeout(ACQUIRE_DEADLINE);
    options.connect_lazy(url).ok()
}
