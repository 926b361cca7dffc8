//! One note of the recorder as a line of its file:
//!
//! ```text
//! 8 hex digits: crc32c of what follows the blank | blank | JSON | newline
//! ```
//!
//! A last line that is torn was never answered, so its sender never acted on it: it is cut off.
//! Damage before that is no accident a judge may look away from.

use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};
use spillway_proto::BatchId;

use crate::ledger::{Fate, Way};
use crate::recipe::Recipe;

/// What the sender says, before it acts or after it heard.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Note {
    /// The batch is about to be sent.
    Attempt { recipe: Recipe, way: Way },
    /// What was heard of it.
    Answer {
        #[serde(with = "crate::recipe::id_text")]
        id: BatchId,
        fate: Fate,
    },
    /// It was given a seq and will not be sent.
    Withheld { recipe: Recipe, fate: Fate },
}

impl Note {
    /// The line, with its newline.
    #[must_use]
    pub fn to_line(&self) -> String {
        let json = serde_json::to_string(self).expect("a note is plain data");
        format!("{:08x} {json}\n", crc32c::crc32c(json.as_bytes()))
    }

    /// Reads a line without its newline.
    #[must_use]
    pub fn parse(line: &str) -> Option<Self> {
        let (crc, json) = line.split_once(' ')?;
        let stated = u32::from_str_radix(crc, 16).ok()?;
        (crc32c::crc32c(json.as_bytes()) == stated).then(|| serde_json::from_str(json).ok())?
    }
}

/// All notes of a file.
///
/// # Errors
/// It can't be read, or a line before the last one is damaged.
pub fn read_notes(file: &Path) -> io::Result<Vec<Note>> {
    let bytes = std::fs::read(file)?;
    let whole = sound_bytes(&bytes)?;
    let text = String::from_utf8_lossy(bytes.get(..whole).unwrap_or_default());
    Ok(text.lines().filter_map(Note::parse).collect())
}

/// Bytes up to a torn last line.
///
/// # Errors
/// A line before the last one is damaged.
pub fn sound_bytes(bytes: &[u8]) -> io::Result<usize> {
    let mut at = 0;
    while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
        let Some(end) = rest.iter().position(|byte| *byte == b'\n') else { return Ok(at) };
        let line = rest.get(..end).and_then(|line| std::str::from_utf8(line).ok());
        let next = at + end + 1;
        if line.and_then(Note::parse).is_none() {
            // Only what was written last can be torn.
            let last = next == bytes.len();
            let damaged = || io::Error::other(format!("the ledger is damaged at byte {at}"));
            return if last { Ok(at) } else { Err(damaged()) };
        }
        at = next;
    }
    Ok(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note(hash: u128) -> Note {
        Note::Answer { id: BatchId::Content { hash }, fate: Fate::Ok }
    }

    #[test]
    fn a_torn_end_is_cut_off_at_every_byte() {
        let (first, second) = (note(1).to_line(), note(2).to_line());
        let both = format!("{first}{second}");
        for cut in first.len()..both.len() {
            assert_eq!(sound_bytes(&both.as_bytes()[..cut]).unwrap(), first.len(), "{cut}");
        }
        assert_eq!(sound_bytes(both.as_bytes()).unwrap(), both.len());
    }

    #[test]
    fn damage_before_the_end_is_never_looked_over() {
        let both = format!("{}{}", note(1).to_line(), note(2).to_line());
        let mut bytes = both.into_bytes();
        bytes[12] ^= 1;
        assert!(sound_bytes(&bytes).is_err());
    }
}
