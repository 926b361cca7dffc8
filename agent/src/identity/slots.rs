//! A small file that is written in place, durably, on a full disk too.
//!
//! Two slots are written in turn, each made with its zeros, so that its space is there before it is
//! needed. A torn write costs the newer slot only: the older one says what held before it. (Where
//! the file system writes elsewhere what is overwritten, as btrfs does, the space is not assured.)
//!
//! ```text
//! slot: magic SPWS | version u32 | generation u64 | length u32
//!       | crc32c u32 of the above and of the content | content | zeros
//! file: slot of even generations | slot of odd ones                         (little endian)
//! ```

use std::io;
use std::sync::Arc;

use crate::folder::Folder;

const MAGIC: &[u8; 4] = b"SPWS";
const VERSION: u32 = 1;
/// Magic, version, generation, length: what the crc covers besides the content.
const COVERED_BYTES: usize = 4 + 4 + 8 + 4;
/// The crc as well.
const HEADER_BYTES: usize = COVERED_BYTES + 4;

/// A file, and how it is cut.
#[derive(Clone, Copy, Debug)]
pub(super) struct Form {
    pub name: &'static str,
    /// What a slot takes at least, so much content finds its space on a full disk.
    pub slot_bytes_min: usize,
    /// A longer file is none of ours.
    pub slot_bytes_max: usize,
}

/// The file.
pub(super) struct Slots {
    folder: Arc<dyn Folder>,
    form: Form,
    slot_bytes: usize,
    generation: u64,
    /// Whether the file has two slots of this form.
    sound: bool,
    /// A write in place failed: what a failed fsync left in the page cache can't be trusted, so
    /// the file is made anew, if that can be.
    doubted: bool,
}

impl Slots {
    /// Opens the file, if it is there, and reads what was written last. The file is made by the
    /// first write.
    pub(super) fn open(folder: Arc<dyn Folder>, form: Form) -> io::Result<(Self, Option<Vec<u8>>)> {
        let bytes_max = 2 * form.slot_bytes_max as u64;
        let bytes = match folder.read(form.name, bytes_max) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(error),
        };
        let slot_bytes = bytes.len() / 2;
        let sound = slot_bytes >= form.slot_bytes_min && bytes.len().is_multiple_of(2);
        let (even, odd) = bytes.split_at(slot_bytes);
        let newest = [even, odd].into_iter().filter_map(decode).max_by_key(|found| found.0);
        let (generation, content) =
            newest.map_or((0, None), |(generation, content)| (generation, Some(content.to_vec())));
        Ok((Self { folder, form, slot_bytes, generation, sound, doubted: false }, content))
    }

    /// Writes `content`, durably. A failure leaves what was written before, or this.
    pub(super) fn write(&mut self, content: &[u8]) -> io::Result<()> {
        let generation = self.generation + 1;
        let slot = encode(generation, content);
        let fits = self.sound && slot.len() <= self.slot_bytes;
        if fits && !self.doubted {
            match self.write_in_place(generation, &slot) {
                Ok(()) => return Ok(()),
                Err(cause) => {
                    tracing::warn!(%cause, file = self.form.name, "can't be written; made anew");
                    self.doubted = true;
                }
            }
        }
        match self.make(generation, &slot) {
            // There is no space for another file. All that counts is written once more, so a
            // sync that works now is true of it.
            Err(_) if fits => self.write_in_place(generation, &slot),
            made => made,
        }
    }

    fn write_in_place(&mut self, generation: u64, slot: &[u8]) -> io::Result<()> {
        let at = if generation.is_multiple_of(2) { 0 } else { self.slot_bytes as u64 };
        self.folder.overwrite(self.form.name, slot, at)?;
        self.generation = generation;
        Ok(())
    }

    /// Twice as large as it needs to be now, so that it need not be made anew for each byte.
    fn make(&mut self, generation: u64, slot: &[u8]) -> io::Result<()> {
        let wanted = slot.len().saturating_mul(2);
        let slot_bytes = wanted.next_power_of_two().max(self.form.slot_bytes_min);
        let slot_bytes = slot_bytes.min(self.form.slot_bytes_max);
        if slot.len() > slot_bytes {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        let mut whole = vec![0; slot_bytes - slot.len()];
        whole.splice(..0, slot.iter().copied());
        self.folder.replace(self.form.name, &whole.repeat(2))?;
        (self.slot_bytes, self.generation, self.sound) = (slot_bytes, generation, true);
        self.doubted = false;
        Ok(())
    }
}

fn encode(generation: u64, content: &[u8]) -> Vec<u8> {
    let mut slot = Vec::with_capacity(HEADER_BYTES + content.len());
    slot.extend_from_slice(MAGIC);
    slot.extend_from_slice(&VERSION.to_le_bytes());
    slot.extend_from_slice(&generation.to_le_bytes());
    slot.extend_from_slice(&u32::try_from(content.len()).unwrap_or(u32::MAX).to_le_bytes());
    let crc = crc32c::crc32c_append(crc32c::crc32c(&slot), content);
    slot.extend_from_slice(&crc.to_le_bytes());
    slot.extend_from_slice(content);
    slot
}

fn decode(slot: &[u8]) -> Option<(u64, &[u8])> {
    let (covered, rest) = slot.split_at_checked(COVERED_BYTES)?;
    let fields = covered.strip_prefix(MAGIC)?.strip_prefix(&VERSION.to_le_bytes())?;
    let (generation, length) = fields.split_first_chunk()?;
    let (crc, rest) = rest.split_first_chunk()?;
    let length = u32::from_le_bytes(*length.first_chunk()?);
    let content = rest.get(..usize::try_from(length).ok()?)?;
    let is_whole =
        crc32c::crc32c_append(crc32c::crc32c(covered), content) == u32::from_le_bytes(*crc);
    is_whole.then(|| (u64::from_le_bytes(*generation), content))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::folder::RealFolder;

    const FORM: Form = Form { name: "slots", slot_bytes_min: 64, slot_bytes_max: 4_096 };

    fn open(dir: &tempfile::TempDir) -> (Slots, Option<Vec<u8>>) {
        Slots::open(Arc::new(RealFolder::new(dir.path())), FORM).unwrap()
    }

    #[test]
    fn a_slot_torn_at_any_byte_costs_that_slot_only_and_is_written_next() {
        let dir = tempfile::tempdir().unwrap();
        let (mut slots, _) = open(&dir);
        slots.write(b"first").unwrap();
        slots.write(b"second").unwrap();
        slots.write(b"third").unwrap();
        let path = dir.path().join(FORM.name);
        let whole = std::fs::read(&path).unwrap();
        for at in 64..64 + HEADER_BYTES + 5 {
            let mut torn = whole.clone();
            torn[at] ^= 0x40;
            std::fs::write(&path, torn).unwrap();
            let (mut slots, content) = open(&dir);
            assert_eq!(content.as_deref(), Some(&b"second"[..]), "byte {at}");
            slots.write(b"fourth").unwrap();
            assert_eq!(open(&dir).1.as_deref(), Some(&b"fourth"[..]), "byte {at}");
        }
    }

    #[test]
    fn a_cut_or_empty_file_is_nothing_and_can_be_written() {
        for bytes in [&b""[..], b"SPWS", &[7; 129]] {
            let dir = tempfile::tempdir().unwrap();
            std::fs::write(dir.path().join(FORM.name), bytes).unwrap();
            let (mut slots, content) = open(&dir);
            assert_eq!(content, None);
            slots.write(b"one").unwrap();
            slots.write(b"two").unwrap();
            assert_eq!(open(&dir).1.as_deref(), Some(&b"two"[..]));
        }
    }

    #[test]
    fn content_that_outgrows_its_slot_gets_larger_ones_up_to_the_limit() {
        let dir = tempfile::tempdir().unwrap();
        let (mut slots, _) = open(&dir);
        for length in [1, 40, 41, 500, 4_000] {
            slots.write(&vec![7; length]).unwrap();
            assert_eq!(open(&dir).1.map(|content| content.len()), Some(length));
        }
        slots.write(&[7; 5_000]).unwrap_err();
        assert_eq!(open(&dir).1.map(|content| content.len()), Some(4_000));
        slots.write(b"small").unwrap();
        assert_eq!(open(&dir).1.as_deref(), Some(&b"small"[..]));
    }

    #[test]
    fn writing_takes_no_space_anew() {
        let dir = tempfile::tempdir().unwrap();
        let (mut slots, _) = open(&dir);
        slots.write(b"one").unwrap();
        let inode = |path| std::os::unix::fs::MetadataExt::ino(&std::fs::metadata(path).unwrap());
        let path = dir.path().join(FORM.name);
        let (before, bytes) = (inode(&path), std::fs::read(&path).unwrap().len());
        slots.write(&[7; 40]).unwrap();
        slots.write(b"three").unwrap();
        assert_eq!((inode(&path), std::fs::read(&path).unwrap().len()), (before, bytes));
    }
}
