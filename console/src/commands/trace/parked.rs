//! S3: which parked or quarantined object carries the batch. Objects are sealed, so this needs the
//! recovery worker's keys; an object that was drained is deleted and leaves no name behind.

use bytes::Bytes;
use spillway_proto::BatchId;
use spillway_proto::frame::{self, Header};
use spillway_proto::kafka_record::Lane;
use spillway_proto::limits::SEALED_OBJECT_BYTES_MAX;
use spillway_proto::object_key::{ObjectKey, SPILL_PREFIX};
use spillway_proto::sealed_object::Payload;
use spillway_recovery_worker::bucket::Bucket;
use spillway_recovery_worker::private_keys::PrivateKeys;
use spillway_recovery_worker::quarantine::QUARANTINE_PREFIX;
use spillway_recovery_worker::unseal::unseal;

use super::Hop;
use super::mysql::Stored;
use crate::commands::{keys, spill};
use crate::desk::Desk;
use crate::failure::Failure;

const HOP: &str = "s3";
/// Objects opened at most, oldest first.
const OPENED_MAX: usize = 500;

pub async fn look(desk: &Desk, id: &BatchId, stored: Option<&Stored>) -> Hop {
    if let Some(audit) = stored.and_then(|stored| stored.audit.as_ref()) {
        return match audit.lane {
            Lane::Live => Hop::new(HOP, "passed", "not used: it came through the API, live"),
            Lane::Backlog => Hop::new(
                HOP,
                "passed",
                "it came as backlog, out of S3 or late out of a spool: which of the two is not \
                 kept, since a drained object is deleted",
            ),
        };
    }
    let found = search(desk, id).await;
    found.unwrap_or_else(|failure| Hop::new(HOP, "unknown", failure.sentence()))
}

/// Whether the batch lies in quarantine, where the recovery worker does not look.
pub fn is_aside(hop: &Hop) -> bool {
    let path = hop.detail.strip_prefix("in ").unwrap_or_default();
    hop.hop == HOP && hop.state == "here" && path.starts_with(QUARANTINE_PREFIX)
}

async fn search(desk: &Desk, id: &BatchId) -> Result<Hop, Failure> {
    let bucket = spill::bucket(desk)?;
    let (parked, _) = spill::all(&bucket).await?;
    let (quarantined, _) = bucket.list_names(QUARANTINE_PREFIX, None).await?;
    let quarantined: Vec<String> =
        quarantined.into_iter().filter(|name| !name.ends_with(".json")).collect();
    if parked.is_empty() && quarantined.is_empty() {
        return Ok(Hop::new(HOP, "absent", "nothing is parked, and nothing quarantined"));
    }
    let all = parked.len() + quarantined.len();
    let Some(keys) = keys::private_keys(&desk.settings.keys_dir) else {
        let text = format!(
            "{all} sealed objects; which batches are in them can be seen where the \
                            recovery worker's keys are (keys_dir)"
        );
        return Ok(Hop::new(HOP, "unknown", text));
    };
    let parked = parked.iter().map(|object| (object.key.clone(), object.key.as_str().to_owned()));
    let aside = quarantined.iter().filter_map(|name| {
        let key = ObjectKey::parse(&format!("{SPILL_PREFIX}{name}"))?;
        Some((key, format!("{QUARANTINE_PREFIX}{name}")))
    });
    for (key, path) in parked.chain(aside).take(OPENED_MAX) {
        if holds(&bucket, &keys, &key, &path, id).await? {
            return Ok(Hop::new(HOP, "here", format!("in {path}")));
        }
    }
    Ok(match all {
        ..=OPENED_MAX => Hop::new(HOP, "absent", format!("in none of the {all} objects")),
        _ => {
            let text = format!("in none of the first {OPENED_MAX} of {all} objects");
            Hop::new(HOP, "unknown", text)
        }
    })
}

async fn holds(
    bucket: &Bucket,
    keys: &PrivateKeys,
    key: &ObjectKey,
    path: &str,
    id: &BatchId,
) -> Result<bool, Failure> {
    let got = bucket.get(path, None, SEALED_OBJECT_BYTES_MAX as u64).await;
    // Drained since it was listed, or not to be read: then it is not this one's carrier.
    let Ok((object, _)) = got else { return Ok(false) };
    let Ok(plain) = unseal(&object, key, keys) else { return Ok(false) };
    Ok(ids(&plain).contains(id))
}

/// The ids of a payload's frames, as far as they can be read.
pub fn ids(plain: &Bytes) -> Vec<BatchId> {
    let Ok(payload) = Payload::parse(plain) else { return Vec::new() };
    let frames = frame::split(&plain.slice_ref(payload.frames));
    frames.into_iter().filter_map(|f| Header::parse(&f.ok()?).ok()).map(|h| h.id).collect()
}
