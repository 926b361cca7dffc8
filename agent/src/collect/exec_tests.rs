//! Real commands: that write, fail, hang, flood, and leave children behind.

use std::sync::Arc;

use spillway_runtime::settings::{Dur, Size};

use super::*;
use crate::clock::SystemClock;
use crate::collect::paced::Surroundings;
use crate::collect::sample::Troubles;
use crate::collect::tray::Tray;
use crate::metrics::Metrics;
use crate::settings::StatsdSettings;

struct Said {
    lines: Vec<String>,
    trouble: Option<String>,
    statsd: usize,
}

fn settings(script: &str, format: ExecFormat) -> ExecSettings {
    ExecSettings {
        name: "probe".to_owned(),
        command: ["/bin/sh", "-c", script].map(str::to_owned).into(),
        format,
        timeout: Dur::from_secs(20),
        ..ExecSettings::default()
    }
}

async fn run(settings: ExecSettings) -> Said {
    let metrics = Metrics::for_tests();
    let surroundings = Surroundings {
        tray: Tray::new(8 << 20),
        clock: Arc::new(SystemClock),
        troubles: Troubles::default(),
        metrics: metrics.clone(),
    };
    let listener = Listener::new(&StatsdSettings::default(), metrics);
    let mut exec = Exec::new(&settings, listener.clone());
    let pack = surroundings.read_once(&mut exec, 1_000).await;
    let shown = pack.readings().map(|(ts_ms, r)| {
        let labels: Vec<_> = r.labels.iter().map(|(k, v)| format!("{k}={v}")).collect();
        format!("{}{{{}}} {} @{ts_ms}", r.metric, labels.join(","), r.value)
    });
    Said {
        lines: shown.filter(|line| !line.starts_with("exec.run_seconds")).collect(),
        trouble: surroundings.troubles.now().into_values().next(),
        statsd: listener.flush().len(),
    }
}

async fn failure(settings: ExecSettings) -> String {
    let said = run(settings).await;
    assert_eq!(said.lines, ["exec.up{command=probe} 0 @1000"]);
    said.trouble.expect("a trouble")
}

#[tokio::test]
async fn each_format_is_read() {
    let mut influx = settings("echo 'a,k=v n=1,value=2'", ExecFormat::Influx);
    influx.labels.insert("team".to_owned(), "web".to_owned());
    let said = run(influx).await;
    assert_eq!(
        said.lines,
        [
            "a_n{k=v,team=web} 1 @1000",
            "a{k=v,team=web} 2 @1000",
            "exec.up{command=probe,team=web} 1 @1000",
        ]
    );
    let prometheus = settings("printf '# TYPE a counter\\na{b=\"c\"} 1'", ExecFormat::Prometheus);
    let said = run(prometheus).await;
    assert_eq!(said.lines[0], "a{b=c} 1 @1000");
    let said = run(settings("echo 'a:1|c'; echo 'b:2|g'", ExecFormat::Statsd)).await;
    assert_eq!((said.statsd, said.trouble), (2, None));
}

#[tokio::test]
async fn a_run_that_fails_says_why_and_nothing_else() {
    let failed = settings("echo 'a v=1'; echo broken >&2; exit 3", ExecFormat::Influx);
    assert_eq!(failure(failed).await, "it ended with exit status: 3: broken");
    let nonsense = settings("echo 'a v=1'; echo nonsense", ExecFormat::Influx);
    assert_eq!(failure(nonsense).await, "its output: line 2: the fields are missing");
    let mut missing = settings("", ExecFormat::Influx);
    missing.command = vec!["/no/such/program".to_owned()];
    assert!(failure(missing).await.contains("can't be started: No such file"));
}

#[tokio::test]
async fn whoever_floods_is_killed() {
    let mut flood = settings("yes 'a v=1'", ExecFormat::Influx);
    flood.output_bytes_max = Size::kib(64);
    assert!(failure(flood).await.contains("output_bytes_max (65536)"));
}

/// Whether a process runs: not gone, not a zombie.
fn runs(pid: &str) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(')').next().is_some_and(|rest| !rest.is_empty() && !rest.starts_with(" Z"))
}

#[tokio::test]
async fn at_the_timeout_the_command_and_its_children_are_gone() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("pids");
    let script = format!("sleep 600 & echo $! $$ > {0}.new; mv {0}.new {0}; wait", file.display());
    let mut hung = settings(&script, ExecFormat::Influx);
    // Long enough for a shell to start on a busy machine.
    hung.timeout = Dur::from_secs(3);
    assert!(failure(hung).await.contains("no answer within"));
    let pids = std::fs::read_to_string(&file).expect("the command ran");
    for pid in pids.split_whitespace() {
        let mut patience = 0;
        while runs(pid) {
            patience += 1;
            assert!(patience < 1_000, "{pid} outlived its timeout");
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    }
    assert_eq!(pids.split_whitespace().count(), 2);
}
