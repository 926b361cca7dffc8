//! Which objects `spill replay` is about: by name, by time, by reason, by environment; from
//! quarantine, or from a folder of copies.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use serde_json::Value as Json;
use spillway_proto::limits::SEALED_OBJECT_BYTES_MAX;
use spillway_proto::object_key::{ObjectKey, SPILL_PREFIX};
use spillway_proto::sealed_object::Payload;
use spillway_recovery_worker::bucket::Bucket;
use spillway_recovery_worker::private_keys::PrivateKeys;
use spillway_recovery_worker::quarantine::{QUARANTINE_PREFIX, quarantine_key};
use spillway_recovery_worker::unseal::unseal;
use spillway_runtime::tokens::Tokens;

use super::named;
use super::replay::ReplayFault;
use crate::cli::Replay;
use crate::desk::Desk;
use crate::failure::{Failure, UsageError};

/// A reason's file is some KiB.
const REASON_BYTES_MAX: u64 = 256 * 1024;
/// Listing pages read at most: a million names.
const PAGES_MAX: usize = 1_000;

/// An object, and why it is where it is.
pub struct Aside {
    pub key: ObjectKey,
    pub reason: String,
}

/// Where the bytes are taken from.
pub enum Source {
    Quarantine(Bucket),
    Folder(PathBuf),
}

impl Source {
    pub async fn read(&self, key: &ObjectKey) -> Result<Bytes, ReplayFault> {
        match self {
            Self::Quarantine(bucket) => {
                let bytes_max = SEALED_OBJECT_BYTES_MAX as u64;
                Ok(bucket.get(&quarantine_key(key), None, bytes_max).await?.0)
            }
            Self::Folder(dir) => {
                let path = dir.join(key.name());
                let bytes = std::fs::metadata(&path).map(|meta| meta.len());
                match bytes.and_then(|bytes| Ok((bytes, std::fs::read(&path)?))) {
                    Ok((bytes, read)) if bytes <= SEALED_OBJECT_BYTES_MAX as u64 => Ok(read.into()),
                    Ok(_) => Err(ReplayFault::TooLarge { path }),
                    Err(cause) => Err(ReplayFault::File { path, cause }),
                }
            }
        }
    }

    async fn all(&self) -> Result<Vec<ObjectKey>, Failure> {
        match self {
            Self::Quarantine(bucket) => listed(bucket).await,
            Self::Folder(dir) => in_folder(dir),
        }
    }
}

/// Whose object it is, as the token inside its seal says; needs the private key.
struct Owners {
    keys: PrivateKeys,
    tokens: Tokens,
}

impl Owners {
    fn environment(&self, key: &ObjectKey, object: &Bytes) -> Option<String> {
        let plain = unseal(object, key, &self.keys).ok()?;
        let payload = Payload::parse(&plain).ok()?;
        let id = payload.token.split('_').nth(1)?;
        self.tokens.iter().find(|row| row.id == id).map(|row| row.environment.clone())
    }
}

/// What was chosen, and how many could not be told apart.
pub struct Chosen {
    pub objects: Vec<Aside>,
    /// Whose environment can't be known here: no key, or no row of the token.
    pub unknown: usize,
}

pub async fn choose(desk: &Desk, options: &Replay, source: &Source) -> Result<Chosen, Failure> {
    let objects = &options.objects;
    let mut keys = match objects.keys.is_empty() {
        true => source.all().await?,
        false => objects.keys.iter().map(|key| named(key)).collect::<Result<Vec<_>, _>>()?,
    };
    // By name: quarantine's order does not matter, and a resumed run needs a fixed one.
    keys.sort_unstable();
    if let Some(after) = &objects.resume_after {
        let after = named(after)?;
        keys.retain(|key| *key > after);
    }
    let owners = match options.environment {
        Some(_) => Some(Owners {
            keys: PrivateKeys::load(&desk.settings.keys_dir)?,
            tokens: Tokens::load(&desk.settings.tokens_file)?,
        }),
        None => None,
    };
    let mut chosen = Chosen { objects: Vec::new(), unknown: 0 };
    for key in keys {
        if chosen.objects.len() >= objects.limit {
            break;
        }
        let why = Why::of(source, &key).await;
        if !why.fits(options) {
            continue;
        }
        if let (Some(owners), Some(wanted)) = (&owners, &options.environment) {
            let bytes = source.read(&key).await.ok();
            match bytes.and_then(|bytes| owners.environment(&key, &bytes)) {
                None => {
                    chosen.unknown += 1;
                    continue;
                }
                Some(found) if found != *wanted => continue,
                Some(_) => {}
            }
        }
        chosen.objects.push(Aside { key, reason: why.detail });
    }
    Ok(chosen)
}

/// What is known of an object without opening it.
struct Why {
    word: String,
    detail: String,
    parked_ms: Option<i64>,
}

impl Why {
    async fn of(source: &Source, key: &ObjectKey) -> Self {
        let bucket = match source {
            Source::Quarantine(bucket) => bucket,
            Source::Folder(dir) => {
                return Self {
                    word: "copy".to_owned(),
                    detail: format!("a copy in {}", dir.display()),
                    parked_ms: modified_ms(&dir.join(key.name())),
                };
            }
        };
        let path = format!("{}.json", quarantine_key(key));
        let text = bucket.get(&path, None, REASON_BYTES_MAX).await.ok();
        let json: Option<Json> = text.and_then(|(bytes, _)| serde_json::from_slice(&bytes).ok());
        let word = |name: &str| json.as_ref().and_then(|json| json.get(name)?.as_str());
        Self {
            word: word("reason").unwrap_or_default().to_owned(),
            detail: word("detail").unwrap_or("its reason can't be read").to_owned(),
            parked_ms: json.as_ref().and_then(|json| json.get("last_modified_ms")?.as_i64()),
        }
    }

    /// An object of which no time is known is in no range of times.
    fn fits(&self, options: &Replay) -> bool {
        let (since, until) = (options.since, options.until);
        let in_time = match self.parked_ms {
            None => since.is_none() && until.is_none(),
            Some(ms) => {
                since.is_none_or(|since| ms >= since.as_millisecond())
                    && until.is_none_or(|until| ms < until.as_millisecond())
            }
        };
        in_time && options.reason.as_ref().is_none_or(|wanted| *wanted == self.word)
    }
}

fn modified_ms(path: &Path) -> Option<i64> {
    let at = std::fs::metadata(path).ok()?.modified().ok()?;
    Some(jiff::Timestamp::try_from(at).ok()?.as_millisecond())
}

async fn listed(bucket: &Bucket) -> Result<Vec<ObjectKey>, Failure> {
    let (mut keys, mut after) = (Vec::new(), None);
    for _ in 0..PAGES_MAX {
        let (names, next) = bucket.list_names(QUARANTINE_PREFIX, after).await?;
        let objects = names.iter().filter_map(|n| ObjectKey::parse(&format!("{SPILL_PREFIX}{n}")));
        keys.extend(objects);
        after = next;
        if after.is_none() {
            break;
        }
    }
    Ok(keys)
}

/// Files that bear an object's name; others are none of ours.
fn in_folder(dir: &Path) -> Result<Vec<ObjectKey>, Failure> {
    let entries = std::fs::read_dir(dir)
        .map_err(|cause| UsageError(format!("{} can't be read: {cause}", dir.display())))?;
    let name = |entry: std::fs::DirEntry| entry.file_name().into_string().ok();
    let names = entries.flatten().filter_map(name);
    Ok(names.filter_map(|name| ObjectKey::parse(&format!("{SPILL_PREFIX}{name}"))).collect())
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;
    use crate::cli::Objects;

    fn options() -> Replay {
        let (keys, rate) = (Vec::new(), NonZeroU32::MIN);
        let objects = Objects { keys, limit: 10, rate, resume_after: None };
        Replay { objects, environment: None, since: None, until: None, reason: None, from: None }
    }

    #[test]
    fn a_range_of_times_has_its_beginning_and_not_its_end_and_nothing_unknown() {
        let at = |s: i64| jiff::Timestamp::from_second(s).unwrap();
        let ranged = Replay { since: Some(at(10)), until: Some(at(20)), ..options() };
        let why = |parked_ms| Why { word: "token".into(), detail: String::new(), parked_ms };
        assert!(why(Some(10_000)).fits(&ranged) && why(Some(19_999)).fits(&ranged));
        assert!(!why(Some(9_999)).fits(&ranged) && !why(Some(20_000)).fits(&ranged));
        assert!(!why(None).fits(&ranged) && why(None).fits(&options()));
        let worded = Replay { reason: Some("key".into()), ..options() };
        assert!(!why(Some(1)).fits(&worded));
    }

    #[test]
    fn in_a_folder_only_objects_names_count() {
        let dir = tempfile::tempdir().unwrap();
        let name = "0123456789abcdef0123456789abcdef";
        for file in [name, "notes.txt", "0123456789abcdef0123456789abcdef.json"] {
            std::fs::write(dir.path().join(file), "x").unwrap();
        }
        let found = in_folder(dir.path()).unwrap();
        assert_eq!(found.iter().map(ObjectKey::name).collect::<Vec<_>>(), [name]);
        assert!(in_folder(Path::new("/proc/nowhere")).is_err());
    }
}
