//! One batch through every hop, as `spillway ledger BATCH` tells it; and objects that are put back
//! from quarantine by environment and time, stopped in the middle and gone on with.

mod replayed;

use std::path::Path;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use serde_json::Value as Json;
use spillway_proto::batch::{Declaration, window_of};
use spillway_proto::frame::Encoder;
use spillway_proto::kafka_record::{HEADER_ENVIRONMENT, TOPIC_LIVE};
use spillway_proto::partition::Partitioning;
use spillway_proto::{Batch, BatchId, Kind, Point, Series};
use spillway_testkit::{AgentOptions, Stack, StackOptions};
use tokio::io::AsyncReadExt;
use tokio::time::Instant;
use uuid::Uuid;

/// All that takes real time on a busy machine.
pub const WITHIN: Duration = Duration::from_secs(100);
const AGENT: &str = "followed-agent";
/// What takes minutes in production takes seconds here.
const HASTY: &str = "[collect]\ninterval = \"1s\"\nspread = \"0s\"\n[deliver]\n\
    request_timeout = \"2s\"\npark_after = \"1s\"\nprobe_interval = \"1s\"\n\
    probe_interval_max = \"1s\"\n";

/// What the console answers, whatever its exit code.
pub async fn ask(stack: &Stack, command: &[&str]) -> Json {
    let mut words = vec!["--output", "json"];
    words.extend(command);
    let output = stack.console(&words).await.unwrap();
    let json = serde_json::from_slice(&output.stdout);
    json.unwrap_or_else(|_| panic!("{command:?}: {}", String::from_utf8_lossy(&output.stderr)))
}

pub async fn until(stack: &Stack, command: &[&str], is_there: impl Fn(&Json) -> bool) -> Json {
    let by = Instant::now() + WITHIN;
    loop {
        let answer = ask(stack, command).await;
        if is_there(&answer) {
            return answer;
        }
        assert!(Instant::now() < by, "{command:?}: {answer:#}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

fn state<'a>(answer: &'a Json, hop: &str) -> &'a str {
    let hops = answer["hops"].as_array().unwrap();
    let found = hops.iter().find(|row| row["hop"] == hop);
    found.and_then(|row| row["state"].as_str()).unwrap_or_else(|| panic!("{hop}: {answer:#}"))
}

fn concludes(answer: &Json, words: &str) -> bool {
    answer["conclusion"].as_str().is_some_and(|text| text.contains(words))
}

/// What `spillway-agent status --json` would print, once the agent has made a batch.
async fn page_of(stack: &Stack, agent: &str) -> Json {
    let by = Instant::now() + WITHIN;
    let socket = stack.dir().join("data").join(agent).join("status.sock");
    loop {
        let mut text = String::new();
        if let Ok(mut stream) = tokio::net::UnixStream::connect(&socket).await {
            stream.read_to_string(&mut text).await.unwrap();
        }
        let page: Json = serde_json::from_str(&text).unwrap_or_default();
        if page["spool"]["batches"].as_u64().is_some_and(|batches| batches > 0) {
            return page;
        }
        assert!(Instant::now() < by, "{agent} made no batch: {text}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// An agent that reaches neither the API nor S3, until the test lets it.
pub async fn start_agent(stack: &Stack, name: &str, environment: &str) {
    let mut agent = AgentOptions::new(name, environment, name);
    agent.toml = HASTY.to_owned();
    stack.spawn_agent(agent).await.unwrap();
}

pub async fn a_batch_through_every_hop() {
    let hasty_worker = "unseal.patience = \"1s\"\ndrain.hold = \"1s\"\n";
    let options = StackOptions::default().set("recovery-worker", hasty_worker);
    let mut stack = Stack::start(options).await.unwrap();
    for server in ["ingest-api-0", "recovery-worker-0", "s3"] {
        stack.kill(server).await.unwrap();
    }
    start_agent(&stack, AGENT, "demo").await;
    replayed::start_agents(&stack).await;

    let page = page_of(&stack, AGENT).await;
    let (agent, epoch) = (page["agent_id"].as_str().unwrap(), page["epoch"].as_str().unwrap());
    let batch = format!("{agent}/{epoch}/1");
    let follow = ["ledger", batch.as_str()];
    let unheard = ask(&stack, &follow).await;
    assert!(concludes(&unheard, "nobody here has ever heard of it"), "{unheard:#}");
    let file = stack.dir().join("page.json");
    std::fs::write(&file, page.to_string()).unwrap();
    let with_page = ["ledger", &batch, "--agent-status", file.to_str().unwrap()];
    let in_spool = ask(&stack, &with_page).await;
    assert!(concludes(&in_spool, "most likely in its agent's spool"), "{in_spool:#}");
    let not_made = ["ledger", &format!("{agent}/{epoch}/900"), with_page[2], with_page[3]];
    assert_eq!(state(&ask(&stack, &not_made).await, "agent"), "absent");

    stack.start_process("s3").await.unwrap();
    let parked = until(&stack, &follow, |answer| state(answer, "s3") == "here").await;
    assert!(concludes(&parked, "parked in S3"), "{parked:#}");
    replayed::all_are_parked(&stack).await;
    for agent in replayed::AGENTS.into_iter().chain([AGENT]) {
        stack.kill(agent).await.unwrap();
    }
    let copies = stack.dir().join("copies");
    copy_objects(&stack.bucket_dir().join("spill"), &copies);

    stack.kill("consumer-0").await.unwrap();
    let tokens = replayed::without_tokens(&stack, "acme");
    stack.start_process("recovery-worker-0").await.unwrap();
    let waiting = until(&stack, &follow, |answer| state(answer, "kafka") == "here").await;
    assert!(concludes(&waiting, "in Kafka, not applied yet"), "{waiting:#}");
    assert_eq!(state(&waiting, "mysql"), "absent");

    stack.start_process("consumer-0").await.unwrap();
    let applied = until(&stack, &follow, |answer| state(answer, "mysql") == "applied").await;
    assert_eq!((&applied["verdict"], state(&applied, "kafka")), (&"ok".into(), "passed"));

    replayed::comes_home_once(&stack, &tokens).await;
    a_copy_is_a_duplicate(&stack, &copies, &follow).await;
    what_will_not_come(&stack).await;
    stack.stop();
}

fn copy_objects(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().flatten() {
        let name = entry.file_name();
        if !name.as_encoded_bytes().starts_with(b".") {
            std::fs::copy(entry.path(), to.join(name)).unwrap();
        }
    }
}

/// Its object is drained once more, out of a folder of copies.
async fn a_copy_is_a_duplicate(stack: &Stack, copies: &Path, follow: &[&str]) {
    let copies = copies.to_str().unwrap();
    until(stack, &["spill", "ls"], |answer| answer["objects"] == 0).await;
    let replay = ["spill", "replay", "--from", copies, "--environment", "demo", "--yes"];
    let replayed = ask(stack, &replay).await;
    assert!(replayed["put_back"].as_u64().is_some_and(|back| back > 0), "{replayed:#}");
    let twice = |answer: &Json| {
        let hops = answer["hops"].as_array().unwrap();
        let mysql = hops.iter().find(|row| row["hop"] == "mysql").unwrap();
        let detail = mysql["detail"].as_str().unwrap();
        detail.contains("of its epoch were applied as nothing")
            && !detail.contains("; 0 duplicates")
    };
    let duplicate = until(stack, follow, twice).await;
    assert!(concludes(&duplicate, "in MySQL, once"), "{duplicate:#}");
}

/// An agent's own word that a seq will not come, and a batch that is set aside.
async fn what_will_not_come(stack: &Stack) {
    let (agent_id, epoch) = (Uuid::new_v4(), Uuid::now_v7());
    let id = |seq| BatchId::Sequenced { agent_id, epoch, seq };
    let reason = "spool-full: a test gave it up".to_owned();
    let declared = vec![Declaration { epoch, first_seq: 1, last_seq: 1, reason }];
    publish(stack, &batch(id(2), "demo", declared), "demo").await;
    let batch_1 = id(1).to_string();
    let given_up =
        until(stack, &["ledger", &batch_1], |answer| concludes(answer, "gave it up")).await;
    assert!(concludes(&given_up, "spool-full"), "{given_up:#}");

    // Of a time that no partition is made for.
    let mut nonsense = batch(id(3), "demo", Vec::new());
    nonsense.window_ts += 30 * 86_400 / 10 * 10;
    nonsense.series[0].points[0].ts_ms = i64::from(nonsense.window_ts) * 1_000;
    publish(stack, &nonsense, "demo").await;
    let batch_3 = id(3).to_string();
    let aside = until(stack, &["ledger", &batch_3], |answer| concludes(answer, "future")).await;
    assert_eq!(state(&aside, "dead-letters"), "quarantined");
    a_limit_cuts_what_is_shown_and_no_verdict(stack).await;
}

/// One gap is declared, which is known and past, and one lies in dead letters.
async fn a_limit_cuts_what_is_shown_and_no_verdict(stack: &Stack) {
    let all = ask(stack, &["gaps", "--environment", "demo"]).await;
    assert_eq!((&all["verdict"], all["found"].as_i64() >= Some(2)), (&"warning".into(), true));
    let cut = ask(stack, &["gaps", "--environment", "demo", "--limit", "1"]).await;
    assert_eq!(cut["gaps"].as_array().unwrap().len(), 1);
    assert_eq!((&cut["verdict"], &cut["found"]), (&all["verdict"], &all["found"]), "{cut:#}");
    let all = ask(stack, &["ledger", "--environment", "demo"]).await;
    let cut = ask(stack, &["ledger", "--environment", "demo", "--limit", "1"]).await;
    assert_eq!(cut["epochs"].as_array().unwrap().len(), 1);
    assert_eq!(cut["missing_batches"], all["missing_batches"], "{cut:#}");
}

pub fn batch(id: BatchId, environment: &str, declarations: Vec<Declaration>) -> Batch {
    let now = jiff::Timestamp::now().as_millisecond();
    let series = Series {
        metric: "followed".to_owned(),
        labels: Vec::new(),
        kind: Kind::Gauge,
        unit: String::new(),
        points: vec![Point { ts_ms: now, value: 1.0 }],
    };
    Batch {
        id,
        environment: environment.to_owned(),
        host: "by-hand".to_owned(),
        window_ts: window_of(now).unwrap(),
        series: vec![series],
        previous: None,
        declarations,
        closing: false,
        host_info: None,
    }
}

/// As the API would, but for the environment of the record, which is `accepted_for`.
pub async fn publish(stack: &Stack, batch: &Batch, accepted_for: &'static str) {
    let partition = Partitioning::new(64, 4).unwrap().partition_of(accepted_for, &batch.host);
    let frame = Encoder::new().encode(batch).unwrap();
    let (key, brokers) = (batch.id.to_bytes(), stack.file().kafka);
    let sent = tokio::task::spawn_blocking(move || {
        let config = ClientConfig::new().set("bootstrap.servers", brokers).clone();
        let producer: BaseProducer = config.create().unwrap();
        let header = Header { key: HEADER_ENVIRONMENT, value: Some(accepted_for) };
        let record = BaseRecord::to(TOPIC_LIVE)
            .partition(i32::from(partition))
            .key(&key[..])
            .headers(OwnedHeaders::new().insert(header))
            .payload(&frame[..]);
        producer.send(record).map_err(|(error, _)| error).unwrap();
        producer.flush(Duration::from_secs(20))
    });
    sent.await.unwrap().unwrap();
}
