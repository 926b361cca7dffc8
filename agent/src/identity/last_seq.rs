//! `last_seq`: the last seq that was given, noted before its batch may be sent.
//!
//! One write and one fdatasync a batch, in place, so that it works on a full disk too. Two slots
//! are written in turn; a torn write costs the newer one, and the older is still true enough,
//! because the batch it was written for was never sent.
//!
//! ```text
//! slot (64 bytes): magic SPWN | version u32 | epoch 16 | seq u64 | crc32c u32 of the above | zeros
//! file: slot for even seqs | slot for odd seqs                              (little endian)
//! ```

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use uuid::Uuid;

use crate::durable;

const NAME: &str = "last_seq";
const MAGIC: &[u8; 4] = b"SPWN";
const VERSION: u32 = 1;
const SLOT_BYTES: usize = 64;
/// What the crc covers: magic, version, epoch, seq.
const COVERED_BYTES: usize = 4 + 4 + 16 + 8;

/// The open file. After a failed write it is made anew rather than written again: what a failed
/// fsync left in the page cache can't be trusted.
pub(super) struct LastSeq {
    dir: PathBuf,
    file: Option<File>,
}

impl LastSeq {
    /// Opens the file, made if missing.
    pub(super) fn open(dir: &Path) -> io::Result<Self> {
        let opened = File::options().read(true).write(true).open(dir.join(NAME));
        match opened {
            Ok(file) => Ok(Self { dir: dir.to_owned(), file: Some(file) }),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                let mut this = Self { dir: dir.to_owned(), file: None };
                this.make(&[0; 2 * SLOT_BYTES])?;
                Ok(this)
            }
            Err(cause) => Err(cause),
        }
    }

    /// The highest seq that was noted for `epoch`, or 0.
    pub(super) fn last_of(&self, epoch: Uuid) -> u64 {
        let mut bytes = [0; 2 * SLOT_BYTES];
        let read = self.file.as_ref().map(|file| file.read_exact_at(&mut bytes, 0));
        if !matches!(read, Some(Ok(()))) {
            return 0;
        }
        let noted = bytes.chunks_exact(SLOT_BYTES).filter_map(decode);
        noted.filter(|(of, _)| *of == epoch).map(|(_, seq)| seq).max().unwrap_or(0)
    }

    /// Notes `seq`, durably.
    pub(super) fn write(&mut self, epoch: Uuid, seq: u64) -> io::Result<()> {
        let slot = encode(epoch, seq);
        let at = if seq.is_multiple_of(2) { 0 } else { SLOT_BYTES as u64 };
        if let Some(file) = &self.file {
            let written = durable::write(&slot, |slot| file.write_all_at(slot, at));
            let synced = written.and_then(|()| durable::step()).and_then(|()| file.sync_data());
            match synced {
                Ok(()) => return Ok(()),
                Err(cause) => tracing::warn!(%cause, "last_seq can't be written; made anew"),
            }
        }
        let mut both = [slot; 2].concat();
        both.truncate(2 * SLOT_BYTES);
        self.make(&both)
    }

    fn make(&mut self, content: &[u8]) -> io::Result<()> {
        self.file = None;
        durable::replace(&self.dir, NAME, content)?;
        let file = File::options().read(true).write(true).open(self.dir.join(NAME))?;
        self.file = Some(file);
        Ok(())
    }
}

fn encode(epoch: Uuid, seq: u64) -> [u8; SLOT_BYTES] {
    let mut covered = Vec::with_capacity(SLOT_BYTES);
    covered.extend_from_slice(MAGIC);
    covered.extend_from_slice(&VERSION.to_le_bytes());
    covered.extend_from_slice(epoch.as_bytes());
    covered.extend_from_slice(&seq.to_le_bytes());
    let crc = crc32c::crc32c(&covered);
    covered.extend_from_slice(&crc.to_le_bytes());
    let mut slot = [0; SLOT_BYTES];
    for (to, from) in slot.iter_mut().zip(covered) {
        *to = from;
    }
    slot
}

fn decode(slot: &[u8]) -> Option<(Uuid, u64)> {
    let (covered, rest) = slot.split_at_checked(COVERED_BYTES)?;
    let crc = u32::from_le_bytes(*rest.first_chunk()?);
    if crc32c::crc32c(covered) != crc {
        return None;
    }
    let rest = covered.strip_prefix(MAGIC)?.strip_prefix(&VERSION.to_le_bytes())?;
    let (epoch, seq) = rest.split_first_chunk::<16>()?;
    Some((Uuid::from_bytes(*epoch), u64::from_le_bytes(*seq.first_chunk()?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_torn_at_any_byte_costs_that_slot_only() {
        let dir = tempfile::tempdir().unwrap();
        let epoch = Uuid::now_v7();
        let mut note = LastSeq::open(dir.path()).unwrap();
        note.write(epoch, 6).unwrap();
        note.write(epoch, 7).unwrap();
        let path = dir.path().join(NAME);
        let whole = std::fs::read(&path).unwrap();
        for at in SLOT_BYTES..SLOT_BYTES + COVERED_BYTES + 4 {
            let mut torn = whole.clone();
            torn[at] ^= 0x40;
            std::fs::write(&path, torn).unwrap();
            assert_eq!(LastSeq::open(dir.path()).unwrap().last_of(epoch), 6, "byte {at}");
        }
        std::fs::write(&path, &whole).unwrap();
        let note = LastSeq::open(dir.path()).unwrap();
        assert_eq!((note.last_of(epoch), note.last_of(Uuid::now_v7())), (7, 0));
    }

    #[test]
    fn a_cut_or_empty_file_is_nothing_noted_and_can_be_written() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(NAME), b"SPWN").unwrap();
        let mut note = LastSeq::open(dir.path()).unwrap();
        let epoch = Uuid::now_v7();
        assert_eq!(note.last_of(epoch), 0);
        note.write(epoch, 0).unwrap();
        note.write(epoch, 1).unwrap();
        assert_eq!(LastSeq::open(dir.path()).unwrap().last_of(epoch), 1);
    }
}
