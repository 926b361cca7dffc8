//! `last_seq`: the last seq that was given, noted before its batch may be sent.
//!
//! One write and one fdatasync a batch, in place ([`super::slots`]). A torn write costs the newest
//! seq, and the one before is still true enough: the batch it was written for was never sent.
//!
//! ```text
//! content: epoch 16 | seq u64 little endian
//! ```

use std::io;
use std::sync::Arc;

use uuid::Uuid;

use super::slots::{Form, Slots};
use crate::folder::Folder;

const FORM: Form = Form { name: "last_seq", slot_bytes_min: 64, slot_bytes_max: 64 };

/// The file.
pub(super) struct LastSeq {
    slots: Slots,
    /// As it was opened.
    found: Option<(Uuid, u64)>,
}

impl LastSeq {
    pub(super) fn open(folder: Arc<dyn Folder>) -> io::Result<Self> {
        let (slots, content) = Slots::open(folder, FORM)?;
        Ok(Self { slots, found: content.as_deref().and_then(decode) })
    }

    /// The seq that the file, as it was opened, had noted for `epoch`, or 0.
    pub(super) fn last_of(&self, epoch: Uuid) -> u64 {
        self.found.filter(|(of, _)| *of == epoch).map_or(0, |(_, seq)| seq)
    }

    /// Notes `seq`, durably.
    pub(super) fn write(&mut self, epoch: Uuid, seq: u64) -> io::Result<()> {
        self.slots.write(&[epoch.as_bytes().as_slice(), &seq.to_le_bytes()].concat())
    }
}

fn decode(content: &[u8]) -> Option<(Uuid, u64)> {
    let (epoch, seq) = content.split_first_chunk::<16>()?;
    Some((Uuid::from_bytes(*epoch), u64::from_le_bytes(*seq.first_chunk()?)))
}
