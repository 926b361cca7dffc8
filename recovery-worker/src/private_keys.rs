//! The private keys that open sealed objects, each under the id that objects name.
//!
//! Keys rotate by addition: a new key is put beside the old ones before agents learn its public
//! half, and an old one stays until nothing sealed to it can come any more.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::{fs, io};

use hpke::kem::X25519HkdfSha256;
use hpke::{Deserializable, Kem, Serializable};
use spillway_proto::sealed_object::KeyId;
use zeroize::Zeroizing;

/// A key of the suite that objects are sealed with.
pub type PrivateKey = <X25519HkdfSha256 as Kem>::PrivateKey;

/// Keys are small; a longer file is something else.
const KEY_FILE_BYTES_MAX: u64 = 1_024;
/// Files that one folder may hold.
const KEYS_MAX: usize = 256;

/// Why a folder gives no keys.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    #[error("the folder of private keys, {}, can't be read: {cause}", path.display())]
    Folder { path: PathBuf, cause: io::Error },
    #[error("{} holds no private key (files <key id>.key with 64 hex digits)", .0.display())]
    Empty(PathBuf),
    #[error("{}: {fault}", path.display())]
    Key { path: PathBuf, fault: KeyFault },
}

/// What is wrong with one key's file.
#[derive(Debug, thiserror::Error)]
pub enum KeyFault {
    #[error("can't be read: {0}")]
    Unreadable(io::Error),
    #[error("is no private key: 64 hex digits are expected")]
    NotAKey,
    #[error("is the key {}, which its name does not say", .0.to_hex())]
    OtherId(KeyId),
}

/// All keys of one reading of the folder.
#[derive(Default)]
pub struct PrivateKeys {
    by_id: HashMap<KeyId, PrivateKey>,
}

impl PrivateKeys {
    /// Reads every `*.key` of a folder.
    ///
    /// # Errors
    /// [`KeysError`]: also if any one key is unsound, so that nobody finds out in an outage.
    pub fn load(folder: &Path) -> Result<Self, KeysError> {
        let unreadable = |cause| KeysError::Folder { path: folder.to_owned(), cause };
        let mut keys = Self::default();
        for entry in fs::read_dir(folder).map_err(unreadable)?.take(KEYS_MAX) {
            let path = entry.map_err(unreadable)?.path();
            if path.extension().is_some_and(|extension| extension == "key") {
                let key = read(&path);
                let (id, key) = key.map_err(|fault| KeysError::Key { path, fault })?;
                keys.by_id.insert(id, key);
            }
        }
        if keys.by_id.is_empty() {
            return Err(KeysError::Empty(folder.to_owned()));
        }
        Ok(keys)
    }

    #[must_use]
    pub fn get(&self, id: KeyId) -> Option<&PrivateKey> {
        self.by_id.get(&id)
    }

    /// Adds a key under the id of its public half.
    pub fn add(&mut self, key: PrivateKey) -> KeyId {
        let id = id_of(&key);
        self.by_id.insert(id, key);
        id
    }
}

/// The id under which objects name this key.
#[must_use]
pub fn id_of(key: &PrivateKey) -> KeyId {
    let public = X25519HkdfSha256::sk_to_pk(key).to_bytes();
    KeyId::of_public_key(&public.into())
}

fn read(path: &Path) -> Result<(KeyId, PrivateKey), KeyFault> {
    let length = fs::metadata(path).map_err(KeyFault::Unreadable)?.len();
    if length > KEY_FILE_BYTES_MAX {
        return Err(KeyFault::NotAKey);
    }
    let text = Zeroizing::new(fs::read_to_string(path).map_err(KeyFault::Unreadable)?);
    let mut bytes = Zeroizing::new([0; 32]);
    hex::decode_to_slice(text.trim(), bytes.as_mut_slice()).map_err(|_| KeyFault::NotAKey)?;
    let key = PrivateKey::from_bytes(bytes.as_slice()).map_err(|_| KeyFault::NotAKey)?;
    let id = id_of(&key);
    let named = path.file_stem().and_then(|stem| stem.to_str()).and_then(KeyId::from_hex);
    if named != Some(id) {
        return Err(KeyFault::OtherId(id));
    }
    Ok((id, key))
}

/// The folder as it was last read well.
#[derive(Clone)]
pub struct KeyFolder {
    folder: Arc<Path>,
    current: Arc<RwLock<Arc<PrivateKeys>>>,
}

impl KeyFolder {
    /// Reads the folder; the first reading must be good.
    pub fn open(folder: &Path) -> Result<Self, KeysError> {
        let keys = Arc::new(PrivateKeys::load(folder)?);
        Ok(Self { folder: Arc::from(folder), current: Arc::new(RwLock::new(keys)) })
    }

    /// These keys for ever, and no folder: for the simulation.
    #[cfg(feature = "simulation")]
    #[must_use]
    pub fn fixed(keys: PrivateKeys) -> Self {
        let current = Arc::new(RwLock::new(Arc::new(keys)));
        Self { folder: Arc::from(Path::new("")), current }
    }

    #[must_use]
    pub fn current(&self) -> Arc<PrivateKeys> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Reads the folder again, as an object that names an unknown key asks for. A bad folder
    /// leaves the keys that are known. Blocking.
    pub fn read_again(&self) -> Result<Arc<PrivateKeys>, KeysError> {
        let keys = Arc::new(PrivateKeys::load(&self.folder)?);
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&keys);
        Ok(keys)
    }
}
