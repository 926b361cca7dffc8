//! `spillway keys create|ls`: the pair that parked batches are sealed to and opened with.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use hpke::kem::X25519HkdfSha256;
use hpke::{Deserializable, Kem, Serializable};
use spillway_proto::sealed_object::KeyId;
use spillway_recovery_worker::private_keys::PrivateKeys;

use crate::answer::Answer;
use crate::consent::{Consent, Plan};
use crate::desk::Desk;
use crate::failure::Failure;

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub enum KeysProblem {
    #[error("{} can't be written: {cause}", path.display())]
    Unwritable { path: PathBuf, cause: std::io::Error },
    #[error("{} can't be read: {cause}", path.display())]
    Unreadable { path: PathBuf, cause: std::io::Error },
    #[error("{} is no private key: 64 hexadecimal digits are expected", .0.display())]
    NotAKey(PathBuf),
}

/// The public half, as agents have it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicKey {
    pub id: KeyId,
    pub bytes: [u8; 32],
}

/// Makes a pair; the private half goes to a file that only its owner can read.
pub fn create(desk: &Desk) -> Result<Answer, Failure> {
    let dir = &desk.settings.keys_dir;
    let steps = vec![format!("write a new private key into {}", dir.display())];
    let mut answer = Answer::default();
    let entry = match desk.ask(&Plan { action: "keys create", steps })? {
        Consent::Nothing(why) => {
            answer.note(why);
            return Ok(answer);
        }
        Consent::Given(entry) => entry,
    };
    let (private, public) = X25519HkdfSha256::gen_keypair();
    let public: [u8; 32] = public.to_bytes().into();
    let id = KeyId::of_public_key(&public);
    let path = dir.join(format!("{}.key", id.to_hex()));
    let written = write_private(&path, &hex::encode(private.to_bytes()));
    entry.end(written.map_err(|cause| KeysProblem::Unwritable { path: path.clone(), cause }))?;
    answer
        .fact("key_id", id.to_hex())
        .fact("public_key", hex::encode(public))
        .fact("private_key_file", path.display().to_string())
        .fact("agent_toml", agent_toml(desk, &PublicKey { id, bytes: public }))
        .note("Copy the private key file to the recovery workers before agents use the public key.")
        .note("Keep the old private keys until no object sealed to them can come any more.");
    Ok(answer)
}

fn write_private(path: &Path, text: &str) -> std::io::Result<()> {
    if let Some(dir) = path.parent() {
        std::fs::create_dir_all(dir)?;
    }
    let mut file = std::fs::File::options().write(true).create_new(true).mode(0o600).open(path)?;
    writeln!(file, "{text}")?;
    file.sync_all()
}

/// Where docs/install-agent.md has the secret of the agents' S3 key.
const S3_SECRET_FILE: &str = "/etc/spillway/agent.s3";

/// The block that an agent's settings need to park in S3.
pub fn agent_toml(desk: &Desk, key: &PublicKey) -> String {
    let s3 = &desk.settings.s3;
    format!(
        "[spill]\nenabled = true\nendpoint = {:?}\nbucket = {:?}\nregion = {:?}\n\
         public_key = \"{}\"\nkey_id = \"{}\"\n\
         # Of a key that may only put objects under spill/; its secret alone in the file, 0600:\n\
         access_key = \"\"\nsecret_key_file = {S3_SECRET_FILE:?}",
        s3.endpoint,
        s3.bucket,
        s3.region,
        hex::encode(key.bytes),
        key.id.to_hex()
    )
}

/// The newest key of `dir`, by its file's time; `None` if there is none.
pub fn newest(dir: &Path) -> Result<Option<PublicKey>, KeysProblem> {
    Ok(all(dir)?.into_iter().max_by_key(|(_, at)| *at).map(|(key, _)| key))
}

fn all(dir: &Path) -> Result<Vec<(PublicKey, std::time::SystemTime)>, KeysProblem> {
    let unreadable = |cause| KeysProblem::Unreadable { path: dir.to_owned(), cause };
    let mut keys = Vec::new();
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(keys),
        Err(error) => return Err(unreadable(error)),
    };
    for entry in entries {
        let path = entry.map_err(unreadable)?.path();
        if path.extension().is_some_and(|extension| extension == "key") {
            let at = std::fs::metadata(&path).and_then(|meta| meta.modified());
            keys.push((public_of(&path)?, at.map_err(unreadable)?));
        }
    }
    Ok(keys)
}

fn public_of(path: &Path) -> Result<PublicKey, KeysProblem> {
    let unreadable = |cause| KeysProblem::Unreadable { path: path.to_owned(), cause };
    let text = std::fs::read_to_string(path).map_err(unreadable)?;
    let bytes = hex::decode(text.trim()).ok();
    let private = bytes.and_then(|b| <X25519HkdfSha256 as Kem>::PrivateKey::from_bytes(&b).ok());
    let private = private.ok_or_else(|| KeysProblem::NotAKey(path.to_owned()))?;
    let bytes: [u8; 32] = X25519HkdfSha256::sk_to_pk(&private).to_bytes().into();
    Ok(PublicKey { id: KeyId::of_public_key(&bytes), bytes })
}

/// All keys by id, newest first.
pub fn ls(desk: &Desk) -> Result<Answer, Failure> {
    let mut keys = all(&desk.settings.keys_dir)?;
    keys.sort_by_key(|(_, at)| std::cmp::Reverse(*at));
    let mut answer = Answer::default();
    let section = answer.section("keys", &["key_id", "public_key", "created"]);
    for (key, at) in keys {
        let created = jiff::Timestamp::try_from(at).and_then(|at| at.round(jiff::Unit::Second));
        let created = created.map(|at| at.to_string()).unwrap_or_default();
        section.row([key.id.to_hex().into(), hex::encode(key.bytes).into(), created.into()]);
    }
    Ok(answer)
}

/// The private halves, for `spill show`; `None` when there are none to be read here.
pub fn private_keys(dir: &Path) -> Option<PrivateKeys> {
    PrivateKeys::load(dir).ok()
}
