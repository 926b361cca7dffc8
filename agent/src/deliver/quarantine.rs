//! Batches whose content ingest-api refused: kept on disk, tried once more later, then declared.
//!
//! A refusal may be the server's mistake (a new version, a wrong limit), so one more try is worth
//! its place. The files stay as evidence until newer ones need the room. A batch is in quarantine
//! as long as its note is there: the note is written last and removed first. What a start finds
//! here, the spool forgets ([`ids_in`]), so that each batch lies in one place.
//!
//! ```text
//! quarantine/<epoch>-<seq>.frame    the frame as it was sent
//! quarantine/<epoch>-<seq>.json     the note: why, when, and whether it was declared
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use spillway_proto::BatchId;
use spillway_proto::verdict::Refusal;

use crate::folder::Folder;
use crate::identity::CustodyLog;
use crate::metrics::Metrics;

mod note;

pub use self::note::{Note, ids_in};

use self::note::{Name, NoNote};

/// What may lie in quarantine: enough to study, nothing that fills a disk.
const BYTES_MAX: u64 = 16 * 1024 * 1024;
const BATCHES_MAX: usize = 256;
const NOTE_BYTES_MAX: u64 = 64 * 1024;
const ERROR_CHARS_MAX: usize = 1_000;

/// A batch on its way in.
#[derive(Clone, Debug)]
pub struct RefusedBatch {
    pub id: BatchId,
    pub points: u64,
    pub frame: Bytes,
    pub refusal: Refusal,
    pub error: String,
}

/// The quarantine directory. All calls block.
pub struct Quarantine {
    folder: Arc<dyn Folder>,
    notes: BTreeMap<Name, Note>,
    log: Arc<dyn CustodyLog>,
    /// Whether the folder's names are known.
    listed: bool,
    /// There is a note, and the disk does not give it.
    unread: BTreeSet<Name>,
    /// Nobody needs these files any more, and they could not be removed.
    leftovers: BTreeSet<Name>,
    /// It is on its way to the API: it makes no room for others meanwhile.
    trying: Option<Name>,
    metrics: Metrics,
}

impl Quarantine {
    /// Reads the notes that are there; `look` does what did not succeed.
    pub fn open(folder: Arc<dyn Folder>, log: Arc<dyn CustodyLog>, metrics: Metrics) -> Self {
        let mut quarantine = Self {
            folder,
            notes: BTreeMap::new(),
            log,
            listed: false,
            unread: BTreeSet::new(),
            leftovers: BTreeSet::new(),
            trying: None,
            metrics,
        };
        quarantine.look();
        quarantine
    }

    /// Does what could not be done before: reads what could not be read, writes what could not be
    /// written, removes what could not be removed. To be called now and then.
    pub fn look(&mut self) {
        self.trying = None;
        if !self.listed {
            self.list();
        }
        self.unread = std::mem::take(&mut self.unread)
            .into_iter()
            .filter(|name| !self.take_in(*name))
            .collect();
        for name in std::mem::take(&mut self.leftovers) {
            self.remove(name);
        }
        self.save();
        self.count();
    }

    /// Tells how much is here that is neither accepted nor declared.
    fn count(&self) {
        let open = || self.notes.values().filter(|note| !note.declared);
        let gauge = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        self.metrics.quarantine_batches.set(gauge(open().count() as u64));
        self.metrics.quarantine_points.set(gauge(open().map(|note| note.points).sum()));
    }

    fn list(&mut self) {
        let files = match self.folder.names() {
            Ok(files) => files,
            Err(error) => return tracing::warn!(%error, "the quarantine can't be listed"),
        };
        self.listed = true;
        for file in &files {
            // What is none of ours is left alone.
            let Some(name) = Name::of(file).filter(|name| !self.notes.contains_key(name)) else {
                continue;
            };
            // Without a note a frame never was in quarantine, or is not any more.
            let noted = files.contains(&name.note());
            let to = if noted { &mut self.unread } else { &mut self.leftovers };
            to.insert(name);
        }
    }

    /// Takes in what lies there under `name`. Whether there is nothing more to be read.
    fn take_in(&mut self, name: Name) -> bool {
        let read = note::read(&*self.folder, name).or_else(|error| match error {
            NoNote::Unread(error) => Err(error),
            NoNote::Damaged => {
                note::mended(&*self.folder, name)?.ok_or(io::ErrorKind::InvalidData.into())
            }
        });
        match read {
            Ok(note) => {
                if !note.declared && !self.notes.contains_key(&name) {
                    self.metrics.found(1, note.points);
                }
                self.notes.entry(name).or_insert(note);
                true
            }
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                tracing::error!(id = ?name, "a batch in quarantine is damaged, frame and note");
                let named = self.log.given_up(&name.given_up()).is_ok();
                if named {
                    self.metrics.found(1, 0);
                    self.leftovers.insert(name);
                }
                named
            }
            Err(error) => {
                tracing::warn!(id = ?name, %error, "a note in quarantine can't be read yet");
                false
            }
        }
    }

    /// Takes a batch in; older ones make room, undeclared ones through the log.
    pub fn put(&mut self, batch: RefusedBatch, now_ms: i64) -> io::Result<()> {
        let BatchId::Sequenced { agent_id, epoch, seq } = batch.id else {
            return Err(io::Error::from(io::ErrorKind::InvalidInput));
        };
        let note = Note {
            agent_id,
            epoch,
            seq,
            points: batch.points,
            refusal: batch.refusal,
            error: batch.error.chars().take(ERROR_CHARS_MAX).collect(),
            refused_at_ms: now_ms,
            declared: false,
            frame_bytes: batch.frame.len() as u64,
            unsaved: false,
        };
        self.make_room(note.frame_bytes);
        let name = note.name();
        // What lay there under this name is written over.
        self.leftovers.remove(&name);
        self.unread.remove(&name);
        let frame = self.folder.replace(&name.frame(), &batch.frame);
        if let Err(error) = frame.and_then(|()| self.write_note(&note)) {
            // The batch stays where it is: what may be there of it all the same, after a sync that
            // failed, would be tried a second time after a restart.
            self.remove(name);
            return Err(error);
        }
        self.notes.insert(name, note);
        self.count();
        Ok(())
    }

    /// The batch that has waited longest and may be tried once more.
    pub fn due(&self, now_ms: i64, retry_after_ms: i64) -> Option<Note> {
        let open = self.notes.values().filter(|note| !note.declared);
        let oldest = open.min_by_key(|note| note.refused_at_ms)?;
        let waited_ms = now_ms.saturating_sub(oldest.refused_at_ms);
        // A note from the future was written under another clock.
        (waited_ms >= retry_after_ms || waited_ms < 0).then(|| oldest.clone())
    }

    /// The frame, to be tried once more: until the next `look` it makes no room for others, lest
    /// it be declared while its answer is on the way.
    pub fn frame(&mut self, note: &Note) -> io::Result<Bytes> {
        self.trying = Some(note.name());
        Ok(self.folder.read(&note.name().frame(), BYTES_MAX)?.into())
    }

    /// It was taken after all.
    pub fn accepted(&mut self, note: &Note) {
        self.remove(note.name());
    }

    /// It was refused again, or can't be read any more: it will not come.
    pub fn declare(&mut self, note: &Note) {
        if let Err(error) = self.log.given_up(&note.given_up()) {
            tracing::warn!(%error, "a refused batch can't be declared durably; tried again later");
            return;
        }
        let note = Note { declared: true, unsaved: true, ..note.clone() };
        self.notes.insert(note.name(), note);
        self.save();
        self.count();
    }

    /// Writes notes that could not be written before. Until then a restart would try and declare
    /// them again, which is harmless.
    fn save(&mut self) {
        let unsaved: Vec<Note> = self.notes.values().filter(|note| note.unsaved).cloned().collect();
        for note in unsaved {
            match self.write_note(&note) {
                Ok(()) => {
                    self.notes.insert(note.name(), Note { unsaved: false, ..note });
                }
                Err(error) => tracing::warn!(%error, "a note in quarantine can't be written"),
            }
        }
    }

    fn make_room(&mut self, wanted: u64) {
        loop {
            let bytes: u64 = self.notes.values().map(|note| note.frame_bytes).sum();
            if self.notes.len() < BATCHES_MAX && bytes + wanted <= BYTES_MAX {
                return;
            }
            let by_worth = |note: &&Note| (!note.declared, note.refused_at_ms);
            let others = self.notes.values().filter(|note| Some(note.name()) != self.trying);
            let Some(oldest) = others.min_by_key(by_worth).cloned() else { return };
            if !oldest.declared {
                // The room is needed; what could not be noted is still told by this run.
                self.log.gone(&oldest.given_up());
            }
            self.remove(oldest.name());
        }
    }

    /// The note goes first, and if it stays, so does the frame: what has a note is in quarantine.
    fn remove(&mut self, name: Name) {
        self.notes.remove(&name);
        self.count();
        for file in name.files() {
            if let Err(error) = self.folder.remove(&file)
                && error.kind() != io::ErrorKind::NotFound
            {
                tracing::warn!(file, %error, "a file in quarantine can't be removed yet");
                self.leftovers.insert(name);
                return;
            }
        }
    }

    fn write_note(&self, note: &Note) -> io::Result<()> {
        self.folder.replace(&note.name().note(), &serde_json::to_vec(note)?)
    }
}

#[cfg(test)]
mod tests;
