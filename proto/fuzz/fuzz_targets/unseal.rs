//! What the recovery worker does with an object's bytes: nothing random opens, and what somebody
//! sealed who has the public key (it is no secret) is judged without a panic, whatever it holds.

#![no_main]

mod forge;

use std::sync::LazyLock;

use bytes::Bytes;
use jiff::Timestamp;
use libfuzzer_sys::fuzz_target;
use sha2::{Digest, Sha256};
use spillway_proto::object_key::ObjectKey;
use spillway_proto::sealed_object::{ClearHeader, KeyId, Payload};
use spillway_recovery_worker::private_keys::{PrivateKey, PrivateKeys};
use spillway_recovery_worker::unseal::{entitle, unseal};
use spillway_runtime::tokens::Tokens;

const TOKEN: &str = "spw_fuzz_0123456789abcdef";

struct Site {
    keys: PrivateKeys,
    key_id: KeyId,
    tokens: Tokens,
    arrived: Timestamp,
}

static SITE: LazyLock<Site> = LazyLock::new(|| {
    let mut keys = PrivateKeys::default();
    let private = <PrivateKey as hpke::Deserializable>::from_bytes(&[7; 32]).expect("a key");
    let key_id = keys.add(private);
    let secret: String = format!("{:x}", Sha256::digest(b"0123456789abcdef"));
    let tokens = format!(
        "[[token]]\nid = \"fuzz\"\nsecret_sha256 = \"{secret}\"\nenvironment = \"demo\"\n\
         created = \"2026-01-01T00:00:00Z\"\n"
    );
    let tokens = Tokens::parse(&tokens).expect("a tokens file");
    let arrived = "2026-06-01T00:00:00Z".parse().expect("a time");
    Site { keys, key_id, tokens, arrived }
});

fn judge(plain: &Bytes) {
    if let Ok(opened) = entitle(plain, &SITE.tokens, SITE.arrived) {
        assert_eq!(opened.environment, "demo");
    }
}

/// `frames` as the holder of a good token would send them.
fn with_token(frames: &[u8]) {
    if let Ok(plain) = (Payload { token: TOKEN, frames }).to_padded_bytes() {
        let opened = entitle(&Bytes::from(plain), &SITE.tokens, SITE.arrived);
        assert!(opened.is_ok(), "the token is good: {opened:?}");
    }
}

fuzz_target!(|data: &[u8]| {
    let key = ObjectKey::from_random(1);
    assert!(unseal(data, &key, &SITE.keys).is_err());
    if let Some((encapsulated, ciphertext)) = data.split_first_chunk::<32>() {
        let header = ClearHeader { key_id: SITE.key_id, encapsulated_key: *encapsulated };
        let object = [header.to_bytes().as_slice(), ciphertext].concat();
        assert!(unseal(&object, &key, &SITE.keys).is_err(), "a forged seal opened");
    }
    judge(&Bytes::copy_from_slice(data));
    with_token(data);
    if let Some(frame) = forge::around_raw(data) {
        with_token(&frame);
        with_token(&[frame.as_slice(), frame.as_slice(), data].concat());
    }
});
