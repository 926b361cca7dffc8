//! What an object says when it is opened, and whether its sender may say it.
//!
//! A forged object proves itself forged: only the holder of a token can put one inside, and the
//! seal binds the content to this header and this object's name. Pure functions: bytes, keys,
//! tokens and a time in, a verdict out.

use bytes::Bytes;
use hpke::aead::AesGcm256;
use hpke::kdf::HkdfSha256;
use hpke::kem::X25519HkdfSha256;
use hpke::{Deserializable, Kem, OpModeR};
use jiff::Timestamp;
use spillway_proto::BatchId;
use spillway_proto::frame::{self, Decoder, FrameError};
use spillway_proto::object_key::ObjectKey;
use spillway_proto::sealed_object::{ClearHeader, HPKE_INFO, KeyId, Payload, SealedError};
use spillway_runtime::tokens::{TokenError, Tokens};

use crate::private_keys::PrivateKeys;

/// An object's content, entitled to its environment.
#[derive(Debug)]
pub struct Opened {
    /// Which token; never its secret.
    pub token_id: String,
    pub environment: String,
    /// Verified batches of this environment, in the sender's order.
    pub batches: Vec<OpenedBatch>,
    /// Frames that are not: with any of them the object ends in quarantine, but only after the
    /// others were published.
    pub faults: Vec<FrameFault>,
}

/// One verified batch.
#[derive(Clone, Debug)]
pub struct OpenedBatch {
    pub index: usize,
    pub id: BatchId,
    pub host: String,
    pub points: usize,
    /// The very bytes the agent made.
    pub frame: Bytes,
}

/// A frame that can't be published.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("frame {index}: {cause}")]
pub struct FrameFault {
    pub index: usize,
    /// As its header states, if it has one.
    pub points: usize,
    pub cause: FrameCause,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameCause {
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error("it is for environment {0:?}, its token is not")]
    OtherEnvironment(String),
    #[error("Kafka does not take it: {0}")]
    Kafka(spillway_publisher::Refused),
}

/// Why an object can't be drained. It goes to quarantine, whole.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    #[error("{bytes} bytes are more than any sealed object has")]
    TooLarge { bytes: u64 },
    #[error(transparent)]
    NotSealed(#[from] SealedError),
    #[error("sealed to the key {}, which is not here", .0.to_hex())]
    UnknownKey(KeyId),
    /// Tag, header, name or key don't belong together: forged, damaged or another object's.
    #[error("the seal does not fit this object")]
    BrokenSeal,
    #[error(transparent)]
    Token(TokenError),
    #[error("{} of its frames can't be published", .0.len())]
    Frames(Vec<FrameFault>),
}

impl Unfit {
    /// The stable name in quarantine files and metrics.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::TooLarge { .. } => "too-large",
            Self::NotSealed(_) => "not-sealed",
            Self::UnknownKey(_) => "unknown-key",
            Self::BrokenSeal => "broken-seal",
            Self::Token(TokenError::Malformed) => "token-malformed",
            Self::Token(TokenError::Unknown) => "token-unknown",
            Self::Token(TokenError::WrongSecret) => "token-wrong-secret",
            Self::Token(TokenError::Revoked) => "token-revoked",
            Self::Token(TokenError::Expired) => "token-expired",
            Self::Token(TokenError::NotYetValid) => "token-not-yet-valid",
            Self::Frames(_) => "frames-refused",
        }
    }

    /// Whether a file that operators are about to bring here could still change the verdict.
    #[must_use]
    pub fn may_heal(&self) -> bool {
        match self {
            Self::UnknownKey(_) | Self::Token(TokenError::Unknown | TokenError::NotYetValid) => {
                true
            }
            Self::TooLarge { .. }
            | Self::NotSealed(_)
            | Self::BrokenSeal
            | Self::Token(_)
            | Self::Frames(_) => false,
        }
    }
}

/// Opens the seal.
pub fn unseal(object: &[u8], key: &ObjectKey, keys: &PrivateKeys) -> Result<Bytes, Unfit> {
    let (header, ciphertext) = ClearHeader::parse(object)?;
    let private = keys.get(header.key_id).ok_or(Unfit::UnknownKey(header.key_id))?;
    let encapsulated = <X25519HkdfSha256 as Kem>::EncappedKey::from_bytes(&header.encapsulated_key)
        .map_err(|_| Unfit::BrokenSeal)?;
    let plain = hpke::single_shot_open::<AesGcm256, HkdfSha256, X25519HkdfSha256>(
        &OpModeR::Base,
        private,
        &encapsulated,
        HPKE_INFO,
        ciphertext,
        &header.aad(key.as_str()),
    );
    plain.map(Bytes::from).map_err(|_| Unfit::BrokenSeal)
}

/// Judges what was inside: the token as of `arrived`, S3's own time of the object, and each frame.
pub fn entitle(plain: &Bytes, tokens: &Tokens, arrived: Timestamp) -> Result<Opened, Unfit> {
    let payload = Payload::parse(plain)?;
    let token = tokens.authenticate(payload.token, arrived).map_err(Unfit::Token)?;
    let mut opened = Opened {
        token_id: token.id.clone(),
        environment: token.environment.clone(),
        batches: Vec::new(),
        faults: Vec::new(),
    };
    let mut decoder = Decoder::new();
    for (index, frame) in frame::split(&plain.slice_ref(payload.frames)).into_iter().enumerate() {
        let points = frame.as_deref().map_or(0, frame::points_claimed);
        let verified = frame.map_err(FrameCause::Frame);
        let verified =
            verified.and_then(|frame| verify(&mut decoder, index, frame, &token.environment));
        match verified {
            Ok(batch) => opened.batches.push(batch),
            Err(cause) => opened.faults.push(FrameFault { index, points, cause }),
        }
    }
    Ok(opened)
}

/// Batches and points in an opened object, as its frames' headers state: of what goes to
/// quarantine whole.
#[must_use]
pub fn contents(plain: &Bytes) -> (usize, usize) {
    let Ok(payload) = Payload::parse(plain) else { return (0, 0) };
    let frames = frame::split(&plain.slice_ref(payload.frames));
    let points =
        |frame: &Result<Bytes, FrameError>| frame.as_deref().map_or(0, frame::points_claimed);
    (frames.len(), frames.iter().map(points).sum())
}

fn verify(
    decoder: &mut Decoder,
    index: usize,
    frame: Bytes,
    environment: &str,
) -> Result<OpenedBatch, FrameCause> {
    let verified = decoder.verify(&frame)?;
    if verified.environment != environment {
        return Err(FrameCause::OtherEnvironment(verified.environment));
    }
    let (id, points) = (verified.header.id, verified.header.points);
    Ok(OpenedBatch { index, id, host: verified.host, points, frame })
}
