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
        Self::together(vec![path.into()], reload, move |texts, before| {
            parse(texts.first().map_or("", String::as_str), before)
        })
    }

    /// The same for files that count together, as a certificate and its key do: read again when
    /// any of them changes. `parse` gets their texts in the order of `paths`.
    pub fn together<P, E>(paths: Vec<PathBuf>, reload: watch::Receiver<u64>, parse: P) -> Self
    where
        P: Fn(&[String], Option<&V>) -> Result<V, E> + Send + Sync + 'static,
        E: Display + 'static,
    {
        Self::watch(paths, reload, parse, None)
    }

    /// The same for a file that need not be there; `without` tells people what holds until it is.
    pub fn optional<P, E>(
        path: impl Into<PathBuf>,
        reload: watch::Receiver<u64>,
        without: &'static str,
        parse: P,
    ) -> Self
    where
        P: Fn(&str) -> Result<V, E> + Send + Sync + 'static,
        E: Display + 'static,
    {
        let parse =
            move |texts: &[String], _: Option<&V>| parse(texts.first().map_or("", String::as_str));
        Self::watch(vec![path.into()], reload, parse, Some(without))
    }

    fn watch<P, E>(
        paths: Vec<PathBuf>,
        reload: watch::Receiver<u64>,
        parse: P,
        without: Option<&'static str>,
    ) -> Self
    where
        P: Fn(&[String], Option<&V>) -> Result<V, E> + Send + Sync + 'static,
        E: Display + 'static,
    {
        let (sender, current) = watch::channel(None);
        let last_error = Arc::new(Mutex::new(None));
        let mut watcher = Watcher {
            paths,
            parse,
            sender,
            last_error: Arc::clone(&last_error),
            seen: None,
            texts: None,
            without,
            absence_told: false,
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
    paths: Vec<PathBuf>,
    parse: P,
    sender: watch::Sender<Option<Arc<V>>>,
    last_error: Arc<Mutex<Option<String>>>,
    seen: Option<Vec<Stamp>>,
    texts: Option<Vec<String>>,
    /// What holds while the files are absent from the start; `None` when they must be there.
    without: Option<&'static str>,
    absence_told: bool,
}

impl<V, P, E> Watcher<V, P>
where
    V: Send + Sync + 'static,
    P: Fn(&[String], Option<&V>) -> Result<V, E> + Send + Sync + 'static,
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
            // Small local files, once a second: cheaper read here than handed to another thread.
            self.look();
        }
    }

    fn look(&mut self) {
        let stamps: Option<Vec<Stamp>> = self.paths.iter().map(|path| stamp(path)).collect();
        if stamps.is_some() && stamps == self.seen {
            return;
        }
        let texts: std::io::Result<Vec<String>> =
            self.paths.iter().map(|path| read(path)).collect();
        match texts {
            Ok(texts) => {
                self.seen = stamps;
                if self.texts.as_ref() != Some(&texts) {
                    self.take(texts);
                }
            }
            Err(cause) => {
                // Gone or unreadable: when it is back it counts as new, even with the same content.
                self.seen = None;
                self.texts = None;
                let absent = cause.kind() == std::io::ErrorKind::NotFound;
                if let Some(without) = self.without.filter(|_| absent)
                    && self.sender.borrow().is_none()
                {
                    if !std::mem::replace(&mut self.absence_told, true) {
                        info!(files = %self.names(), "not there yet; {without}");
                    }
                    return self.set_error(None);
                }
                self.refuse(format!("cannot be read: {cause}"));
            }
        }
    }

    fn take(&mut self, texts: Vec<String>) {
        let before = self.sender.borrow().clone();
        match (self.parse)(&texts, before.as_deref()) {
            Ok(version) => {
                info!(files = %self.names(), "read; in force from now on");
                self.set_error(None);
                self.sender.send_replace(Some(Arc::new(version)));
            }
            Err(cause) => self.refuse(cause.to_string()),
        }
        self.texts = Some(texts);
    }

    fn names(&self) -> String {
        let names: Vec<String> = self.paths.iter().map(|path| path.display().to_string()).collect();
        names.join(", ")
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
            error!(files = %self.names(), cause, "refused; {in_force}");
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
