//! One batch by each way. Its id is a content id, so it leaves no trace in the agents' ledger, and
//! both ways may carry it again at any time; its host is called `spillway-check`.

use std::time::{Duration, Instant};

use bytes::Bytes;
use hpke::aead::AesGcm256;
use hpke::kdf::HkdfSha256;
use hpke::kem::X25519HkdfSha256;
use hpke::{Deserializable, Kem, OpModeS, Serializable};
use jiff::Timestamp;
use spillway_proto::frame::{EncodeError, Encoder};
use spillway_proto::object_key::ObjectKey;
use spillway_proto::sealed_object::{ClearHeader, HPKE_INFO, Payload};
use spillway_proto::verdict::BatchesAnswer;
use spillway_proto::{Batch, BatchId, Kind, Point, Series};
use spillway_recovery_worker::bucket::Condition;
use spillway_recovery_worker::claim::CLAIM_PREFIX;
use spillway_runtime::shards::ShardMap;

use super::Stages;
use super::preflight::{CanaryToken, http};
use crate::cli::Check;
use crate::commands::keys::{self, KeysProblem};
use crate::commands::spill;
use crate::desk::Desk;
use crate::failure::Failure;
use crate::reach::http::join;
use crate::reach::mysql::Server;

/// The canary's host; the status page leaves it out.
pub const HOST: &str = "spillway-check";
const METRIC: &str = "spillway_check_canary";
/// How often MySQL is asked whether the canary has arrived.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Why a canary did not come through.
#[derive(Debug, thiserror::Error)]
pub enum CanaryFault {
    #[error("the API answered {status}: {text}")]
    Refused { status: u16, text: String },
    #[error("there is no API endpoint in spillway.toml")]
    NoEndpoint,
    #[error("keys_dir holds no key to seal to; `spillway keys create` makes one: {0}")]
    Keys(KeysProblem),
    #[error("keys_dir holds no key to seal to; `spillway keys create` makes one")]
    NoKey,
    #[error("sealing failed: {0}")]
    Seal(hpke::HpkeError),
    #[error(transparent)]
    Encode(#[from] EncodeError),
    #[error(
        "Kafka has it, but after {after:?} MySQL does not: the consumer does not apply partition \
         {partition} (`spillway lag` says more)"
    )]
    NotApplied { after: Duration, partition: u16 },
    #[error(
        "it lies in S3 as {key}, but after {after:?} no recovery worker has claimed it; is one \
         running?"
    )]
    NotClaimed { after: Duration, key: ObjectKey },
    #[error(
        "a recovery worker claimed {key}, but after {after:?} MySQL does not have it: see the \
         worker's log, and `spillway lag`"
    )]
    NotDrained { after: Duration, key: ObjectKey },
    #[error("the system gives no randomness: {0}")]
    Random(#[from] getrandom::Error),
    #[error("the clock is outside of what a point can carry")]
    Clock,
}

/// What was sent, and how to find it again.
#[derive(Debug)]
pub struct Canary {
    pub id: BatchId,
    frame: Bytes,
    window_ts: u32,
    value: f64,
    way: &'static str,
}

impl Canary {
    fn new(environment: &str, way: &'static str) -> Result<Self, CanaryFault> {
        let now = Timestamp::now().as_millisecond();
        let window_ts = spillway_proto::batch::window_of(now).ok_or(CanaryFault::Clock)?;
        // Its own time is a value that no other canary has.
        let value = now as f64;
        let series = Series {
            metric: METRIC.to_owned(),
            labels: vec![("way".to_owned(), way.to_owned())],
            kind: Kind::Gauge,
            unit: String::new(),
            points: vec![Point { ts_ms: now, value }],
        };
        let mut batch = Batch {
            // The encoder's to give; the canary's own time makes it one that no other has.
            id: BatchId::Content { hash: 0 },
            environment: environment.to_owned(),
            host: HOST.to_owned(),
            window_ts,
            series: vec![series],
            previous: None,
            declarations: Vec::new(),
            closing: false,
            host_info: None,
        };
        let frame = Encoder::new().encode_by_content(&mut batch)?;
        Ok(Self { id: batch.id, frame, window_ts, value, way })
    }
}

/// Sends both first, then waits for both.
pub async fn send_both(
    desk: &Desk,
    map: &ShardMap,
    token: &CanaryToken,
    options: &Check,
    stages: &mut Stages,
) {
    let by_http = stages.stage("canary: send over HTTP", over_http(desk, token)).await;
    let by_s3 = stages.stage("canary: park in S3", over_s3(desk, token)).await;
    if let Some(canary) = by_http {
        let wait = async {
            let took = arrived(desk, map, token, &canary, options.within.get()).await?;
            let partition = map.partitioning().map(|p| p.partition_of(&token.environment, HOST));
            let partition = partition.unwrap_or_default();
            let after = options.within.get();
            took.ok_or_else(|| CanaryFault::NotApplied { after, partition }.into()).map(readable)
        };
        stages.stage("canary: API → Kafka → MySQL", wait).await;
    }
    if let Some((canary, key)) = by_s3 {
        let wait = async {
            match arrived(desk, map, token, &canary, options.within.get()).await? {
                Some(took) => Ok(readable(took)),
                None => Err(stuck_in_s3(desk, key, options.within.get()).await?.into()),
            }
        };
        stages.stage("canary: S3 → Kafka → MySQL", wait).await;
    }
}

fn readable(took: Duration) -> ((), String) {
    ((), format!("readable in MySQL after {:.1} s", took.as_secs_f64()))
}

/// Sends a canary as an agent does.
pub async fn over_http(desk: &Desk, token: &CanaryToken) -> Result<(Canary, String), Failure> {
    let endpoint = desk.settings.api.endpoints.first().ok_or(CanaryFault::NoEndpoint)?;
    let canary = Canary::new(&token.environment, "http")?;
    let url = join(endpoint, "/v1/batches");
    let bearer = format!("Bearer {}", token.secret.reveal());
    let headers = [
        ("authorization", bearer.as_str()),
        ("content-type", "application/octet-stream"),
        ("spillway-lane", "live"),
    ];
    let answer = http(desk)?.post(&url, &headers, canary.frame.clone()).await?;
    let taken: Option<BatchesAnswer> = serde_json::from_slice(&answer.body).ok();
    let taken = taken.is_some_and(|taken| taken.accepted == 1);
    if answer.status.as_u16() != 200 || !taken {
        let text = answer.text().trim().chars().take(200).collect();
        return Err(CanaryFault::Refused { status: answer.status.as_u16(), text }.into());
    }
    Ok((canary, format!("{} took it, so Kafka has it", crate::reach::http::host_of(&url))))
}

/// Seals a canary and parks it as an agent does.
pub async fn over_s3(
    desk: &Desk,
    token: &CanaryToken,
) -> Result<((Canary, ObjectKey), String), Failure> {
    let bucket = spill::bucket(desk)?;
    let canary = Canary::new(&token.environment, "s3")?;
    let (key, object) = seal(desk, token, &canary.frame)?;
    bucket.put(key.as_str(), object, Condition::Always).await?;
    let detail = format!("parked as {key}");
    Ok(((canary, key), detail))
}

fn seal(desk: &Desk, token: &CanaryToken, frame: &Bytes) -> Result<(ObjectKey, Bytes), Failure> {
    let public = keys::newest(&desk.settings.keys_dir).map_err(CanaryFault::Keys)?;
    let public = public.ok_or(CanaryFault::NoKey)?;
    let mut random = [0; 16];
    getrandom::fill(&mut random).map_err(CanaryFault::Random)?;
    let key = ObjectKey::from_random(u128::from_le_bytes(random));
    let plain = Payload { token: token.secret.reveal(), frames: frame }.to_padded_bytes()?;
    let recipient = <X25519HkdfSha256 as Kem>::PublicKey::from_bytes(&public.bytes);
    let recipient = recipient.map_err(CanaryFault::Seal)?;
    let (encapsulated, mut context) =
        hpke::setup_sender::<AesGcm256, HkdfSha256, X25519HkdfSha256>(
            &OpModeS::Base,
            &recipient,
            HPKE_INFO,
        )
        .map_err(CanaryFault::Seal)?;
    let header =
        ClearHeader { key_id: public.id, encapsulated_key: encapsulated.to_bytes().into() };
    let sealed = context.seal(&plain, &header.aad(key.as_str())).map_err(CanaryFault::Seal)?;
    Ok((key, [header.to_bytes().as_slice(), &sealed].concat().into()))
}

/// How long until the canary could be read through the view; `None` when it could not in time.
pub async fn arrived(
    desk: &Desk,
    map: &ShardMap,
    token: &CanaryToken,
    canary: &Canary,
    within: Duration,
) -> Result<Option<Duration>, Failure> {
    let Some(shard) = map.shard_of_environment(&token.environment) else { return Ok(None) };
    let began = Instant::now();
    let mut server = Server::connect(&desk.settings, shard).await?;
    loop {
        let found = server.ask(async |conn| {
            let sql = "SELECT COUNT(*) FROM spillway.metrics
                       WHERE environment = ? AND host = ? AND metric = ? AND window_ts = ?
                       AND value = ? AND labels LIKE ?";
            let way = format!("%\"{}\"%", canary.way);
            let query = sqlx::query_scalar(sql).bind(&token.environment).bind(HOST).bind(METRIC);
            let query = query.bind(canary.window_ts).bind(canary.value).bind(way);
            query.fetch_one(conn).await
        });
        let found: i64 = found.await?;
        if found > 0 {
            return Ok(Some(began.elapsed()));
        }
        if began.elapsed() >= within {
            return Ok(None);
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Why a parked canary did not come home: nobody took it, or somebody did not finish.
pub async fn stuck_in_s3(
    desk: &Desk,
    key: ObjectKey,
    after: Duration,
) -> Result<CanaryFault, Failure> {
    let claim = format!("{CLAIM_PREFIX}{}", key.name());
    let claimed = spill::bucket(desk)?.head(&claim).await?.is_some();
    Ok(match claimed {
        true => CanaryFault::NotDrained { after, key },
        false => CanaryFault::NotClaimed { after, key },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_canary_is_a_sound_frame_of_its_environment_without_a_counted_id() {
        let canary = Canary::new("acme", "http").unwrap();
        let verified = spillway_proto::frame::verify(&canary.frame).unwrap();
        assert_eq!((verified.environment.as_str(), verified.host.as_str()), ("acme", HOST));
        assert!(matches!(verified.header.id, BatchId::Content { .. }));
        let other = Canary::new("acme", "s3").unwrap();
        let other = spillway_proto::frame::verify(&other.frame).unwrap();
        assert_ne!(verified.header.id, other.header.id);
    }

    #[test]
    fn every_fault_names_what_to_look_at() {
        let key = ObjectKey::from_random(1);
        let after = Duration::from_secs(60);
        let faults = [
            (CanaryFault::NotApplied { after, partition: 3 }.to_string(), "partition 3"),
            (CanaryFault::NotClaimed { after, key: key.clone() }.to_string(), "recovery worker"),
            (CanaryFault::NotDrained { after, key }.to_string(), "worker's log"),
            (super::super::preflight::CheckFault::NoToken.to_string(), "spillway token create"),
        ];
        for (text, expected) in faults {
            assert!(text.contains(expected), "{text}");
        }
    }
}
