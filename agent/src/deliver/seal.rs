//! Sealing: frames and token, so that only the recovery worker can open them.
//!
//! HPKE base mode (RFC 9180). The agent holds no secret that opens what it sealed, not even a
//! moment later. The token travels inside, so a forged object proves itself forged; header and
//! object key are bound to the ciphertext, so objects can't be swapped. The layout is proto's.

use crate::credential::Credential;
use bytes::{Bytes, BytesMut};
use hpke::aead::AesGcm256;
use hpke::kdf::HkdfSha256;
use hpke::kem::X25519HkdfSha256;
use hpke::{Deserializable as _, Kem, OpModeS, Serializable as _};
use spillway_proto::object_key::ObjectKey;
use spillway_proto::sealed_object::{ClearHeader, HPKE_INFO, KeyId, Payload, SealedError};
use spillway_runtime::outside;

type PublicKey = <X25519HkdfSha256 as Kem>::PublicKey;

/// What seals.
#[derive(Clone)]
pub struct Sealer {
    public_key: PublicKey,
    key_id: KeyId,
    credential: Credential,
}

/// A sealed object and the only name under which it opens.
pub struct Sealed {
    pub key: ObjectKey,
    pub bytes: Bytes,
}

/// Why the recovery worker's public key is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    #[error("spill.public_key is not 64 hex digits of an X25519 public key")]
    PublicKey,
    #[error("spill.key_id is not the 16 hex digits that name spill.public_key")]
    KeyId,
}

/// Why something could not be sealed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    #[error(transparent)]
    Layout(#[from] SealedError),
    #[error("sealing failed: {0}")]
    Hpke(hpke::HpkeError),
    #[error("the system has no randomness")]
    Randomness,
}

impl Sealer {
    /// `public_key` is 64 hex digits. `key_id`, if set, must be that key's: a typing error must
    /// show now, and not when the objects can't be opened.
    pub fn new(public_key: &str, key_id: &str, credential: Credential) -> Result<Self, KeyError> {
        let bytes: [u8; 32] = hex::decode(public_key.trim())
            .ok()
            .and_then(|bytes| bytes.try_into().ok())
            .ok_or(KeyError::PublicKey)?;
        let own_id = KeyId::of_public_key(&bytes);
        if !key_id.is_empty() && key_id.trim() != own_id.to_hex() {
            return Err(KeyError::KeyId);
        }
        let public_key = PublicKey::from_bytes(&bytes).map_err(|_| KeyError::PublicKey)?;
        Ok(Self { public_key, key_id: own_id, credential })
    }

    /// Seals frames under a new random name.
    pub fn seal(&self, frames: &[Bytes]) -> Result<Sealed, SealError> {
        let mut random = [0; 16];
        outside::fill(&mut random).map_err(|_| SealError::Randomness)?;
        let key = ObjectKey::from_random(u128::from_le_bytes(random));
        let mut body = BytesMut::with_capacity(frames.iter().map(Bytes::len).sum());
        frames.iter().for_each(|frame| body.extend_from_slice(frame));
        let token = self.credential.token();
        let payload = Payload { token: token.reveal(), frames: &body };
        let plain = payload.to_padded_bytes()?;
        let (encapsulated, mut context) = hpke::setup_sender::<
            AesGcm256,
            HkdfSha256,
            X25519HkdfSha256,
        >(&OpModeS::Base, &self.public_key, HPKE_INFO)
        .map_err(SealError::Hpke)?;
        let encapsulated_key: [u8; 32] = encapsulated.to_bytes().into();
        let header = ClearHeader { key_id: self.key_id, encapsulated_key };
        let aad = header.aad(key.as_str());
        let ciphertext = context.seal(&plain, &aad).map_err(SealError::Hpke)?;
        let mut bytes = header.to_bytes().to_vec();
        bytes.extend_from_slice(&ciphertext);
        Ok(Sealed { key, bytes: bytes.into() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hpke::OpModeR;
    use spillway_runtime::settings::Secret;

    type PrivateKey = <X25519HkdfSha256 as Kem>::PrivateKey;

    fn pair() -> (PrivateKey, String) {
        let (private, public) = X25519HkdfSha256::gen_keypair();
        (private, hex::encode(public.to_bytes()))
    }

    fn open(private: &PrivateKey, key: &str, object: &[u8]) -> Option<Vec<u8>> {
        let (header, ciphertext) = ClearHeader::parse(object).unwrap();
        let encapsulated =
            <X25519HkdfSha256 as Kem>::EncappedKey::from_bytes(&header.encapsulated_key).unwrap();
        let mut context = hpke::setup_receiver::<AesGcm256, HkdfSha256, X25519HkdfSha256>(
            &OpModeR::Base,
            private,
            &encapsulated,
            HPKE_INFO,
        )
        .unwrap();
        context.open(ciphertext, &header.aad(key)).ok()
    }

    fn sealer(public: &str) -> Sealer {
        let token = Credential::fixed(Secret::new("spw_id_secret".to_owned()));
        Sealer::new(public, "", token).unwrap()
    }

    #[test]
    fn the_worker_s_key_opens_what_was_sealed_and_no_other_does() {
        let (private, public) = pair();
        let frames = [Bytes::from_static(b"one"), Bytes::from_static(b"two")];
        let sealed = sealer(&public).seal(&frames).unwrap();
        let plain = open(&private, sealed.key.as_str(), &sealed.bytes).unwrap();
        let payload = Payload::parse(&plain).unwrap();
        assert_eq!((payload.token, payload.frames), ("spw_id_secret", b"onetwo".as_slice()));
        assert_eq!(open(&pair().0, sealed.key.as_str(), &sealed.bytes), None);
    }

    #[test]
    fn an_object_opens_under_its_own_name_and_untouched_only() {
        let (private, public) = pair();
        let sealed = sealer(&public).seal(&[Bytes::from_static(b"x")]).unwrap();
        let other = ObjectKey::from_random(1);
        assert_eq!(open(&private, other.as_str(), &sealed.bytes), None);
        let mut flipped = sealed.bytes.to_vec();
        flipped[16] ^= 1;
        assert_eq!(open(&private, sealed.key.as_str(), &flipped), None);
    }

    #[test]
    fn neither_token_nor_frames_are_seen_from_outside() {
        let sealed = sealer(&pair().1).seal(&[Bytes::from_static(b"hostname")]).unwrap();
        let holds = |needle: &[u8]| sealed.bytes.windows(needle.len()).any(|w| w == needle);
        assert!(!holds(b"hostname") && !holds(b"spw_id_secret"));
    }

    #[test]
    fn a_wrong_key_or_a_wrong_name_for_it_is_found_at_the_start() {
        let public = pair().1;
        let id = KeyId::of_public_key(&hex::decode(&public).unwrap().try_into().unwrap()).to_hex();
        let new = |public: &str, id: &str| {
            Sealer::new(public, id, Credential::fixed(Secret::default())).err()
        };
        assert_eq!(new(&public, &id), None);
        assert_eq!(new(&public, "0000000000000000"), Some(KeyError::KeyId));
        assert_eq!(new("abcd", ""), Some(KeyError::PublicKey));
    }
}
