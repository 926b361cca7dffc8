//! The stage of every test: a mock Kafka, a tokens file, ingest-api on a free port, and a client
//! that writes raw bytes.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::OwnedMessage;
use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;
use rdkafka::{Offset, TopicPartitionList};
use spillway_ingest_api::app::Ingest;
use spillway_ingest_api::settings::IngestSettings;
use spillway_proto::frame::Encoder;
use spillway_proto::kafka_record::{TOPIC_BACKLOG, TOPIC_DEAD_LETTERS, TOPIC_LIVE};
use spillway_proto::{Batch, BatchId, Kind, Point, Series};
use spillway_runtime::program::{Context, Drained, RunError};
use spillway_runtime::settings::Dur;
use spillway_runtime::tokens::{self, Token};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use uuid::Uuid;

/// Long enough for anything; reached only by a failing test.
pub const PATIENCE: Duration = Duration::from_secs(30);
pub const PARTITIONS: u16 = 4;
/// Where Kafka is well, an answer that comes late is this machine's fault and not the program's.
const ANSWER_WITHIN: Dur = Dur::from_secs(20);

pub struct Stage {
    pub cluster: MockCluster<'static, DefaultProducerContext>,
    pub context: Context,
    pub directory: TempDir,
    pub token: String,
    pub address: SocketAddr,
    pub running: JoinHandle<Result<Drained, RunError>>,
}

/// A mock Kafka with all topics.
pub fn cluster() -> MockCluster<'static, DefaultProducerContext> {
    let cluster = MockCluster::new(1).unwrap();
    for topic in [TOPIC_LIVE, TOPIC_BACKLOG, TOPIC_DEAD_LETTERS] {
        cluster.create_topic(topic, i32::from(PARTITIONS), 1).unwrap();
    }
    cluster
}

/// Everything up and taking batches, for the environment `demo`.
pub async fn stage(change: impl FnOnce(&mut IngestSettings)) -> Stage {
    let stage = stage_on(cluster(), change).await;
    stage.until_it_takes_batches().await;
    stage
}

/// For tests in which Kafka stays silent: its word is not waited for as long.
pub fn hasty(settings: &mut IngestSettings) {
    settings.http.answer_within = Dur::from_millis(700);
}

/// ingest-api in front of `cluster`, which may be away.
pub async fn stage_on(
    cluster: MockCluster<'static, DefaultProducerContext>,
    change: impl FnOnce(&mut IngestSettings),
) -> Stage {
    let directory = TempDir::new().unwrap();
    let (secret, row) = tokens::generate(Some("demo-1"), "demo", Timestamp::now()).unwrap();
    let file = directory.path().join("tokens.toml");
    tokens::append(&file, row).unwrap();
    let mut settings = IngestSettings::default();
    settings.http.listen = "127.0.0.1:0".parse().unwrap();
    settings.http.answer_within = ANSWER_WITHIN;
    settings.http.drain_grace = Dur::from_millis(0);
    settings.tokens.file = file;
    settings.topics.partitions = PARTITIONS;
    settings.kafka.brokers = cluster.bootstrap_servers().split(',').map(str::to_owned).collect();
    change(&mut settings);
    let context = Context::for_test("ingest-api");
    let ingest = Ingest::start(settings, &context).await.unwrap();
    let address = ingest.address();
    let running = tokio::spawn(ingest.run());
    Stage { cluster, context, directory, token: secret.reveal().to_owned(), address, running }
}

impl Stage {
    pub async fn until_it_takes_batches(&self) {
        let probe = async {
            while self.post(&Bytes::new()).await.status != 200 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(PATIENCE, probe).await.unwrap();
    }

    /// The connections of the stage's own making are closed and forgotten.
    pub async fn until_nobody_is_connected(&self) {
        let gone = async {
            while self.metric("spillway_ingest_connections") != 0.0 {
                tokio::task::yield_now().await;
            }
        };
        timeout(PATIENCE, gone).await.unwrap();
    }

    pub fn tokens_file(&self) -> PathBuf {
        self.directory.path().join("tokens.toml")
    }

    /// One more token, in force once the file was read again.
    pub fn token(&self, environment: &str, change: impl FnOnce(&mut Token)) -> String {
        let (secret, mut row) = tokens::generate(None, environment, Timestamp::now()).unwrap();
        change(&mut row);
        tokens::append(&self.tokens_file(), row).unwrap();
        secret.reveal().to_owned()
    }

    pub async fn connect(&self) -> Client {
        Client { stream: TcpStream::connect(self.address).await.unwrap(), read: Vec::new() }
    }

    /// `POST /v1/batches` with the stage's own token, on a connection of its own.
    pub async fn post(&self, body: &Bytes) -> Reply {
        self.post_with(body, &[]).await
    }

    pub async fn post_with(&self, body: &Bytes, headers: &[(&str, &str)]) -> Reply {
        let mut client = self.connect().await;
        client.write(&self.request(body, headers)).await;
        client.reply().await
    }

    /// The bytes of a valid request.
    pub fn request(&self, body: &Bytes, headers: &[(&str, &str)]) -> Vec<u8> {
        let token = format!("Bearer {}", self.token);
        let length = body.len().to_string();
        let own = [("Authorization", token.as_str()), ("Content-Length", &length)];
        let all: Vec<(&str, &str)> = own.iter().chain(headers).copied().collect();
        request("POST", "/v1/batches", &all, body)
    }

    /// All records of a topic, over all its partitions.
    pub fn records(&self, topic: &str) -> Vec<OwnedMessage> {
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", self.cluster.bootstrap_servers())
            .set("group.id", "test")
            .create()
            .unwrap();
        let mut wanted = 0;
        let mut places = TopicPartitionList::new();
        for partition in 0..i32::from(PARTITIONS) {
            wanted += consumer.fetch_watermarks(topic, partition, PATIENCE).unwrap().1;
            places.add_partition_offset(topic, partition, Offset::Beginning).unwrap();
        }
        consumer.assign(&places).unwrap();
        let next = |_| consumer.poll(PATIENCE).unwrap().unwrap().detach();
        (0..wanted).map(next).collect()
    }

    pub fn metric(&self, name: &str) -> f64 {
        let text = self.context.metrics.encode();
        let line = text.lines().find(|line| line.starts_with(&format!("{name} ")));
        let value = line.unwrap_or_else(|| panic!("no metric {name} in\n{text}")).split(' ').nth(1);
        value.unwrap().parse().unwrap()
    }
}

/// A connection that writes what it is told and reads answers.
pub struct Client {
    stream: TcpStream,
    read: Vec<u8>,
}

#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    /// In lower case, a line each.
    pub head: String,
    pub body: serde_json::Value,
}

impl Client {
    pub async fn write(&mut self, bytes: &[u8]) {
        timeout(PATIENCE, self.stream.write_all(bytes)).await.unwrap().unwrap();
    }

    /// As far as the server lets it: a server that refuses stops reading.
    pub async fn write_what_is_taken(&mut self, bytes: &[u8]) -> bool {
        timeout(PATIENCE, self.stream.write_all(bytes)).await.unwrap().is_ok()
    }

    /// The next answer; panics when the connection ends before it is whole.
    pub async fn reply(&mut self) -> Reply {
        let reply = self.reply_or_end().await;
        reply.unwrap_or_else(|| panic!("the connection ended without an answer"))
    }

    /// The next answer, or `None` when the server closed the connection instead.
    pub async fn reply_or_end(&mut self) -> Option<Reply> {
        loop {
            if let Some((reply, used)) = parse(&self.read) {
                self.read.drain(..used);
                return Some(reply);
            }
            let mut buffer = [0; 4096];
            match timeout(PATIENCE, self.stream.read(&mut buffer)).await.unwrap() {
                Ok(0) | Err(_) => return None,
                Ok(bytes) => self.read.extend_from_slice(buffer.get(..bytes).unwrap()),
            }
        }
    }
}

fn parse(bytes: &[u8]) -> Option<(Reply, usize)> {
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
    let (head, rest) = bytes.split_at(end);
    let head = String::from_utf8(head.to_vec()).unwrap().to_lowercase();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let length = header(&head, "content-length").map_or(0, |value| value.parse().unwrap());
    let body = rest.get(..length)?;
    let body = serde_json::from_slice(body)
        .unwrap_or_else(|_| String::from_utf8_lossy(body).into_owned().into());
    Some((Reply { status, head, body }, end + length))
}

fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
}

impl Reply {
    pub fn header(&self, name: &str) -> Option<&str> {
        header(&self.head, name)
    }

    /// Asserts that this is "not now" as every sender understands it.
    pub fn is_later(&self, id: &str) {
        assert_eq!(self.status, 503, "{self:?}");
        self.is_problem(id);
        let seconds: u32 = self.header("retry-after").unwrap().parse().unwrap();
        assert!((1..=600).contains(&seconds));
        assert_eq!(self.header("connection"), Some("close"));
    }

    pub fn is_problem(&self, id: &str) {
        assert_eq!(self.header("content-type"), Some("application/problem+json"), "{self:?}");
        assert_eq!(self.body["type"], format!("/errors/{id}"), "{self:?}");
        assert_eq!(self.body["status"], self.status);
    }

    pub fn is_accepted(&self, batches: usize) {
        assert_eq!(self.status, 200, "{self:?}");
        assert_eq!(self.body["accepted"], batches, "{self:?}");
    }
}

/// A request's bytes.
pub fn request(method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let mut bytes = format!("{method} {path} HTTP/1.1\r\nHost: test\r\n").into_bytes();
    for (name, value) in headers {
        bytes.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
    }
    bytes.extend_from_slice(b"\r\n");
    bytes.extend_from_slice(body);
    bytes
}

/// The frame of batch `seq` of `environment`, with a few points.
pub fn frame(environment: &str, seq: u64) -> Bytes {
    let points = (0..5_u8)
        .map(|n| Point { ts_ms: 1_760_000_000_000 + i64::from(n) * 1_000, value: f64::from(n) })
        .collect();
    let series = Series {
        metric: "cpu.user".to_owned(),
        labels: vec![("core".to_owned(), "0".to_owned())],
        kind: Kind::Gauge,
        unit: "1".to_owned(),
        points,
    };
    let batch = Batch {
        id: BatchId::Sequenced { agent_id: Uuid::from_u128(7), epoch: Uuid::from_u128(8), seq },
        environment: environment.to_owned(),
        host: "web-1".to_owned(),
        window_ts: 1_760_000_000,
        series: vec![series],
        previous: None,
        declarations: Vec::new(),
        closing: false,
        host_info: None,
    };
    Encoder::new().encode(&batch).unwrap()
}

pub fn joined(frames: &[Bytes]) -> Bytes {
    Bytes::from(frames.concat())
}
