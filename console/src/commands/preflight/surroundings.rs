//! What every part stands on: certificates, disks, clocks, the controllers, the bucket's rights.

use bytes::Bytes;
use http::Uri;
use jiff::Timestamp;
use jiff::fmt::strtime;
use spillway_recovery_worker::bucket::Condition;
use spillway_runtime::mysql::text;
use spillway_runtime::program::chain;
use spillway_runtime::shards::{Shard, ShardMap};

use super::Lines;
use crate::answer::{Verdict, duration};
use crate::commands::spill;
use crate::desk::Desk;
use crate::failure::Failure;
use crate::reach::clock::{self, SKEW_MS_MAX};
use crate::reach::kafka::wire::{self, LogDir, Quorum, WireFault};
use crate::reach::mysql::Server;
use crate::reach::tls;
use crate::status::probe;

/// A certificate that ends sooner needs somebody's attention, and then at once.
const CERTIFICATE_S_MIN: i64 = 21 * 86_400;
const CERTIFICATE_S_LATE: i64 = 3 * 86_400;
/// Of a disk, what should be left at least, and what must be.
const FREE_MIN: f64 = 0.25;
const FREE_LATE: f64 = 0.10;
/// A controller that was last up to date before this is not counted on.
const VOTER_BEHIND_MS_MAX: i64 = 10_000;
/// One small object, written anew each time. Only the recovery worker deletes.
const PROBE_KEY: &str = "claims/spillway-preflight";

/// Each API endpoint that speaks TLS.
pub async fn api_certificates(desk: &Desk, lines: &mut Lines) {
    for endpoint in &desk.settings.api.endpoints {
        let Ok(uri) = endpoint.parse::<Uri>() else { continue };
        let Some(host) = uri.host() else { continue };
        let check = format!("certificate {host}");
        if uri.scheme_str() != Some("https") {
            lines.tell(&check, "none", format!("{endpoint} is served in the clear"));
            continue;
        }
        let port = uri.port_u16().unwrap_or(443);
        match tls::look(host, port, desk.settings.remote_deadline.get()).await {
            Ok(shown) => {
                lines.judge(&check, certificate(shown.expires_at_s));
                if let Some(why) = shown.distrusted {
                    lines.add(check, Verdict::Critical, format!("clients refuse it: {why}"));
                }
            }
            Err(fault) => lines.add(check, Verdict::Critical, chain(&fault)),
        }
    }
}

/// Kafka's certificate, if it has one; its issuer is usually the company's own, so only its time is
/// judged here.
async fn kafka_certificate(desk: &Desk, address: &str, lines: &mut Lines) {
    let settings = &desk.settings.kafka;
    let Some((host, port)) = address.rsplit_once(':') else { return };
    if !settings.security_protocol.to_ascii_lowercase().ends_with("ssl") {
        return;
    }
    let check = format!("certificate {address}");
    let port = port.parse().unwrap_or(9092);
    match tls::look(host, port, desk.settings.remote_deadline.get()).await {
        Ok(shown) => lines.judge(&check, certificate(shown.expires_at_s)),
        Err(fault) => lines.add(check, Verdict::Critical, chain(&fault)),
    }
}

fn certificate(expires_at_s: i64) -> (Verdict, String) {
    let left = expires_at_s.saturating_sub(Timestamp::now().as_second());
    let at = Timestamp::from_second(expires_at_s).map(|at| at.to_string()).unwrap_or_default();
    if left <= 0 {
        return (Verdict::Critical, format!("it ended on {at}"));
    }
    let ends = format!("it ends on {at}, in {}", days(left));
    if left <= CERTIFICATE_S_LATE {
        return (Verdict::Critical, ends);
    }
    match left <= CERTIFICATE_S_MIN {
        true => (Verdict::Warning, ends),
        false => (Verdict::Ok, format!("good for {}, until {at}", days(left))),
    }
}

fn days(seconds: i64) -> String {
    duration(seconds as f64)
}

/// Kafka's own tool asks the same with any login.
fn ask_by_hand(fault: &WireFault, tool: &str, address: &str, how: &str) -> String {
    match fault {
        WireFault::Login(_) => {
            format!("{tool} --bootstrap-server {address} --command-config client.properties {how}")
        }
        _ => "does this machine reach that broker's advertised address?".to_owned(),
    }
}

/// Disks, certificate and quorum, as the brokers themselves tell.
pub async fn kafka(desk: &Desk, brokers: &[(i32, String)], lines: &mut Lines) {
    let deadline = desk.settings.remote_deadline.get();
    for (_, address) in brokers {
        let check = format!("disk {address}");
        match wire::log_dirs(&desk.settings.kafka, address, deadline).await {
            Ok(dirs) => {
                for dir in dirs {
                    lines.judge(&check, disk(&dir));
                }
            }
            Err(fault) => {
                let fix = ask_by_hand(&fault, "kafka-log-dirs.sh", address, "--describe");
                lines.unknown(&check, chain(&fault), fix);
            }
        }
        kafka_certificate(desk, address, lines).await;
    }
    let Some((_, address)) = brokers.first() else { return };
    let asked_ms = clock::now_ms();
    match wire::quorum(&desk.settings.kafka, address, deadline).await {
        Ok(quorum) => {
            lines.judge("kafka quorum", controllers(&quorum));
            let controller = quorum.voters.iter().find(|voter| voter.id == quorum.leader);
            if let Some(at) = controller.map(|voter| voter.caught_up_ms).filter(|at| *at > 0) {
                lines.judge("clock of kafka", skew(asked_ms, at));
            }
        }
        Err(fault) => {
            let detail = format!("{}; stop one node at a time", chain(&fault));
            let how = "describe --replication";
            let fix = ask_by_hand(&fault, "kafka-metadata-quorum.sh", address, how);
            lines.unknown("kafka quorum", detail, fix);
        }
    }
}

fn disk(dir: &LogDir) -> (Verdict, String) {
    if dir.failed {
        return (Verdict::Critical, format!("the broker gave {} up: it is broken", dir.path));
    }
    let logs = bytes(dir.log_bytes);
    let (Some(total), Some(usable)) = (dir.total_bytes.filter(|t| *t > 0), dir.usable_bytes) else {
        return (Verdict::Ok, format!("{}: logs {logs}; this Kafka tells no more", dir.path));
    };
    let free = usable as f64 / total as f64;
    let detail = format!("{}: {} of {} free, logs {logs}", dir.path, bytes(usable), bytes(total));
    match free {
        _ if free < FREE_LATE => (Verdict::Critical, detail),
        _ if free < FREE_MIN => (Verdict::Warning, detail),
        _ => (Verdict::Ok, detail),
    }
}

/// 1.5 GB, as disks are sold.
pub fn bytes(count: i64) -> String {
    let mut value = count as f64;
    let mut units = ["B", "kB", "MB", "GB", "TB"].into_iter();
    let mut unit = units.next().unwrap_or_default();
    while value >= 1_000.0
        && let Some(next) = units.next()
    {
        (value, unit) = (value / 1_000.0, next);
    }
    format!("{value:.1} {unit}").replace(".0 ", " ")
}

fn controllers(quorum: &Quorum) -> (Verdict, String) {
    let newest = quorum.voters.iter().map(|voter| voter.caught_up_ms).max().unwrap_or(0);
    let well = quorum.voters.iter().filter(|voter| {
        voter.id == quorum.leader || newest - voter.caught_up_ms <= VOTER_BEHIND_MS_MAX
    });
    let (voters, well) = (quorum.voters.len(), well.count());
    let needed = voters / 2 + 1;
    let detail = format!(
        "{well} of {voters} controllers are up to date, {needed} needed; number {} leads",
        quorum.leader
    );
    match well.checked_sub(needed) {
        None => (Verdict::Critical, detail),
        Some(0) if voters > 1 => (Verdict::Critical, format!("{detail}: none may be stopped")),
        Some(0) => (Verdict::Warning, format!("{detail}: it is the only one")),
        Some(spare) => (Verdict::Ok, format!("{detail}: {spare} may be stopped")),
    }
}

/// How far that clock is from this one.
fn skew(asked_ms: i64, theirs_ms: i64) -> (Verdict, String) {
    let ahead = clock::ahead_ms(asked_ms, theirs_ms, clock::now_ms());
    match ahead.abs() > SKEW_MS_MAX {
        true => (Verdict::Warning, format!("this clock is {ahead} ms ahead of that one")),
        false => (Verdict::Ok, format!("within {SKEW_MS_MAX} ms of this one")),
    }
}

/// What a MySQL server tells of itself.
struct Told {
    now_ms: i64,
    certificate: Option<i64>,
}

pub async fn mysql(desk: &Desk, map: &ShardMap, lines: &mut Lines) {
    for shard in &map.shards {
        // That it does not answer is another line's.
        let asked_ms = clock::now_ms();
        let Ok(told) = ask(desk, shard).await else { continue };
        lines.judge(&format!("clock of {}", shard.name), skew(asked_ms, told.now_ms));
        let check = format!("certificate {}", shard.name);
        match told.certificate {
            Some(expires) => lines.judge(&check, certificate(expires)),
            None => lines.tell(&check, "none", "it offers no TLS"),
        }
        let Ok(data) = probe::data_bytes(&desk.settings, shard).await else { continue };
        let check = format!("disk {}", shard.name);
        match i64::try_from(desk.settings.status.mysql_disk.get()) {
            Ok(0) => {
                let detail = format!(
                    "our tables take {}; MySQL can't tell its disk: set status.mysql_disk",
                    bytes(data)
                );
                lines.tell(&check, "unknown", detail);
            }
            total => {
                let total = total.unwrap_or(i64::MAX);
                let dir = LogDir {
                    path: "MySQL".to_owned(),
                    log_bytes: data,
                    total_bytes: Some(total),
                    usable_bytes: Some(total.saturating_sub(data)),
                    ..LogDir::default()
                };
                lines.judge(&check, disk(&dir));
            }
        }
    }
}

async fn ask(desk: &Desk, shard: &Shard) -> Result<Told, Failure> {
    let mut server = Server::connect(&desk.settings, shard).await?;
    let asked = server.ask(async |conn| {
        let now = "SELECT CAST(UNIX_TIMESTAMP(NOW(3)) * 1000 AS SIGNED)";
        let now_ms = sqlx::query_scalar(now).fetch_one(&mut *conn).await?;
        let status = "SHOW GLOBAL STATUS LIKE 'Ssl_server_not_after'";
        let rows = sqlx::raw_sql(status).fetch_all(conn).await?;
        let ends = rows.first().map(|row| text(row, 1)).transpose()?;
        Ok(Told { now_ms, certificate: ends.as_deref().and_then(ends_at) })
    });
    Ok(asked.await?)
}

/// `Nov 19 15:55:52 2036 GMT`, as OpenSSL writes times.
fn ends_at(text: &str) -> Option<i64> {
    let text = text.trim().strip_suffix("GMT")?.trim();
    let time = strtime::parse("%b %d %H:%M:%S %Y", text).ok()?.to_datetime().ok()?;
    Some(time.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp().as_second())
}

/// Written and read where only the recovery worker writes. What agents may do, `check` tries.
pub async fn s3(desk: &Desk, lines: &mut Lines) {
    let tried = async {
        let bucket = spill::bucket(desk)?;
        let parked = bucket.list_spill(None).await?.objects.len();
        let body = Bytes::from(Timestamp::now().to_string());
        bucket.put(PROBE_KEY, body.clone(), Condition::Always).await?;
        let (read, _) = bucket.get(PROBE_KEY, None, 1_024).await?;
        Ok::<_, Failure>((parked, read == body))
    };
    match tried.await {
        Ok((parked, true)) => {
            let detail = format!("lists ({parked} parked), writes and reads {PROBE_KEY}");
            lines.add("s3", Verdict::Ok, detail);
        }
        Ok((_, false)) => {
            let detail = "what was written is not what is read: a cache, or an old copy, between";
            lines.add("s3", Verdict::Critical, detail);
        }
        Err(failure) => lines.add("s3", Verdict::Critical, failure.sentence()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reach::kafka::wire::Voter;

    #[test]
    fn a_kafka_that_wants_a_login_is_asked_by_its_own_tool() {
        let fault = WireFault::Login("sasl_ssl".to_owned());
        let fix = ask_by_hand(&fault, "kafka-log-dirs.sh", "k1:9093", "--describe");
        assert!(fix.contains("--bootstrap-server k1:9093 --command-config client.properties"));
    }

    #[test]
    fn a_certificates_end_is_read_as_openssl_writes_it() {
        assert_eq!(ends_at("Jan  2 00:00:01 1970 GMT"), Some(86_401));
        assert_eq!(ends_at("Nov 19 15:55:52 2036 GMT"), Some(2_110_722_952));
        assert_eq!(ends_at(""), None);
        assert_eq!(certificate(1).0, Verdict::Critical);
        let soon = Timestamp::now().as_second() + 10 * 86_400;
        assert_eq!(certificate(soon).0, Verdict::Warning);
    }

    #[test]
    fn a_quorum_that_hangs_on_one_controller_lets_none_be_stopped() {
        let voter = |id, caught_up_ms| Voter { id, log_end: 0, caught_up_ms };
        let of = |voters| controllers(&Quorum { leader: 1, voters }).0;
        let now = 1_000_000;
        assert_eq!(of(vec![voter(1, now), voter(2, now - 400), voter(3, now)]), Verdict::Ok);
        assert_eq!(of(vec![voter(1, now), voter(2, 5), voter(3, now)]), Verdict::Critical);
        assert_eq!(of(vec![voter(1, now)]), Verdict::Warning);
    }

    #[test]
    fn a_disk_is_judged_by_what_is_left_of_it() {
        let dir = |usable| LogDir {
            path: "/k".to_owned(),
            total_bytes: Some(1_000_000_000_000),
            usable_bytes: Some(usable),
            ..LogDir::default()
        };
        assert_eq!(disk(&dir(900_000_000_000)).0, Verdict::Ok);
        assert_eq!(disk(&dir(200_000_000_000)).0, Verdict::Warning);
        let (verdict, detail) = disk(&dir(50_000_000_000));
        assert_eq!(verdict, Verdict::Critical);
        assert!(detail.contains("50 GB of 1 TB free"), "{detail}");
        assert_eq!(disk(&LogDir { failed: true, ..dir(1) }).0, Verdict::Critical);
    }
}
