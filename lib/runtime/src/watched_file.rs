//! A file that operators edit while programs run: read again when it changes and on SIGHUP.
//!
//! A bad new version never takes effect: it is told once, and the last good one stays in force.

use std::fmt::Display;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::sync::watch;
use tokio::time::MissedTickBehavior;
use tracing::{error, info};

/// How often the file's time and size are looked at.
pub const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The longest operators' file read: 16 MiB holds some 50,000 tokens.
pub const WATCHED_FILE_BYTES_MAX: u64 = 16 << 20;

/// The last good version of a file. Clones share it; the watch ends with the last clone.
#[derive(Debug)]
pub struct WatchedFile<V> {
    current: watch::Receiver<Option<Arc<V>>>,
    last_error: Arc<Mutex<Option<String>>>,
    _watch: Arc<EndOnDrop>,
}

impl<V> Clone for WatchedFile<V> {
    fn clone(&self) -> Self {
        Self {
            current: self.current.clone(),
            last_error: Arc::clone(&self.last_error),
            _watch: Arc::clone(&self._watch),
        }
    }
}

impl<V: Send + Sync + 'static> WatchedFile<V> {
    /// Reads `path` once before it returns, and again whenever it changes or `reload` says so.
    ///
    /// `parse` gets the text and the version in force; what it refuses changes nothing.
    pub fn start<P, E>(path: impl Into<PathBuf>, reload: watch::Receiver<u64>, parse: P) -> Self
    where
        P: Fn(&str, Option<&V>) -> Result<V, E> + Send + Sync + 'static,
        E: Display + 'static,
    {
        let (sender, current) = watch::channel(None);
        let last_error = Arc::new(Mutex::new(None));
        let mut watcher = Watcher {
            path: path.into(),
            parse,
            sender,
            last_error: Arc::clone(&last_error),
            seen: None,
            text: None,
        };
        watcher.look();
        let task = tokio::spawn(watcher.run(reload));
        Self { current, last_error, _watch: Arc::new(EndOnDrop(Some(task))) }
    }

    /// One version for ever, and no file: for the simulation.
    #[cfg(feature = "simulation")]
    pub fn fixed(version: V) -> Self {
        let (_, current) = watch::channel(Some(Arc::new(version)));
        Self { current, last_error: Arc::default(), _watch: Arc::new(EndOnDrop(None)) }
    }

    /// The last good version; `None` when there never was one.
    pub fn current(&self) -> Option<Arc<V>> {
        self.current.borrow().clone()
    }

    pub fn subscribe(&self) -> watch::Receiver<Option<Arc<V>>> {
        self.current.clone()
    }

    /// Why the newest version is not in force, if it is not.
    pub fn last_error(&self) -> Option<String> {
        let error = self.last_error.lock().unwrap_or_else(PoisonError::into_inner);
        error.clone()
    }
}

#[derive(Debug)]
struct EndOnDrop(Option<tokio::task::JoinHandle<()>>);

impl Drop for EndOnDrop {
    fn drop(&mut self) {
        if let Some(task) = &self.0 {
            task.abort();
        }
    }
}

type Stamp = (SystemTime, u64);

struct Watcher<V, P> {
    path: PathBuf,
    parse: P,
    sender: watch::Sender<Option<Arc<V>>>,
    last_error: Arc<Mutex<Option<String>>>,
    seen: Option<Stamp>,
    text: Option<String>,
}

impl<V, P, E> Watcher<V, P>
where
    V: Send + Sync + 'static,
    P: Fn(&str, Option<&V>) -> Result<V, E> + Send + Sync + 'static,
    E: Display + 'static,
{
    async fn run(mut self, mut reload: watch::Receiver<u64>) {
        let mut ticks = tokio::time::interval(LOOK_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut signals = true;
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                told = reload.changed(), if signals => {
                    signals = told.is_ok();
                    self.seen = None;
                }
            }
            // A small local file, once a second: cheaper read here than handed to another thread.
            self.look();
        }
    }

    fn look(&mut self) {
        let stamp = stamp(&self.path);
        if stamp.is_some() && stamp == self.seen {
            return;
        }
        match read(&self.path) {
            Ok(text) => {
                self.seen = stamp;
                if self.text.as_ref() != Some(&text) {
                    self.take(text);
                }
            }
            Err(cause) => {
                // Gone or unreadable: when it is back it counts as new, even with the same content.
                self.seen = None;
                self.text = None;
                self.refuse(format!("cannot be read: {cause}"));
            }
        }
    }

    fn take(&mut self, text: String) {
        let before = self.sender.borrow().clone();
        match (self.parse)(&text, before.as_deref()) {
            Ok(version) => {
                info!(path = %self.path.display(), "read; in force from now on");
                self.set_error(None);
                self.sender.send_replace(Some(Arc::new(version)));
            }
            Err(cause) => self.refuse(cause.to_string()),
        }
        self.text = Some(text);
    }

    fn refuse(&self, cause: String) {
        let told = self.last_error.lock().unwrap_or_else(PoisonError::into_inner);
        let new = told.as_ref() != Some(&cause);
        drop(told);
        if new {
            let in_force = if self.sender.borrow().is_some() {
                "the last good version stays in force"
            } else {
                "there is no good version yet"
            };
            error!(path = %self.path.display(), cause, "refused; {in_force}");
        }
        self.set_error(Some(cause));
    }

    fn set_error(&self, error: Option<String>) {
        let mut slot = self.last_error.lock().unwrap_or_else(PoisonError::into_inner);
        *slot = error;
    }
}

fn stamp(path: &Path) -> Option<Stamp> {
    let meta = std::fs::metadata(path).ok()?;
    Some((meta.modified().ok()?, meta.len()))
}

/// The file's text, if it is not longer than [`WATCHED_FILE_BYTES_MAX`].
pub(crate) fn read(path: &Path) -> std::io::Result<String> {
    let mut text = String::new();
    let file = std::fs::File::open(path)?;
    let limit = WATCHED_FILE_BYTES_MAX + 1;
    if file.take(limit).read_to_string(&mut text)? as u64 == limit {
        return Err(std::io::Error::other("longer than 16 MiB"));
    }
    Ok(text)
}

#[cfg(test)]
#[path = "watched_file_tests.rs"]
mod tests;
