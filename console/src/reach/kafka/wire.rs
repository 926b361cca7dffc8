//! Two questions that librdkafka can't ask, in Kafka's own protocol: how full the brokers' disks
//! are (DescribeLogDirs) and how the controllers' quorum is (DescribeQuorum).
//!
//! Only without a login: a Kafka that asks for SASL is not asked this way, and the caller says so.
//! What comes back is outside data: every read is checked, every count bounded by what is there.

use std::time::Duration;

use spillway_publisher::KafkaSettings;
use spillway_runtime::deadline::{DeadlineExceeded, within};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Larger than the answer for thousands of partitions.
const ANSWER_BYTES_MAX: usize = 16 << 20;
const DESCRIBE_LOG_DIRS: (i16, i16) = (35, 4);
const DESCRIBE_QUORUM: (i16, i16) = (55, 1);
const CORRELATION: i32 = 1;
const QUORUM_TOPIC: &[u8] = b"__cluster_metadata";

/// Why a broker was not understood.
#[derive(Debug, thiserror::Error)]
pub enum WireFault {
    #[error("Kafka asks for {0}, and this question is asked in the clear and without a login only")]
    Login(String),
    #[error("{address} does not answer: {cause}")]
    Unreachable { address: String, cause: std::io::Error },
    #[error("{address}: {cause}")]
    Late { address: String, cause: DeadlineExceeded },
    #[error("{address} answers what is not understood: an older Kafka?")]
    Answer { address: String },
    #[error(
        "{address} refuses to tell (Kafka's error {code}); may this user DESCRIBE the cluster?"
    )]
    Refused { address: String, code: i16 },
}

/// One log directory of one broker.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LogDir {
    pub path: String,
    /// Whether the broker gave it up as broken.
    pub failed: bool,
    /// All partitions' logs in it.
    pub log_bytes: i64,
    /// The file system's size and what is left of it; `None` where the broker does not say.
    pub total_bytes: Option<i64>,
    pub usable_bytes: Option<i64>,
}

/// The controllers that vote.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Quorum {
    pub leader: i32,
    pub voters: Vec<Voter>,
}

/// One controller.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Voter {
    pub id: i32,
    pub log_end: i64,
    /// When it last had all that the leader had, in ms since the Unix epoch; -1 if that is unknown.
    pub caught_up_ms: i64,
}

/// What one broker says of its disks.
pub async fn log_dirs(
    settings: &KafkaSettings,
    address: &str,
    deadline: Duration,
) -> Result<Vec<LogDir>, WireFault> {
    // Null: all topics; no tags.
    let answer = ask(settings, (address, deadline), DESCRIBE_LOG_DIRS, &[0, 0]).await?;
    let (code, dirs) =
        read_log_dirs(&answer).ok_or_else(|| WireFault::Answer { address: address.to_owned() })?;
    match code {
        0 => Ok(dirs),
        code => Err(WireFault::Refused { address: address.to_owned(), code }),
    }
}

/// The quorum as the active controller knows it; any broker asks it for us.
pub async fn quorum(
    settings: &KafkaSettings,
    address: &str,
    deadline: Duration,
) -> Result<Quorum, WireFault> {
    let mut body = vec![2, QUORUM_TOPIC.len() as u8 + 1];
    body.extend(QUORUM_TOPIC);
    // One partition, number 0; then the tags of partition, topic and request.
    body.extend([2, 0, 0, 0, 0, 0, 0, 0]);
    let answer = ask(settings, (address, deadline), DESCRIBE_QUORUM, &body).await?;
    let (code, quorum) =
        read_quorum(&answer).ok_or_else(|| WireFault::Answer { address: address.to_owned() })?;
    match code {
        0 => Ok(quorum),
        code => Err(WireFault::Refused { address: address.to_owned(), code }),
    }
}

async fn ask(
    settings: &KafkaSettings,
    (address, deadline): (&str, Duration),
    (key, version): (i16, i16),
    body: &[u8],
) -> Result<Vec<u8>, WireFault> {
    if !settings.security_protocol.eq_ignore_ascii_case("plaintext") {
        return Err(WireFault::Login(settings.security_protocol.clone()));
    }
    let exchange = async {
        let mut stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        stream.write_all(&request(key, version, body)).await?;
        let bytes = usize::try_from(stream.read_i32().await?).unwrap_or(usize::MAX);
        if bytes > ANSWER_BYTES_MAX {
            return Err(std::io::Error::from(std::io::ErrorKind::InvalidData));
        }
        let mut answer = vec![0; bytes];
        stream.read_exact(&mut answer).await?;
        Ok(answer)
    };
    match within(deadline, exchange).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(cause)) => Err(WireFault::Unreachable { address: address.to_owned(), cause }),
        Err(cause) => Err(WireFault::Late { address: address.to_owned(), cause }),
    }
}

/// A whole request with its length before it and the header of flexible versions.
fn request(key: i16, version: i16, body: &[u8]) -> Vec<u8> {
    const CLIENT: &[u8] = b"spillway-console";
    let mut request = Vec::with_capacity(64);
    request.extend(key.to_be_bytes());
    request.extend(version.to_be_bytes());
    request.extend(CORRELATION.to_be_bytes());
    request.extend((CLIENT.len() as i16).to_be_bytes());
    request.extend(CLIENT);
    request.push(0);
    request.extend(body);
    let mut whole = (request.len() as i32).to_be_bytes().to_vec();
    whole.extend(request);
    whole
}

/// Reads what a broker sent, never past its end.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// Behind the header of an answer.
    fn open(answer: &'a [u8]) -> Option<Self> {
        let mut reader = Self(answer);
        (reader.i32()? == CORRELATION).then_some(())?;
        reader.tags()?;
        Some(reader)
    }

    fn take(&mut self, bytes: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(bytes)?;
        self.0 = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    fn i8(&mut self) -> Option<i8> {
        Some(i8::from_be_bytes(self.array()?))
    }

    fn i16(&mut self) -> Option<i16> {
        Some(i16::from_be_bytes(self.array()?))
    }

    fn i32(&mut self) -> Option<i32> {
        Some(i32::from_be_bytes(self.array()?))
    }

    fn i64(&mut self) -> Option<i64> {
        Some(i64::from_be_bytes(self.array()?))
    }

    /// Seven bits a byte, the lowest first.
    fn uvarint(&mut self) -> Option<usize> {
        let mut value = 0_u64;
        for shift in [0, 7, 14, 21, 28] {
            let [byte] = self.array()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return usize::try_from(value).ok();
            }
        }
        None
    }

    /// A count or a length: one more than it is, nought for none.
    fn compact(&mut self) -> Option<usize> {
        Some(self.uvarint()?.saturating_sub(1))
    }

    fn string(&mut self) -> Option<String> {
        let bytes = self.compact()?;
        Some(String::from_utf8_lossy(self.take(bytes)?).into_owned())
    }

    fn tags(&mut self) -> Option<()> {
        for _ in 0..self.uvarint()? {
            self.uvarint()?;
            let bytes = self.uvarint()?;
            self.take(bytes)?;
        }
        Some(())
    }
}

fn read_log_dirs(answer: &[u8]) -> Option<(i16, Vec<LogDir>)> {
    let mut r = Reader::open(answer)?;
    r.i32()?;
    let code = r.i16()?;
    let mut dirs = Vec::new();
    for _ in 0..r.compact()? {
        let mut dir = LogDir { failed: r.i16()? != 0, path: r.string()?, ..LogDir::default() };
        for _ in 0..r.compact()? {
            r.string()?;
            for _ in 0..r.compact()? {
                r.i32()?;
                dir.log_bytes = dir.log_bytes.saturating_add(r.i64()?);
                r.i64()?;
                r.i8()?;
                r.tags()?;
            }
            r.tags()?;
        }
        let known = |bytes: i64| (bytes >= 0).then_some(bytes);
        dir.total_bytes = known(r.i64()?);
        dir.usable_bytes = known(r.i64()?);
        r.tags()?;
        dirs.push(dir);
    }
    Some((code, dirs))
}

fn read_quorum(answer: &[u8]) -> Option<(i16, Quorum)> {
    let mut r = Reader::open(answer)?;
    let (mut code, mut quorum) = (r.i16()?, Quorum::default());
    for _ in 0..r.compact()? {
        r.string()?;
        for _ in 0..r.compact()? {
            r.i32()?;
            let of_partition = r.i16()?;
            code = if code == 0 { of_partition } else { code };
            quorum.leader = r.i32()?;
            r.i32()?;
            r.i64()?;
            quorum.voters = voters(&mut r)?;
            // The observers: brokers, which do not vote.
            voters(&mut r)?;
            r.tags()?;
        }
        r.tags()?;
    }
    // Somebody votes, or it was refused.
    (code != 0 || !quorum.voters.is_empty()).then_some((code, quorum))
}

fn voters(r: &mut Reader<'_>) -> Option<Vec<Voter>> {
    let mut voters = Vec::new();
    for _ in 0..r.compact()? {
        let (id, log_end) = (r.i32()?, r.i64()?);
        r.i64()?;
        voters.push(Voter { id, log_end, caught_up_ms: r.i64()? });
        r.tags()?;
    }
    Some(voters)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dirs() -> Vec<u8> {
        let mut answer = CORRELATION.to_be_bytes().to_vec();
        answer.extend([0, 0, 0, 0, 0, 0, 0, 2]);
        answer.extend([0, 0, 3, b'/', b'k', 2, 2, b't', 2]);
        answer.extend(7_i32.to_be_bytes());
        answer.extend(500_i64.to_be_bytes());
        answer.extend(0_i64.to_be_bytes());
        answer.extend([0, 0, 0]);
        answer.extend(1_000_i64.to_be_bytes());
        answer.extend((-1_i64).to_be_bytes());
        answer.extend([0, 0]);
        answer
    }

    #[test]
    fn disks_are_read_and_what_a_broker_does_not_know_is_none() {
        let expected = LogDir {
            path: "/k".to_owned(),
            failed: false,
            log_bytes: 500,
            total_bytes: Some(1_000),
            usable_bytes: None,
        };
        assert_eq!(read_log_dirs(&dirs()), Some((0, vec![expected])));
    }

    #[test]
    fn an_answer_that_ends_early_or_lies_about_its_counts_is_not_understood() {
        let whole = dirs();
        for end in 0..whole.len() - 1 {
            assert_eq!(read_log_dirs(&whole[..end]), None, "cut at {end}");
        }
        let mut lies = CORRELATION.to_be_bytes().to_vec();
        lies.extend([0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0x0f]);
        assert_eq!(read_log_dirs(&lies), None);
        assert_eq!(read_quorum(&lies), None);
    }
}
