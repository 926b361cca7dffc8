//! A sealed object in S3 as bytes: what is in the clear, what is bound to it, what is inside.
//!
//! ```text
//! offset bytes  what
//!      0     4  magic "SPWS"
//!      4     1  format version (1)
//!      5     3  zero
//!      8     6  HPKE suite (RFC 9180): KEM 0x0020, KDF 0x0001, AEAD 0x0002, big-endian each
//!     14     2  zero
//!     16     8  id of the recovery worker's public key
//!     24    32  encapsulated key
//!     56     …  ciphertext of: token length (u16), token, frames length (u32), frames, zeros
//! ```
//!
//! The AAD is the whole clear header and the object's name, so neither can be exchanged. Zeros
//! pad the plain text, so that sizes tell little (PADMÉ, Nikitin et al., PoPETs 2019: at most
//! 12 % larger). The encryption itself is in the agent's `seal.rs` and the recovery worker's
//! `unseal.rs`; this file knows only the layout.

use crate::limits::{SEALED_FRAMES_BYTES_MAX, SEALED_OBJECT_BYTES_MAX, TOKEN_BYTES_MAX};

/// The first bytes of every sealed object.
pub const MAGIC: [u8; 4] = *b"SPWS";
/// The version this build writes.
pub const VERSION: u8 = 1;
/// Bytes before the ciphertext.
pub const CLEAR_BYTES: usize = 56;
/// DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, AES-256-GCM: RFC 9180, section 7.
pub const SUITE: [u8; 6] = [0x00, 0x20, 0x00, 0x01, 0x00, 0x02];
/// The `info` of HPKE's key schedule.
pub const HPKE_INFO: &[u8] = b"spillway sealed object v1";
/// What AES-256-GCM appends.
pub const TAG_BYTES: usize = 16;

/// Names a key pair of the recovery worker: the first 8 bytes of xxh3-128 of the public key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct KeyId(pub [u8; 8]);

impl KeyId {
    /// The id of a public key (32 bytes, X25519).
    #[must_use]
    pub fn of_public_key(public_key: &[u8; 32]) -> Self {
        let hash = xxhash_rust::xxh3::xxh3_128(public_key).to_be_bytes();
        let mut id = [0; 8];
        id.iter_mut().zip(hash).for_each(|(to, from)| *to = from);
        Self(id)
    }

    /// 16 hex digits, as in file names and settings.
    #[must_use]
    pub fn to_hex(self) -> String {
        format!("{:016x}", u64::from_be_bytes(self.0))
    }

    /// Reads what [`Self::to_hex`] wrote.
    #[must_use]
    pub fn from_hex(text: &str) -> Option<Self> {
        let lower = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        if text.len() != 16 || !text.bytes().all(lower) {
            return None;
        }
        u64::from_str_radix(text, 16).ok().map(|number| Self(number.to_be_bytes()))
    }
}

/// The part of an object that anyone may read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClearHeader {
    pub key_id: KeyId,
    pub encapsulated_key: [u8; 32],
}

/// Why bytes are not a sealed object.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SealedError {
    #[error("not a sealed object: {0}")]
    NotSealed(&'static str),
    #[error("sealed object version {0} is not known here (this build reads version {VERSION})")]
    Version(u8),
    #[error("sealed with another suite than X25519, HKDF-SHA256, AES-256-GCM")]
    Suite,
    #[error("{what} is {got} bytes, the limit is {max}")]
    Limit { what: &'static str, got: usize, max: usize },
    #[error("what was sealed is malformed: {0}")]
    Malformed(&'static str),
}

impl ClearHeader {
    #[must_use]
    pub fn to_bytes(&self) -> [u8; CLEAR_BYTES] {
        let parts: [&[u8]; 7] = [
            &MAGIC,
            &[VERSION, 0, 0, 0],
            &SUITE,
            &[0, 0],
            &self.key_id.0,
            &self.encapsulated_key,
            &[],
        ];
        let mut out = [0; CLEAR_BYTES];
        out.iter_mut().zip(parts.concat()).for_each(|(to, from)| *to = from);
        out
    }

    /// Reads the clear header of an object and gives the ciphertext behind it.
    pub fn parse(object: &[u8]) -> Result<(Self, &[u8]), SealedError> {
        limit("the object", object.len(), SEALED_OBJECT_BYTES_MAX)?;
        let cut = SealedError::NotSealed("shorter than its header");
        let (clear, ciphertext) = object.split_first_chunk::<CLEAR_BYTES>().ok_or(cut.clone())?;
        let (magic, rest) = clear.split_first_chunk::<4>().ok_or(cut.clone())?;
        let ([version, zeros @ ..], rest) = rest.split_first_chunk::<4>().ok_or(cut.clone())?;
        let (suite, rest) = rest.split_first_chunk::<6>().ok_or(cut.clone())?;
        let (more_zeros, rest) = rest.split_first_chunk::<2>().ok_or(cut.clone())?;
        let (key_id, rest) = rest.split_first_chunk::<8>().ok_or(cut.clone())?;
        let encapsulated_key = rest.first_chunk::<32>().ok_or(cut)?;
        if *magic != MAGIC {
            return Err(SealedError::NotSealed("the magic bytes are missing"));
        }
        if *version != VERSION {
            return Err(SealedError::Version(*version));
        }
        if *suite != SUITE {
            return Err(SealedError::Suite);
        }
        if *zeros != [0; 3] || *more_zeros != [0; 2] {
            return Err(SealedError::NotSealed("reserved header bytes are not zero"));
        }
        if ciphertext.len() < TAG_BYTES {
            return Err(SealedError::NotSealed("no ciphertext"));
        }
        let header = Self { key_id: KeyId(*key_id), encapsulated_key: *encapsulated_key };
        Ok((header, ciphertext))
    }

    /// What the ciphertext is bound to: this header and the object's whole key in the bucket.
    #[must_use]
    pub fn aad(&self, object_key: &str) -> Vec<u8> {
        [self.to_bytes().as_slice(), object_key.as_bytes()].concat()
    }
}

/// What is inside: the sender's token, and frames one after the other ([`crate::frame::split`]).
#[derive(Clone, PartialEq, Eq)]
pub struct Payload<'a> {
    pub token: &'a str,
    pub frames: &'a [u8],
}

impl<'a> Payload<'a> {
    /// The plain text to seal, padded.
    pub fn to_padded_bytes(&self) -> Result<Vec<u8>, SealedError> {
        limit("the token", self.token.len(), TOKEN_BYTES_MAX)?;
        limit("the frames", self.frames.len(), SEALED_FRAMES_BYTES_MAX)?;
        let bytes = 2 + self.token.len() + 4 + self.frames.len();
        let mut plain = Vec::with_capacity(padded(bytes));
        plain.extend_from_slice(&(self.token.len() as u16).to_be_bytes());
        plain.extend_from_slice(self.token.as_bytes());
        plain.extend_from_slice(&(self.frames.len() as u32).to_be_bytes());
        plain.extend_from_slice(self.frames);
        plain.resize(padded(bytes), 0);
        Ok(plain)
    }

    /// Reads what [`Self::to_padded_bytes`] wrote.
    pub fn parse(plain: &'a [u8]) -> Result<Self, SealedError> {
        let cut = SealedError::Malformed("cut off");
        let (length, rest) = plain.split_first_chunk::<2>().ok_or(cut.clone())?;
        let length = usize::from(u16::from_be_bytes(*length));
        limit("the token", length, TOKEN_BYTES_MAX)?;
        let (token, rest) = rest.split_at_checked(length).ok_or(cut.clone())?;
        let (length, rest) = rest.split_first_chunk::<4>().ok_or(cut.clone())?;
        let length = u32::from_be_bytes(*length) as usize;
        limit("the frames", length, SEALED_FRAMES_BYTES_MAX)?;
        let (frames, padding) = rest.split_at_checked(length).ok_or(cut)?;
        if padding.iter().any(|byte| *byte != 0) {
            return Err(SealedError::Malformed("padding is not zero"));
        }
        let token =
            std::str::from_utf8(token).map_err(|_| SealedError::Malformed("token is no text"))?;
        Ok(Self { token, frames })
    }
}

impl std::fmt::Debug for Payload<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Payload(token hidden, {} bytes of frames)", self.frames.len())
    }
}

/// The padded size of `bytes` bytes: PADMÉ keeps the top bits of the length, as many as the
/// length's own length has, and rounds the rest up.
#[must_use]
pub fn padded(bytes: usize) -> usize {
    if bytes < 2 {
        return bytes;
    }
    let exponent = bytes.ilog2();
    let kept = exponent.ilog2() + 1;
    let mask = (1_usize << exponent.saturating_sub(kept)) - 1;
    (bytes + mask) & !mask
}

fn limit(what: &'static str, got: usize, max: usize) -> Result<(), SealedError> {
    if got <= max { Ok(()) } else { Err(SealedError::Limit { what, got, max }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_survives_its_bytes() {
        let header = ClearHeader { key_id: KeyId([1; 8]), encapsulated_key: [2; 32] };
        let payload = Payload { token: "spw_a_b", frames: b"frames" };
        let plain = payload.to_padded_bytes().unwrap();
        assert_eq!(Payload::parse(&plain), Ok(payload));
        let object = [header.to_bytes().as_slice(), &[9; 20]].concat();
        assert_eq!(ClearHeader::parse(&object), Ok((header, [9; 20].as_slice())));
        assert_ne!(header.aad("spill/a"), header.aad("spill/b"));
    }

    #[test]
    fn padding_hides_sizes_and_costs_little() {
        for bytes in [2, 100, 1_000, 65_537, 1_000_003, SEALED_FRAMES_BYTES_MAX] {
            let size = padded(bytes);
            assert!(size >= bytes && size <= bytes + bytes / 8 + 1, "{bytes} -> {size}");
        }
        assert_eq!(padded(1_000_003), padded(1_000_100));
    }

    #[test]
    fn every_cut_is_an_error_and_no_panic() {
        let plain = Payload { token: "spw_a_b", frames: b"frames" }.to_padded_bytes().unwrap();
        for cut in 0..(2 + 7 + 4 + 6) {
            assert!(Payload::parse(&plain[..cut]).is_err(), "{cut}");
        }
        for cut in 0..CLEAR_BYTES {
            assert!(ClearHeader::parse(&plain[..cut.min(plain.len())]).is_err());
        }
    }
}
