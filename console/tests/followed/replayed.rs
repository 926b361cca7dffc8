//! Objects of an environment whose token was not known: set aside by the worker, put back by an
//! operator once it is, with a rate, a stop in the middle, and nothing counted twice.

use std::process::Stdio;
use std::time::Duration;

use serde_json::Value as Json;
use spillway_testkit::Stack;
use tokio::process::Command;
use tokio::time::Instant;

use super::{WITHIN, ask, start_agent, until};

pub const AGENTS: [&str; 3] = ["acme-1", "acme-2", "acme-3"];

pub async fn start_agents(stack: &Stack) {
    for agent in AGENTS {
        start_agent(stack, agent, "acme").await;
    }
}

/// One object of each agent at least: which of them S3 hears first is chance.
pub async fn all_are_parked(stack: &Stack) {
    let by = Instant::now() + WITHIN;
    for agent in AGENTS {
        let parked = "spillway_agent_batches_parked_total";
        while !stack.metrics(agent).await.is_ok_and(|told| told.sum(parked) >= 1.0) {
            assert!(Instant::now() < by, "{agent} has parked nothing");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

/// Takes an environment's tokens out of tokens.toml; returns the whole file.
pub fn without_tokens(stack: &Stack, environment: &str) -> String {
    let path = stack.dir().join("tokens.toml");
    let whole = std::fs::read_to_string(&path).unwrap();
    let mut table: toml::Table = whole.parse().unwrap();
    let rows = table["token"].as_array_mut().unwrap();
    rows.retain(|row| row["environment"].as_str() != Some(environment));
    std::fs::write(&path, table.to_string()).unwrap();
    whole
}

fn number(answer: &Json, name: &str) -> u64 {
    answer[name].as_u64().unwrap_or_else(|| panic!("{name}: {answer:#}"))
}

const REPLAY: [&str; 4] = ["spill", "replay", "--reason", "token-unknown"];

fn dry<'a>(more: &[&'a str]) -> Vec<&'a str> {
    [&REPLAY[..], more, &["--dry-run"]].concat()
}

pub async fn comes_home_once(stack: &Stack, tokens: &str) {
    // The worker is done with every object: what it could not open is set aside.
    until(stack, &["spill", "ls"], |answer| answer["objects"] == 0).await;
    let all = number(&ask(stack, &dry(&[])).await, "chosen");
    assert!(all >= AGENTS.len() as u64, "one of each agent at least, and not {all}");
    stack.kill("recovery-worker-0").await.unwrap();
    let before = stack.parked_objects();
    std::fs::write(stack.dir().join("tokens.toml"), tokens).unwrap();

    let chosen = async |more: &[&str]| number(&ask(stack, &dry(more)).await, "chosen");
    assert_eq!(chosen(&["--environment", "acme"]).await, all);
    assert_eq!(chosen(&["--environment", "demo"]).await, 0);
    let (past, future) = ("2020-01-01T00:00:00Z", "2100-01-01T00:00:00Z");
    assert_eq!(chosen(&["--since", past, "--until", future]).await, all);
    assert_eq!(chosen(&["--until", past]).await + chosen(&["--since", future]).await, 0);
    assert_eq!(stack.parked_objects(), before, "a dry run puts nothing back");

    let stopped = stopped_in_the_middle(stack, &REPLAY).await;
    let (back, left) = (number(&stopped, "put_back"), number(&stopped, "left"));
    assert_eq!((back + left, back > 0 && left > 0), (all, true), "{stopped:#}");
    let last = stopped["last_key"].as_str().unwrap();
    assert!(stopped["notes"].to_string().contains(&format!("--resume-after {last}")));
    let rest = [&REPLAY[..], &["--resume-after", last, "--yes"]].concat();
    assert_eq!(number(&ask(stack, &rest).await, "put_back"), left);
    let began = Instant::now();
    let again = ask(stack, &[&REPLAY[..], &["--rate", "2", "--yes"]].concat()).await;
    let is_there = |row: &Json| row["state"] == "there already";
    assert!(again["objects"].as_array().unwrap().iter().all(is_there), "{again:#}");
    assert!(began.elapsed() >= Duration::from_millis(500) * (all as u32 - 1), "its rate is kept");

    stack.start_process("recovery-worker-0").await.unwrap();
    let whole = |epoch: &Json| {
        number(epoch, "applied_batches") == number(epoch, "highest_seq")
            && number(epoch, "missing_batches") == 0
    };
    let home = |answer: &Json| {
        let epochs = answer["epochs"].as_array();
        epochs.is_some_and(|all| all.len() == AGENTS.len() && all.iter().all(whole))
    };
    let ledger = until(stack, &["ledger", "--environment", "acme"], home).await;
    for epoch in ledger["epochs"].as_array().unwrap() {
        assert_eq!(number(epoch, "duplicate_batches"), 0, "each came once: {ledger:#}");
    }
}

/// Interrupted as by Ctrl-C once the first object is back; the worker is not there to take it.
async fn stopped_in_the_middle(stack: &Stack, replay: &[&str]) -> Json {
    let before = stack.parked_objects();
    let child = Command::new(env!("CARGO_BIN_EXE_spillway"))
        .arg("--config")
        .arg(stack.dir().join("config/console.toml"))
        .args(["--output", "json"])
        .args(replay)
        .args(["--rate", "1", "--yes"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let by = Instant::now() + WITHIN;
    while stack.parked_objects() == before {
        assert!(Instant::now() < by, "nothing was put back");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let interrupted =
        Command::new("kill").args(["-INT", &child.id().unwrap().to_string()]).status();
    assert!(interrupted.await.unwrap().success());
    let output = child.wait_with_output().await.unwrap();
    assert_eq!(output.status.code(), Some(1), "a warning: something is left");
    serde_json::from_slice(&output.stdout).unwrap()
}
