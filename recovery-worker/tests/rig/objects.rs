//! Batches and sealed objects as an agent makes them.

use bytes::Bytes;
use hpke::aead::AesGcm256;
use hpke::kdf::HkdfSha256;
use hpke::kem::X25519HkdfSha256;
use hpke::{Kem, OpModeS, Serializable};
use spillway_proto::BatchId;
use spillway_proto::batch::{Batch, Kind, Point, Series};
use spillway_proto::frame::Encoder;
use spillway_proto::object_key::ObjectKey;
use spillway_proto::sealed_object::{ClearHeader, HPKE_INFO, KeyId, Payload};
use uuid::Uuid;

type PrivateKey = <X25519HkdfSha256 as Kem>::PrivateKey;
type PublicKey = <X25519HkdfSha256 as Kem>::PublicKey;

/// A key pair of a recovery worker, with the agent's half of the work.
pub struct Sealer {
    private: PrivateKey,
    public: PublicKey,
}

impl Sealer {
    pub fn new() -> Self {
        let (private, public) = X25519HkdfSha256::gen_keypair();
        Self { private, public }
    }

    pub fn key_id(&self) -> KeyId {
        KeyId::of_public_key(&self.public.to_bytes().into())
    }

    pub fn private_hex(&self) -> String {
        hex::encode(self.private.to_bytes())
    }

    /// A sealed object for `key` with these frames.
    pub fn seal(&self, key: &str, token: &str, frames: &[Bytes]) -> Vec<u8> {
        let frames = frames.concat();
        let plain = Payload { token, frames: &frames }.to_padded_bytes().unwrap();
        self.seal_bytes(key, &plain)
    }

    /// Seals anything, well formed or not.
    pub fn seal_bytes(&self, key: &str, plain: &[u8]) -> Vec<u8> {
        let (encapsulated, mut context) = hpke::setup_sender::<
            AesGcm256,
            HkdfSha256,
            X25519HkdfSha256,
        >(&OpModeS::Base, &self.public, HPKE_INFO)
        .unwrap();
        let encapsulated_key = encapsulated.to_bytes().into();
        let header = ClearHeader { key_id: self.key_id(), encapsulated_key };
        let sealed = context.seal(plain, &header.aad(key)).unwrap();
        [header.to_bytes().as_slice(), &sealed].concat()
    }
}

pub fn new_key() -> String {
    ObjectKey::from_random(Uuid::new_v4().as_u128()).as_str().to_owned()
}

/// One batch of environment `demo` with one point.
pub fn frame(seq: u64) -> Bytes {
    frame_of("demo", "web-1", seq)
}

pub fn id(seq: u64) -> BatchId {
    BatchId::Sequenced { agent_id: Uuid::from_u128(7), epoch: Uuid::from_u128(8), seq }
}

pub fn frame_of(environment: &str, host: &str, seq: u64) -> Bytes {
    let window_ts = 1_700_000_000;
    let point = Point { ts_ms: i64::from(window_ts) * 1_000 + 5, value: seq as f64 };
    let series = Series {
        metric: "cpu.user".to_owned(),
        labels: vec![("core".to_owned(), "0".to_owned())],
        kind: Kind::Gauge,
        unit: "1".to_owned(),
        points: vec![point],
    };
    let batch = Batch {
        id: id(seq),
        environment: environment.to_owned(),
        host: host.to_owned(),
        window_ts,
        series: vec![series],
        previous: None,
        declarations: Vec::new(),
        closing: false,
        host_info: None,
    };
    Encoder::new().encode(&batch).unwrap()
}
