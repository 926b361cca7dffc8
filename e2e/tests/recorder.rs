//! The ledger's own promise: what was answered is in the file, whatever happens to the process.

#![expect(clippy::expect_used, reason = "a test that can't go on fails")]

use std::path::Path;
use std::time::Duration;

use spillway_e2e::Fate;
use spillway_e2e::oracle::note::{Note, read_notes};
use spillway_e2e::oracle::recorder::Recorder;
use spillway_proto::BatchId;
use spillway_testkit::ports::Port;
use spillway_testkit::process::{Process, ProcessSpec};

const ROUNDS: u128 = 5;
const NOTES_PER_ROUND: u128 = 50;

fn start(dir: &Path, port: &Port) -> Process {
    let file = dir.join("ledger").display().to_string();
    let args = ["record", "--listen", &port.address(), "--file", &file];
    let spec = ProcessSpec {
        name: "recorder".into(),
        program: env!("CARGO_BIN_EXE_spillway-oracle").into(),
        args: args.map(str::to_owned).to_vec(),
        env: Vec::new(),
        cwd: dir.to_owned(),
        log: dir.join("log"),
    };
    Process::start(spec).expect("the recorder starts")
}

fn note(hash: u128) -> Note {
    Note::Answer { id: BatchId::Content { hash }, fate: Fate::Ok }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_recorder_answered_is_in_its_file_after_kill_9_and_senders_go_on() {
    let dir = tempfile::tempdir().expect("a folder");
    let port = Port::take().expect("a port");
    let recorder = Recorder::at(port.socket());
    let mut answered = Vec::new();
    for round in 0..ROUNDS {
        let process = start(dir.path(), &port);
        for number in 0..NOTES_PER_ROUND {
            let note = note(round * NOTES_PER_ROUND + number);
            recorder.note(&note).await;
            answered.push(note);
        }
        // One more is on its way when the process dies: it is answered by the next one.
        let late = recorder.clone();
        let last = note(u128::MAX - round);
        let sending = tokio::spawn({
            let last = last.clone();
            async move { late.note(&last).await }
        });
        process.kill().await.expect("it dies");
        let process = start(dir.path(), &port);
        let sent = tokio::time::timeout(Duration::from_secs(20), sending).await;
        sent.expect("the new recorder answers").expect("the sender lives");
        answered.push(last);
        process.kill().await.expect("it dies");
        let noted = read_notes(&dir.path().join("ledger")).expect("the file is sound");
        let missing: Vec<_> = answered.iter().filter(|note| !noted.contains(note)).collect();
        assert!(missing.is_empty(), "answered and not there: {missing:?}");
    }
}
