//! Inputs of the agent beside the host: a Prometheus target, a command, a MySQL server and a
//! program that writes line protocol, all the way into MySQL with the right kinds and values.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use spillway_e2e::rig::{Agent, HASTY_AGENT, Rig};
use spillway_testkit::ports::Port;
use spillway_testkit::stack::AgentOptions;
use sqlx::Row as _;
use tokio::time::Instant;

const PAGE: &str = "\
# TYPE orders counter
# UNIT orders bytes
orders_total{shop=\"berlin\"} 41 # {trace_id=\"x\"} 1
# TYPE wait_seconds histogram
wait_seconds_bucket{le=\"+Inf\"} 7
wait_seconds_sum 1.5
wait_seconds_count 7
# EOF
";

/// What must be readable: metric, a label, kind, unit, and a value if it is known.
const EXPECTED: [(&str, &str, &str, &str, Option<f64>); 9] = [
    ("orders_total", "$.shop", "cumulative", "bytes", Some(41.0)),
    ("wait_seconds_bucket", "$.le", "cumulative", "", Some(7.0)),
    ("wait_seconds_sum", "$.instance", "cumulative", "seconds", Some(1.5)),
    ("up", "$.job", "gauge", "1", Some(1.0)),
    ("build_seconds", "$.tool", "gauge", "", Some(2.5)),
    ("till_open", "$.shop", "gauge", "", Some(3.0)),
    ("mysql.up", "$.server", "gauge", "1", Some(1.0)),
    ("mysql.status.questions", "$.server", "cumulative", "", None),
    ("mysql.statement.calls", "$.statement", "delta", "", None),
];

/// Starts an agent with all of them. The target answers for as long as the test runs.
pub async fn start(rig: &Rig) -> Agent {
    let target = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = target.local_addr().expect("its address");
    std::thread::spawn(move || {
        for mut connection in target.incoming().flatten() {
            let length = PAGE.len();
            let answer = format!(
                "HTTP/1.1 200 OK\r\ncontent-type: application/openmetrics-text; version=1.0.0\r\n\
                 connection: close\r\ncontent-length: {length}\r\n\r\n{PAGE}"
            );
            let asked = connection.read(&mut [0; 4_096]);
            if asked.is_ok() {
                drop(connection.write_all(answer.as_bytes()));
            }
        }
    });
    let file = rig.stack.file();
    let shard = file.mysql.first().expect("a shard");
    let url = &shard.primary;
    let mysql = url.rsplit('@').next().expect("an address").to_owned();
    let password = rig.stack.dir().join("inputs.password");
    std::fs::write(&password, "stack").expect("it can be written");
    // Nobody else takes it, before the agent listens either.
    let influx = Port::take().expect("a port");
    let influx_address = influx.address();
    let mut options = AgentOptions::new("inputs-agent", "demo", "inputs-agent");
    options.toml = format!(
        r#"{HASTY_AGENT}
[influx]
enabled = true
listen = "{influx_address}"
[[scrape]]
job = "shop"
targets = ["{address}"]
interval = "2s"
timeout = "2s"
[[exec]]
command = ["/bin/echo", "build,tool=cargo seconds=2.5"]
interval = "2s"
timeout = "2s"
[[mysql]]
name = "own"
address = "{mysql}"
user = "stack"
password_file = {password:?}
interval = "2s"
timeout = "2s"
"#
    );
    rig.stack.spawn_agent(options).await.expect("the agent starts");
    let mut client = TcpStream::connect(influx_address).expect("the agent listens");
    let body = "till,shop=berlin open=3i";
    let length = body.len();
    let request = format!(
        "POST /write HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\
         content-length: {length}\r\n\r\n{body}"
    );
    client.write_all(request.as_bytes()).expect("it takes a request");
    let mut answer = String::new();
    client.read_to_string(&mut answer).expect("it answers");
    assert!(answer.starts_with("HTTP/1.1 204"), "{answer}");
    Agent { name: "inputs-agent".to_owned(), environment: "demo".to_owned() }
}

/// Waits until all of it can be read, and holds kinds, units and values to what was said.
pub async fn judge(rig: &Rig, within: Duration) {
    let mysql = rig.mysql("demo");
    let until = Instant::now() + within;
    for (metric, label, kind, unit, value) in EXPECTED {
        let query = "SELECT s.kind, s.unit, JSON_EXTRACT(s.labels, ?) IS NOT NULL, \
                     (SELECT MAX(m.value) FROM spillway.metrics m WHERE m.series_id = s.series_id) \
                     FROM spillway.series s WHERE s.host = 'inputs-agent' AND s.metric = ? LIMIT 1";
        let row = loop {
            let query = sqlx::query(query).bind(label).bind(metric);
            let row = query.fetch_optional(&mysql).await.expect("the views are readable");
            if let Some(row) = row {
                break row;
            }
            assert!(Instant::now() < until, "{metric} does not arrive");
            tokio::time::sleep(Duration::from_millis(200)).await;
        };
        let text = |at: usize| row.try_get_unchecked::<String, _>(at).expect("a text");
        let labelled: i64 = row.try_get_unchecked(2).expect("a boolean");
        assert_eq!((text(0).as_str(), text(1).as_str()), (kind, unit), "{metric}");
        assert_eq!(labelled, 1, "{metric} has {label}");
        let stored: Option<f64> = row.try_get_unchecked(3).expect("a value");
        if value.is_some() {
            assert_eq!(stored, value, "{metric}");
        }
    }
}
