//! `spillway spill ls|show|verify|replay`: what is parked in S3, and what is in it.

pub mod replay;
pub mod select;
pub mod verify;

use std::time::Duration;

use jiff::Timestamp;
use serde_json::Value as Json;
use spillway_proto::frame::{self, Decoder};
use spillway_proto::limits::SEALED_OBJECT_BYTES_MAX;
use spillway_proto::object_key::{ObjectKey, SPILL_PREFIX};
use spillway_proto::sealed_object::{ClearHeader, Payload};
use spillway_recovery_worker::bucket::{Bucket, Listed};
use spillway_recovery_worker::quarantine::QUARANTINE_PREFIX;
use spillway_recovery_worker::unseal::unseal;

use super::keys;
use super::trace::time;
use crate::answer::{Answer, Verdict};
use crate::desk::Desk;
use crate::failure::{Failure, UsageError};

/// An object older than this is an incident; it is never deleted undrained.
const INCIDENT_AFTER_S: i64 = 72 * 3_600;
/// Listing pages read at most: a million objects.
const PAGES_MAX: usize = 1_000;

/// The bucket as spillway.toml names it.
pub fn bucket(desk: &Desk) -> Result<Bucket, Failure> {
    if desk.settings.s3.access_key.is_empty() {
        let text = "spillway.toml has no [s3] access_key, so S3 can't be asked";
        return Err(UsageError(text.to_owned()).into());
    }
    Ok(Bucket::new(&desk.settings.s3)?)
}

/// Everything parked, oldest first.
pub async fn all(bucket: &Bucket) -> Result<(Vec<Listed>, u64), Failure> {
    let (mut objects, mut foreign, mut after) = (Vec::new(), 0, None);
    for _ in 0..PAGES_MAX {
        let page = bucket.list_spill(after).await?;
        objects.extend(page.objects);
        foreign += page.foreign;
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    objects.sort_by_key(|object| object.modified_ms);
    Ok((objects, foreign))
}

pub async fn ls(desk: &Desk, limit: usize) -> Result<Answer, Failure> {
    let (objects, foreign) = all(&bucket(desk)?).await?;
    let now = Timestamp::now().as_millisecond();
    let age_s = |object: &Listed| (now - object.modified_ms).max(0) / 1_000;
    let mut answer = Answer::default();
    let bytes: u64 = objects.iter().map(|object| object.bytes).sum();
    let oldest = objects.first().map(age_s);
    answer.fact("objects", objects.len()).fact("bytes", bytes).fact("oldest_s", oldest);
    if foreign > 0 {
        let text = format!("{foreign} keys under {SPILL_PREFIX} are not ours; who writes there?");
        answer.fact("foreign", foreign).trouble(Verdict::Warning, text);
    }
    if oldest.is_some_and(|age| age > INCIDENT_AFTER_S) {
        let text = "the oldest object waits longer than 72 h: is a recovery worker running?";
        answer.trouble(Verdict::Critical, text);
    }
    let section = answer.section("parked", &["key", "bytes", "age_s", "arrived"]);
    for object in objects.iter().take(limit) {
        section.row([
            object.key.as_str().into(),
            object.bytes.into(),
            age_s(object).into(),
            time(object.modified_ms).into(),
        ]);
    }
    Ok(answer)
}

/// The object that an operator names, by its whole key or by its digits, also in quarantine.
pub fn named(text: &str) -> Result<ObjectKey, UsageError> {
    let name = text.strip_prefix(SPILL_PREFIX).or(text.strip_prefix(QUARANTINE_PREFIX));
    let whole = format!("{SPILL_PREFIX}{}", name.unwrap_or(text));
    ObjectKey::parse(&whole).ok_or_else(|| {
        UsageError(format!("{text:?} is no object's name: spill/ and 32 hexadecimal digits"))
    })
}

/// Lets at most so many objects through a second; the first at once.
#[derive(Debug)]
pub struct Pace {
    ticks: tokio::time::Interval,
}

impl Pace {
    pub fn new(per_second: std::num::NonZeroU32) -> Self {
        // Timers have a millisecond's grain.
        let pause = (Duration::from_secs(1) / per_second.get()).max(Duration::from_millis(1));
        let mut ticks = tokio::time::interval(pause);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        Self { ticks }
    }

    pub async fn next(&mut self) {
        self.ticks.tick().await;
    }
}

pub async fn show(desk: &Desk, key: &str) -> Result<Answer, Failure> {
    let key = named(key)?;
    let bytes_max = SEALED_OBJECT_BYTES_MAX as u64;
    let (object, _) = bucket(desk)?.get(key.as_str(), None, bytes_max).await?;
    let (header, ciphertext) = ClearHeader::parse(&object)?;
    let mut answer = Answer::default();
    answer
        .fact("key", key.as_str())
        .fact("bytes", object.len())
        .fact("sealed_bytes", ciphertext.len())
        .fact("key_id", header.key_id.to_hex());
    let keys = keys::private_keys(&desk.settings.keys_dir);
    let Some(keys) = keys.filter(|keys| keys.get(header.key_id).is_some()) else {
        answer.note(format!(
            "Its batches can be shown where {} holds {}.key.",
            desk.settings.keys_dir.display(),
            header.key_id.to_hex()
        ));
        return Ok(answer);
    };
    match unseal(&object, &key, &keys) {
        Ok(plain) => show_payload(&mut answer, &plain)?,
        Err(unfit) => {
            answer.trouble(Verdict::Critical, unfit.to_string());
        }
    }
    Ok(answer)
}

fn show_payload(answer: &mut Answer, plain: &bytes::Bytes) -> Result<(), Failure> {
    let payload = Payload::parse(plain)?;
    // The id names the token's row; the secret behind it is nobody's business here.
    let id = payload.token.split('_').nth(1).unwrap_or_default();
    answer.fact("token_id", id);
    let mut decoder = Decoder::new();
    let mut rows = Vec::new();
    for frame in frame::split(&plain.slice_ref(payload.frames)) {
        let verified = frame.and_then(|frame| decoder.verify(&frame));
        rows.push(match verified {
            Ok(found) => vec![
                found.header.id.to_string().into(),
                found.environment.into(),
                found.host.into(),
                found.header.window_ts.into(),
                found.header.series.into(),
                found.header.points.into(),
                Json::Null,
            ],
            Err(fault) => {
                let mut row = vec![Json::Null; 6];
                row.push(fault.to_string().into());
                answer.worsen(Verdict::Warning);
                row
            }
        });
    }
    let columns = ["batch", "environment", "host", "window_ts", "series", "points", "fault"];
    answer.section("batches", &columns).rows = rows;
    Ok(())
}
