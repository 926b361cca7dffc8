//! What the drills of foreign senders share: programs of other makers, and a target that remembers
//! what it said when it was asked.

pub mod target;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use spillway_e2e::rig::Rig;
use spillway_testkit::process::{Process, ProcessSpec};
use sqlx::Row as _;

/// Debian's package of Prometheus, unpacked beside the other servers; `None` where it can't be had.
pub fn prometheus() -> Option<PathBuf> {
    let cache = spillway_testkit::artifacts::cache_dir().join("debian-prometheus");
    let program = cache.join("usr/bin/prometheus");
    if program.is_file() {
        return Some(program);
    }
    let half = cache.with_extension(format!("{}", std::process::id()));
    fs::create_dir_all(&half).ok()?;
    let quiet = |program: &str, arguments: &[&str]| {
        let done = Command::new(program).args(arguments).current_dir(&half).output();
        done.is_ok_and(|output| output.status.success())
    };
    if !quiet("apt-get", &["download", "prometheus"]) {
        return None;
    }
    let package =
        fs::read_dir(&half).ok()?.find_map(|entry| entry.ok()?.file_name().into_string().ok())?;
    if !quiet("dpkg", &["-x", &package, "."]) {
        return None;
    }
    // Another run may have been first; then its copy is as good.
    let _renamed = fs::rename(&half, &cache);
    program.is_file().then_some(program)
}

/// A program of another maker, with its files in the stack's folder.
pub fn start(rig: &Rig, name: &str, program: &Path, args: &[&str]) -> Process {
    let cwd = rig.stack.dir().join(name);
    fs::create_dir_all(&cwd).expect("a folder of its own");
    let spec = ProcessSpec {
        name: name.to_owned(),
        program: program.to_owned(),
        args: args.iter().map(|arg| (*arg).to_owned()).collect(),
        env: Vec::new(),
        log: cwd.join("log"),
        cwd,
    };
    Process::start(spec).expect("the client starts")
}

/// A client's order to stop, and its end.
pub async fn stop(process: &Process, within: Duration) {
    process.signal(rustix::process::Signal::TERM).expect("it runs");
    let ended = process.wait(within).await;
    assert!(ended.is_some(), "it ends by itself: {}", process.spec().log_tail());
}

/// Time in ms and value of each point of a series of `demo`, as MySQL shows them.
pub async fn stored(rig: &Rig, metric: &str, n: &str) -> Vec<(i64, f64)> {
    let rows = sqlx::query(
        "SELECT CAST(ROUND(ts * 1000) AS SIGNED) AS ts_ms, value FROM spillway.metrics \
         WHERE environment = 'demo' AND metric = ? AND labels->>'$.n' = ? ORDER BY ts",
    )
    .bind(metric)
    .bind(n)
    .fetch_all(&rig.mysql("demo"))
    .await
    .expect("MySQL answers");
    rows.iter().map(|row| (row.get("ts_ms"), row.get("value"))).collect()
}
