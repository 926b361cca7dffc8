//! Sealed objects as agents park them, made by hand so that a bucket can be full.

use bytes::Bytes;
use hpke::aead::AesGcm256;
use hpke::kdf::HkdfSha256;
use hpke::kem::X25519HkdfSha256;
use hpke::{Deserializable as _, Kem, OpModeS, Serializable as _};
use http_body_util::Full;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use spillway_e2e::rig::Rig;
use spillway_proto::object_key::ObjectKey;
use spillway_proto::sealed_object::{ClearHeader, HPKE_INFO, KeyId, Payload};
use uuid::Uuid;

type PublicKey = <X25519HkdfSha256 as Kem>::PublicKey;

/// Seals to the stack's recovery workers, and puts without a signature
/// (`StackOptions::s3_unsigned_put`).
pub struct Parking {
    client: Client<HttpConnector, Full<Bytes>>,
    bucket: String,
    public_key: PublicKey,
    key_id: KeyId,
    token: String,
}

impl Parking {
    pub fn of(rig: &Rig, environment: &str) -> Self {
        let (file, seeds) = (rig.stack.file(), rig.stack.seeds());
        let public_key = decoded(&seeds.public_key);
        Self {
            client: Client::builder(TokioExecutor::new()).build_http(),
            bucket: format!("{}/{}", file.s3.endpoint, file.s3.bucket),
            public_key: PublicKey::from_bytes(&public_key).expect("the worker's public key"),
            key_id: KeyId::of_public_key(&public_key),
            token: file.tokens.get(environment).expect("the environment has a token").clone(),
        }
    }

    /// One object with these frames.
    pub async fn park(&self, frames: &[Bytes]) {
        let key = ObjectKey::from_random(Uuid::new_v4().as_u128());
        let sealed = self.seal(key.as_str(), &frames.concat());
        let put = http::Request::put(format!("{}/{}", self.bucket, key.as_str()))
            .body(Full::new(sealed))
            .expect("a request");
        let answer = self.client.request(put).await.expect("S3 answers");
        assert_eq!(answer.status(), http::StatusCode::OK);
    }

    fn seal(&self, key: &str, frames: &[u8]) -> Bytes {
        let payload = Payload { token: &self.token, frames };
        let plain = payload.to_padded_bytes().expect("within the limits");
        let (encapsulated, mut context) = hpke::setup_sender::<
            AesGcm256,
            HkdfSha256,
            X25519HkdfSha256,
        >(&OpModeS::Base, &self.public_key, HPKE_INFO)
        .expect("a good key");
        let encapsulated_key: [u8; 32] = encapsulated.to_bytes().into();
        let header = ClearHeader { key_id: self.key_id, encapsulated_key };
        let sealed = context.seal(&plain, &header.aad(key)).expect("sealed");
        [header.to_bytes().as_slice(), &sealed].concat().into()
    }
}

/// 64 hex digits.
fn decoded(hex: &str) -> [u8; 32] {
    let digits = |at: usize| hex.get(2 * at..2 * at + 2).expect("64 hex digits");
    std::array::from_fn(|at| u8::from_str_radix(digits(at), 16).expect("hex digits"))
}
