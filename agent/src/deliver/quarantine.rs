//! Batches whose content ingest-api refused: kept on disk, tried once more later, then declared.
//!
//! A refusal may be the server's mistake (a new version, a wrong limit), so one more try is worth
//! its place. The files stay as evidence until newer ones need the room. A batch counts as
//! quarantined once its note is durable: the frame is written first, the note last.
//!
//! ```text
//! quarantine/<epoch>-<seq>.frame    the frame as it was sent
//! quarantine/<epoch>-<seq>.json     the note: why, when, and whether it was declared
//! ```

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use spillway_proto::BatchId;
use spillway_proto::verdict::Refusal;
use uuid::Uuid;

use crate::folder::Folder;
use crate::identity::{CustodyLog, GivenUp, GivenUpReason};

/// What may lie in quarantine: enough to study, nothing that fills a disk.
const BYTES_MAX: u64 = 16 * 1024 * 1024;
const BATCHES_MAX: usize = 256;
const NOTE_BYTES_MAX: u64 = 64 * 1024;
const ERROR_CHARS_MAX: usize = 1_000;

/// What is known of a refused batch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Note {
    pub agent_id: Uuid,
    pub epoch: Uuid,
    pub seq: u64,
    pub points: u64,
    pub refusal: Refusal,
    pub error: String,
    /// Wall clock, ms.
    pub refused_at_ms: i64,
    /// It was refused twice: the custody log has it.
    pub declared: bool,
    frame_bytes: u64,
    /// On disk it is not so yet.
    #[serde(skip)]
    unsaved: bool,
}

impl Note {
    pub fn id(&self) -> BatchId {
        BatchId::Sequenced { agent_id: self.agent_id, epoch: self.epoch, seq: self.seq }
    }

    fn name(&self) -> Name {
        (self.epoch, self.seq)
    }

    fn given_up(&self) -> GivenUp {
        GivenUp {
            epoch: self.epoch,
            first_seq: self.seq,
            last_seq: self.seq,
            points: self.points,
            reason: GivenUpReason::Refused,
        }
    }
}

type Name = (Uuid, u64);

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
}

impl Quarantine {
    /// Reads the notes that are there. What can't be read is left alone.
    pub fn open(folder: Arc<dyn Folder>, log: Arc<dyn CustodyLog>) -> Self {
        let mut notes = BTreeMap::new();
        let names = folder.names().unwrap_or_else(|error| {
            tracing::warn!(%error, "the quarantine can't be listed");
            Vec::new()
        });
        for name in names.iter().filter(|name| name.ends_with(".json")) {
            match read_note(&*folder, name) {
                Ok(note) => {
                    notes.insert(note.name(), note);
                }
                Err(error) => tracing::warn!(name, %error, "a note in quarantine can't be read"),
            }
        }
        Self { folder, notes, log }
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
        let frame = self.folder.replace(&frame_name(note.name()), &batch.frame);
        if let Err(error) = frame.and_then(|()| self.write_note(&note)) {
            // The batch stays where it is: what may be there of it all the same, after a sync that
            // failed, would be tried a second time after a restart.
            self.remove(note.name());
            return Err(error);
        }
        self.notes.insert(note.name(), note);
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

    pub fn frame(&self, note: &Note) -> io::Result<Bytes> {
        Ok(self.folder.read(&frame_name(note.name()), BYTES_MAX)?.into())
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
    }

    /// Writes notes that could not be written before. Until then a restart would try and declare
    /// them again, which is harmless.
    pub fn save(&mut self) {
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
            let Some(oldest) = self.notes.values().min_by_key(by_worth).cloned() else { return };
            if !oldest.declared {
                // The room is needed; what could not be noted is still told by this run.
                self.log.gone(&oldest.given_up());
            }
            self.remove(oldest.name());
        }
    }

    /// The note goes last: without it, the frame is only a file.
    fn remove(&mut self, name: Name) {
        self.notes.remove(&name);
        for name in [frame_name(name), note_name(name)] {
            if let Err(error) = self.folder.remove(&name)
                && error.kind() != io::ErrorKind::NotFound
            {
                tracing::warn!(name, %error, "a file in quarantine can't be removed");
            }
        }
    }

    fn write_note(&self, note: &Note) -> io::Result<()> {
        self.folder.replace(&note_name(note.name()), &serde_json::to_vec(note)?)
    }
}

fn frame_name((epoch, seq): Name) -> String {
    format!("{epoch}-{seq}.frame")
}

fn note_name((epoch, seq): Name) -> String {
    format!("{epoch}-{seq}.json")
}

fn read_note(folder: &dyn Folder, name: &str) -> io::Result<Note> {
    Ok(serde_json::from_slice(&folder.read(name, NOTE_BYTES_MAX)?)?)
}

#[cfg(test)]
#[path = "quarantine_tests.rs"]
mod tests;
