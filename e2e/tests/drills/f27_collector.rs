//! Row 27, the OpenTelemetry collector: Kafka away, the collector itself restarted meanwhile,
//! ingest-api killed; what an application was told is taken is in MySQL.

use spillway_e2e::rig::{Rig, SETTLED_WITHIN};
use spillway_testkit::ports::Port;
use spillway_testkit::process::Process;
use spillway_testkit::stack::StackOptions;

use crate::foreign::application::{Application, SERIES};
use crate::foreign::{
    API_AWAY, FLUSH_WITHIN, KAFKA_AWAY, docs, file, home, start, stop, stored, tools,
};
use crate::sending::until;

/// Measurements before, between and after the faults.
const SOME: usize = 30;

/// The block of docs/clients.md, and what an application sends to.
fn start_collector(rig: &Rig, program: &std::path::Path, port: &Port) -> Process {
    let queue = home(rig, "otelcol").join("queue").display().to_string();
    let block = docs::block(rig, "OpenTelemetry", 0);
    let block = docs::with(&block, "/var/lib/otelcol/queue", &queue);
    let block = file(rig, "otelcol", "block.yaml", &block);
    let own = format!(
        "receivers: {{otlp: {{protocols: {{http: {{endpoint: '{}'}}}}}}}}\n\
         processors: {{batch: {{}}}}\n\
         service: {{telemetry: {{metrics: {{level: none}}}}}}\n",
        port.address()
    );
    let own = file(rig, "otelcol", "own.yaml", &own);
    start(rig, "otelcol", program, &["--config", &block, "--config", &own])
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_collector_took_from_an_application_is_in_mysql() {
    let program = tools::otelcol().await;
    let rig = Rig::start(StackOptions::default()).await;
    let port = Port::take().expect("a port");
    let collector = start_collector(&rig, &program, &port);
    let application = Application::start(port.socket());
    application.measures(SOME).await;
    rig.stack.kill("kafka-0").await.expect("it runs");
    tokio::time::sleep(KAFKA_AWAY / 2).await;
    // What it has is in its queue on disk, and so it is there after a restart.
    stop(&collector, FLUSH_WITHIN).await;
    let collector = start_collector(&rig, &program, &port);
    application.measures(SOME).await;
    tokio::time::sleep(KAFKA_AWAY / 2).await;
    rig.stack.start_process("kafka-0").await.expect("it comes back");
    application.measures(SOME).await;
    rig.kill_and_start("ingest-api-0", API_AWAY).await;
    application.measures(SOME).await;
    let taken = application.taken();
    drop(application);
    for n in [0, SERIES / 2, SERIES - 1] {
        let wanted: Vec<_> =
            taken.iter().map(|(ts_ms, number)| (*ts_ms, (number + n) as f64)).collect();
        let name = n.to_string();
        until("MySQL has what was taken", SETTLED_WITHIN, async || {
            stored(&rig, "drill_series", &name).await.len() >= wanted.len()
        })
        .await;
        let mut there = stored(&rig, "drill_series", &name).await;
        // One more may have been on its way when the application ended.
        there.truncate(wanted.len());
        assert_eq!(there, wanted, "series {n}");
        eprintln!("series {n}: {} measurements, each in MySQL once", wanted.len());
    }
    stop(&collector, FLUSH_WITHIN).await;
}
