//! The name of a batch: given once, before the first attempt to send, and never reused.
//!
//! An agent counts (`Sequenced`), which makes an absence visible; a foreign sender can't, so its
//! batches are named by their content (`Content`), which makes a repetition visible.

use std::fmt;

use uuid::Uuid;
use xxhash_rust::xxh3::Xxh3;

/// The identity of one batch.
///
/// An epoch belongs to one environment and one host, so all batches of an epoch lie in one
/// partition and their ledger has one owner.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum BatchId {
    /// What an agent gives: `seq` counts 1, 2, 3 … without gaps within `(agent_id, epoch)`.
    Sequenced { agent_id: Uuid, epoch: Uuid, seq: u64 },
    /// A 128-bit content hash, for senders that do not count.
    Content { hash: u128 },
}

/// Bytes of an id on the wire and as a Kafka key: agent id or hash (16, big-endian),
/// epoch or zeros (16), seq or zero (8, little-endian).
pub const BATCH_ID_BYTES: usize = 40;

impl BatchId {
    /// The content id of `content` sent for `environment`. The environment is part of the hash,
    /// so that one tenant's bytes can never shadow another's.
    #[must_use]
    pub fn content_of(environment: &str, content: &[u8]) -> Self {
        Self::content_of_parts(environment, &[content])
    }

    /// The same for content in several pieces.
    #[must_use]
    pub fn content_of_parts(environment: &str, content: &[&[u8]]) -> Self {
        let mut hasher = Xxh3::new();
        hasher.update(&(environment.len() as u64).to_le_bytes());
        hasher.update(environment.as_bytes());
        content.iter().for_each(|piece| hasher.update(piece));
        Self::Content { hash: hasher.digest128() }
    }

    /// `(agent_id, epoch, seq)` as the ledger's columns hold it: a content id lies in the agent's
    /// column, with a zero epoch and seq.
    #[must_use]
    pub fn columns(&self) -> ([u8; 16], [u8; 16], u64) {
        match self {
            Self::Sequenced { agent_id, epoch, seq } => {
                (*agent_id.as_bytes(), *epoch.as_bytes(), *seq)
            }
            Self::Content { hash } => (hash.to_be_bytes(), [0; 16], 0),
        }
    }

    /// The id as [`BATCH_ID_BYTES`] bytes.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; BATCH_ID_BYTES] {
        let (agent, epoch, seq) = self.columns();
        let mut out = [0; BATCH_ID_BYTES];
        let (head, tail) = out.split_at_mut(16);
        head.copy_from_slice(&agent);
        let (middle, end) = tail.split_at_mut(16);
        middle.copy_from_slice(&epoch);
        end.copy_from_slice(&seq.to_le_bytes());
        out
    }

    /// Reads what [`Self::to_bytes`] wrote. A zero epoch with a zero seq is a content id; a
    /// sequenced id has neither, so there is nothing a writer could mean by one zero alone:
    /// that is `None`.
    #[must_use]
    pub fn from_bytes(bytes: &[u8; BATCH_ID_BYTES]) -> Option<Self> {
        let (agent, rest) = bytes.split_first_chunk::<16>()?;
        let (epoch, rest) = rest.split_first_chunk::<16>()?;
        let (seq, _) = rest.split_first_chunk::<8>()?;
        let seq = u64::from_le_bytes(*seq);
        match (*epoch == [0; 16], seq == 0) {
            (true, true) => Some(Self::Content { hash: u128::from_be_bytes(*agent) }),
            (false, false) => Some(Self::Sequenced {
                agent_id: Uuid::from_bytes(*agent),
                epoch: Uuid::from_bytes(*epoch),
                seq,
            }),
            _ => None,
        }
    }
}

impl fmt::Display for BatchId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sequenced { agent_id, epoch, seq } => write!(f, "{agent_id}/{epoch}/{seq}"),
            Self::Content { hash } => write!(f, "content/{hash:032x}"),
        }
    }
}

impl fmt::Debug for BatchId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_survives_its_bytes() {
        let ids = [
            BatchId::Sequenced { agent_id: Uuid::from_u128(7), epoch: Uuid::from_u128(8), seq: 9 },
            BatchId::Content { hash: u128::MAX - 1 },
            BatchId::content_of("demo", b"x"),
        ];
        for id in ids {
            assert_eq!(BatchId::from_bytes(&id.to_bytes()), Some(id));
        }
    }

    #[test]
    fn a_seq_without_an_epoch_is_no_id() {
        let mut bytes = [0; BATCH_ID_BYTES];
        bytes[32] = 1;
        assert_eq!(BatchId::from_bytes(&bytes), None);
        bytes = [0; BATCH_ID_BYTES];
        bytes[16] = 1;
        assert_eq!(BatchId::from_bytes(&bytes), None);
    }

    #[test]
    fn the_same_content_of_two_environments_has_two_ids() {
        assert_ne!(BatchId::content_of("a", b"bc"), BatchId::content_of("ab", b"c"));
    }
}
