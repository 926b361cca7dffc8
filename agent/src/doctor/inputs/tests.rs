//! Inputs that do not work: each is named, with what to do.

use std::io::{Read as _, Write as _};

use spillway_runtime::settings::Dur;

use super::super::Verdict;
use super::*;
use crate::settings::{ExecSettings, MysqlInputSettings, ScrapeSettings};

/// Settings that listen on nothing, with a state directory where no agent runs.
fn settings(dir: &tempfile::TempDir) -> Settings {
    let mut settings = Settings::default();
    settings.agent.state_dir = dir.path().to_owned();
    settings.statsd.enabled = false;
    settings
}

fn scrape(target: &str) -> ScrapeSettings {
    ScrapeSettings {
        job: "node".to_owned(),
        targets: vec![target.to_owned()],
        timeout: Dur::from_secs(20),
        body_bytes_max: spillway_runtime::settings::Size::kib(1),
        ..ScrapeSettings::default()
    }
}

fn exec(command: &[&str]) -> ExecSettings {
    let command = command.iter().map(ToString::to_string).collect();
    ExecSettings { command, timeout: Dur::from_secs(5), ..ExecSettings::default() }
}

/// Answers every connection with the same.
fn target(answer: String) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        for mut connection in listener.incoming().flatten() {
            if connection.read(&mut [0; 4_096]).is_ok() {
                drop(connection.write_all(answer.as_bytes()));
            }
        }
    });
    address
}

async fn findings(settings: &Settings) -> Vec<(Verdict, String)> {
    let found = check(settings).await.into_iter();
    found.map(|found| (found.verdict, format!("{} | {}", found.what, found.fix))).collect()
}

#[tokio::test]
async fn each_input_is_tried_once_and_what_fails_is_told_with_its_remedy() {
    let dir = tempfile::tempdir().unwrap();
    // No program is given this port: one that was free a moment ago may be another's by now.
    let closed = "127.0.0.1:1".to_owned();
    let hangs = TcpListener::bind("127.0.0.1:0").unwrap();
    let hung = scrape(&hangs.local_addr().unwrap().to_string());
    let page = |body: &str| format!("HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n{body}");
    let script = dir.path().join("script");
    std::fs::write(&script, "#!/bin/sh\n").unwrap();
    let mut settings = settings(&dir);
    settings.scrape = vec![
        scrape(&target(page("a 1\nb 2\n"))),
        scrape(&closed),
        ScrapeSettings { timeout: Dur::from_millis(300), ..hung },
        scrape(&target(page(&"a 1\n".repeat(500)))),
        scrape(&target("HTTP/1.1 401 Unauthorized\r\ncontent-length: 0\r\n\r\n".to_owned())),
        scrape(&target(page("<html>\n"))),
    ];
    settings.mysql =
        vec![MysqlInputSettings { address: closed.clone(), ..MysqlInputSettings::default() }];
    settings.exec = vec![
        exec(&["/bin/echo", "m v=1"]),
        exec(&[script.to_str().unwrap()]),
        exec(&["/nowhere/program"]),
        exec(&["/bin/false"]),
        exec(&["/bin/echo", "no line"]),
    ];
    let found = findings(&settings).await;
    let wanted = [
        (Verdict::Fine, "2 readings in"),
        (Verdict::Broken, "nothing listens now"),
        (Verdict::Broken, "raise its timeout"),
        (Verdict::Broken, "raise body_bytes_max"),
        (Verdict::Broken, "bearer_token_file"),
        (Verdict::Broken, "is it the right URL"),
        (Verdict::Broken, "nothing listens now"),
        (Verdict::Fine, "exec echo: 1 readings"),
        (Verdict::Broken, "chmod 755"),
        (Verdict::Broken, "whole path"),
        (Verdict::Broken, "it must end with 0"),
        (Verdict::Broken, "set format"),
    ];
    assert_eq!(found.len(), wanted.len(), "{found:#?}");
    for (found, (verdict, part)) in found.iter().zip(wanted) {
        assert!(found.0 == verdict && found.1.contains(part), "{part} is not in {found:?}");
    }
}

#[tokio::test]
async fn a_port_that_is_taken_is_told_and_one_that_the_running_agent_has_is_fine() {
    let dir = tempfile::tempdir().unwrap();
    let (udp, tcp) =
        (UdpSocket::bind("127.0.0.1:0").unwrap(), TcpListener::bind("127.0.0.1:0").unwrap());
    let mut settings = settings(&dir);
    (settings.statsd.enabled, settings.influx.enabled) = (true, true);
    settings.statsd.listen = udp.local_addr().unwrap().to_string();
    settings.influx.listen = tcp.local_addr().unwrap().to_string();
    settings.influx.udp = "192.0.2.1:8189".to_owned();
    let found = findings(&settings).await;
    let broken = |at: usize, part: &str| {
        assert!(found[at].0 == Verdict::Broken && found[at].1.contains(part), "{found:#?}");
    };
    broken(0, "stop that or set statsd.listen");
    broken(1, "stop that or set influx.listen");
    broken(2, "an address of this host");
    let serving = tokio::spawn(socket::serve(dir.path().to_owned(), || "{}".to_owned()));
    let path = dir.path().join("status.sock");
    while !path.exists() {
        tokio::task::yield_now().await;
    }
    settings.influx.udp = "127.0.0.1:0".to_owned();
    let state_dir = settings.clone();
    // The page is fetched with a blocking call.
    let found = tokio::task::spawn_blocking(move || listeners(&state_dir)).await.unwrap();
    assert!(found.iter().all(|found| found.verdict == Verdict::Fine), "{found:?}");
    serving.abort();
}
