//! The history on disk: one small file, replaced as a whole and synced, so that a crash leaves the
//! old one or the new one.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use spillway_runtime::replace_file::replace;

use super::History;
use crate::status::snapshot::Snapshot;

/// A crash may cost this much of the history.
const SAVE_EVERY: Duration = Duration::from_secs(60);
/// Ten times what a full history takes.
const FILE_BYTES_MAX: u64 = 4 << 20;

/// Nobody else reads it.
const NEW_MODE: u32 = 0o600;

/// The history is kept in memory only, until this passes.
#[derive(Debug, thiserror::Error)]
#[error("status.history_file {} can't be written: {cause}", path.display())]
pub struct HistoryError {
    path: PathBuf,
    cause: std::io::Error,
}

/// A history that survives a restart.
#[derive(Debug)]
pub struct HistoryFile {
    path: PathBuf,
    history: History,
    saved: Option<Instant>,
}

impl HistoryFile {
    /// What is damaged is set aside, told, and begun anew: the page must come up.
    pub fn open(path: &Path) -> Self {
        let history = match read(path) {
            Ok(history) => history,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => History::default(),
            Err(error) => {
                let aside = path.with_extension("damaged");
                let moved = std::fs::rename(path, &aside).is_ok();
                tracing::warn!(path = %path.display(), %error, moved, "the status page's history \
                    can't be read; it begins anew, and the old file is kept as .damaged");
                History::default()
            }
        };
        Self { path: path.to_owned(), history, saved: None }
    }

    pub fn history(&self) -> &History {
        &self.history
    }

    /// Adds a look, and saves now and then.
    pub async fn note(&mut self, snapshot: &Snapshot) -> Result<(), HistoryError> {
        self.history.note(snapshot);
        if self.saved.is_some_and(|saved| saved.elapsed() < SAVE_EVERY) {
            return Ok(());
        }
        self.saved = Some(Instant::now());
        self.save().await
    }

    pub async fn save(&self) -> Result<(), HistoryError> {
        let (path, text) = (self.path.clone(), serde_json::to_vec(&self.history));
        let written = tokio::task::spawn_blocking(move || write(&path, &text?)).await;
        written
            .unwrap_or_else(|panicked| Err(std::io::Error::other(panicked)))
            .map_err(|cause| HistoryError { path: self.path.clone(), cause })
    }
}

fn read(path: &Path) -> std::io::Result<History> {
    if std::fs::metadata(path)?.len() > FILE_BYTES_MAX {
        return Err(std::io::Error::other("it is larger than a history can be"));
    }
    Ok(serde_json::from_slice(&std::fs::read(path)?)?)
}

fn write(path: &Path, text: &[u8]) -> std::io::Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    replace(path, text, NEW_MODE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::component::{Component, Condition, Part};

    fn look() -> Snapshot {
        let up = Component { condition: Condition::Up, ..Component::unknown(Part::Log) };
        Snapshot { at_ms: 1_795_348_800_000, components: vec![up], ..Snapshot::default() }
    }

    #[tokio::test]
    async fn it_survives_a_restart_and_a_damaged_file_is_kept_aside() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("deep/history.json");
        let mut file = HistoryFile::open(&path);
        file.note(&look()).await.unwrap();
        assert_eq!(HistoryFile::open(&path).history(), file.history());
        std::fs::write(&path, b"{\"days\":[{").unwrap();
        assert_eq!(HistoryFile::open(&path).history(), &History::default());
        assert!(path.with_extension("damaged").exists());
    }

    #[tokio::test]
    async fn a_place_that_can_not_be_written_is_told_by_its_setting() {
        let mut file = HistoryFile::open(Path::new("/proc/nowhere/history.json"));
        let error = file.note(&look()).await.unwrap_err().to_string();
        assert!(error.contains("status.history_file"), "{error}");
    }
}
