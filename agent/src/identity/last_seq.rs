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

use std::io;
use std::sync::Arc;

use uuid::Uuid;

use crate::folder::Folder;

const NAME: &str = "last_seq";
const MAGIC: &[u8; 4] = b"SPWN";
const VERSION: u32 = 1;
const SLOT_BYTES: usize = 64;
/// Two slots; a longer file is damaged, and its slots are read all the same.
const FILE_BYTES_MAX: u64 = 64 * 1024;
/// What the crc covers: magic, version, epoch, seq.
const COVERED_BYTES: usize = 4 + 4 + 16 + 8;

/// The file. After a failed write it is made anew rather than written again: what a failed fsync
/// left in the page cache can't be trusted.
pub(super) struct LastSeq {
    folder: Arc<dyn Folder>,
    /// Both slots, if they could be read.
    found: Option<Vec<u8>>,
    /// Whether the file may be written in place.
    sound: bool,
}

impl LastSeq {
    /// Opens the file, made if missing.
    pub(super) fn open(folder: Arc<dyn Folder>) -> io::Result<Self> {
        match folder.read(NAME, FILE_BYTES_MAX) {
            Ok(bytes) => Ok(Self { folder, found: Some(bytes), sound: true }),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                let mut this = Self { folder, found: None, sound: false };
                this.make(&[0; 2 * SLOT_BYTES])?;
                Ok(this)
            }
            Err(cause) => Err(cause),
        }
    }

    /// The highest seq that the file, as it was opened, had noted for `epoch`, or 0.
    pub(super) fn last_of(&self, epoch: Uuid) -> u64 {
        let slots = self.found.iter().flat_map(|bytes| bytes.chunks_exact(SLOT_BYTES));
        let noted = slots.take(2).filter_map(decode);
        noted.filter(|(of, _)| *of == epoch).map(|(_, seq)| seq).max().unwrap_or(0)
    }

    /// Notes `seq`, durably.
    pub(super) fn write(&mut self, epoch: Uuid, seq: u64) -> io::Result<()> {
        let slot = encode(epoch, seq);
        let at = if seq.is_multiple_of(2) { 0 } else { SLOT_BYTES as u64 };
        if self.sound {
            match self.folder.overwrite(NAME, &slot, at) {
                Ok(()) => return Ok(()),
                Err(cause) => tracing::warn!(%cause, "last_seq can't be written; made anew"),
            }
        }
        self.make(&[slot; 2].concat())
    }

    fn make(&mut self, content: &[u8]) -> io::Result<()> {
        self.sound = false;
        self.folder.replace(NAME, content)?;
        self.sound = true;
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
    use crate::folder::RealFolder;

    fn open(dir: &tempfile::TempDir) -> io::Result<LastSeq> {
        LastSeq::open(Arc::new(RealFolder::new(dir.path())))
    }

    #[test]
    fn a_slot_torn_at_any_byte_costs_that_slot_only() {
        let dir = tempfile::tempdir().unwrap();
        let epoch = Uuid::now_v7();
        let mut note = open(&dir).unwrap();
        note.write(epoch, 6).unwrap();
        note.write(epoch, 7).unwrap();
        let path = dir.path().join(NAME);
        let whole = std::fs::read(&path).unwrap();
        for at in SLOT_BYTES..SLOT_BYTES + COVERED_BYTES + 4 {
            let mut torn = whole.clone();
            torn[at] ^= 0x40;
            std::fs::write(&path, torn).unwrap();
            assert_eq!(open(&dir).unwrap().last_of(epoch), 6, "byte {at}");
        }
        std::fs::write(&path, &whole).unwrap();
        let note = open(&dir).unwrap();
        assert_eq!((note.last_of(epoch), note.last_of(Uuid::now_v7())), (7, 0));
    }

    #[test]
    fn a_cut_or_empty_file_is_nothing_noted_and_can_be_written() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(NAME), b"SPWN").unwrap();
        let mut note = open(&dir).unwrap();
        let epoch = Uuid::now_v7();
        assert_eq!(note.last_of(epoch), 0);
        note.write(epoch, 0).unwrap();
        note.write(epoch, 1).unwrap();
        assert_eq!(open(&dir).unwrap().last_of(epoch), 1);
    }
}
