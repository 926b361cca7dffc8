//! What is known of a refused batch, and the names of its two files.

use std::collections::HashSet;
use std::io;

use serde::{Deserialize, Serialize};
use spillway_proto::verdict::Refusal;
use spillway_proto::{BatchId, frame};
use uuid::Uuid;

use super::{BYTES_MAX, NOTE_BYTES_MAX};
use crate::folder::Folder;
use crate::identity::{GivenUp, GivenUpReason};

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
    pub(super) frame_bytes: u64,
    /// On disk it is not so yet.
    #[serde(skip)]
    pub(super) unsaved: bool,
}

impl Note {
    pub fn id(&self) -> BatchId {
        BatchId::Sequenced { agent_id: self.agent_id, epoch: self.epoch, seq: self.seq }
    }

    pub(super) fn name(&self) -> Name {
        Name { epoch: self.epoch, seq: self.seq }
    }

    pub(super) fn given_up(&self) -> GivenUp {
        GivenUp { points: self.points, ..self.name().given_up() }
    }

    /// A note for a frame whose own can't be made out; `None` if the frame is damaged as well.
    pub(super) fn of_frame(name: Name, bytes: &[u8]) -> Option<Self> {
        let header = frame::check(bytes).ok()?;
        let BatchId::Sequenced { agent_id, epoch, seq } = header.id else { return None };
        (Name { epoch, seq } == name).then(|| Self {
            agent_id,
            epoch,
            seq,
            points: header.points as u64,
            refusal: Refusal::InvalidContent,
            error: "why it was refused was in a note that is damaged".to_owned(),
            refused_at_ms: 0,
            declared: false,
            frame_bytes: bytes.len() as u64,
            unsaved: true,
        })
    }
}

/// What the files of a batch are named by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Name {
    pub epoch: Uuid,
    pub seq: u64,
}

impl Name {
    pub fn frame(self) -> String {
        format!("{}-{}.frame", self.epoch, self.seq)
    }

    pub fn note(self) -> String {
        format!("{}-{}.json", self.epoch, self.seq)
    }

    /// All that may lie under it, the note first: without one, the rest are only files. The last
    /// two were about to be put in place when the power went.
    pub fn files(self) -> [String; 4] {
        let (note, frame) = (self.note(), self.frame());
        [note.clone(), frame.clone(), format!("{note}.new"), format!("{frame}.new")]
    }

    /// The name behind a file's; `None` if the file is none of ours.
    pub fn of(file: &str) -> Option<Self> {
        let (epoch, rest) = file.split_at_checked(36)?;
        let (seq, _) = rest.strip_prefix('-')?.split_once('.')?;
        let name = Self { epoch: epoch.parse().ok()?, seq: seq.parse().ok()? };
        name.files().iter().any(|known| known == file).then_some(name)
    }

    /// It will not come; how many points it has is in its note alone.
    pub fn given_up(self) -> GivenUp {
        let Self { epoch, seq } = self;
        let (first_seq, last_seq, points) = (seq, seq, 0);
        GivenUp { epoch, first_seq, last_seq, points, reason: GivenUpReason::Refused }
    }
}

/// Why there is no note to be had.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoNote {
    /// The disk says nothing of it.
    #[error(transparent)]
    Unread(io::Error),
    /// What is there will never be one.
    #[error("it is no note")]
    Damaged,
}

pub(super) fn read(folder: &dyn Folder, name: Name) -> Result<Note, NoNote> {
    let bytes = match folder.read(&name.note(), NOTE_BYTES_MAX) {
        Err(error) if error.kind() == io::ErrorKind::FileTooLarge => return Err(NoNote::Damaged),
        read => read.map_err(NoNote::Unread)?,
    };
    let note: Note = serde_json::from_slice(&bytes).map_err(|_| NoNote::Damaged)?;
    if note.name() == name { Ok(note) } else { Err(NoNote::Damaged) }
}

/// A note made anew from its frame; `None` if that is damaged or gone as well.
pub(super) fn mended(folder: &dyn Folder, name: Name) -> io::Result<Option<Note>> {
    match folder.read(&name.frame(), BYTES_MAX) {
        Ok(bytes) => Ok(Note::of_frame(name, &bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// The batches that `folder` holds, so that no other place need keep them: a start between the
/// note and the spool's own forgetting finds them in both. Blocks.
pub fn ids_in(folder: &dyn Folder) -> HashSet<BatchId> {
    let Ok(files) = folder.names() else { return HashSet::new() };
    let notes = files.iter().filter(|file| file.ends_with(".json"));
    let notes = notes.filter_map(|file| read(folder, Name::of(file)?).ok());
    // Of one that was declared, the frame is evidence and no more.
    let holds = |note: &Note| note.declared || files.contains(&note.name().frame());
    notes.filter(holds).map(|note| note.id()).collect()
}
