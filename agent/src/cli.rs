//! The agent's own commands: `test`, `status`, `doctor`. The rest every program has.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::io::Write as _;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::{Arg, ArgAction, Command};
use spillway_proto::Kind;
use spillway_runtime::program::{EXIT_USAGE, Invocation, Program, chain};

use crate::clock::{Clock, SystemClock};
use crate::collect::paced::Surroundings;
use crate::collect::sample::{Sampler, Troubles};
use crate::collect::statsd::Listener;
use crate::collect::tray::Tray;
use crate::collect::{Reading, host, sources};
use crate::deliver::http_client::BuildError;
use crate::metrics::Metrics;
use crate::settings::Settings;
use crate::status::{Status, headline, socket};
use crate::{convert, doctor, settings};

/// Between the two reads of `test`: long enough for a usage between them.
const TEST_PAUSE: Duration = Duration::from_secs(1);

const EXIT_FAILED: u8 = 1;

/// The agent's command line.
#[must_use]
pub fn program(version: &'static str) -> Program<Settings> {
    let test = Command::new("test").about("Reads every input of this host once and prints it");
    let json = Arg::new("json").long("json").action(ArgAction::SetTrue).help("The page as JSON");
    let status =
        Command::new("status").about("What the running agent collects, keeps and sends").arg(json);
    let doctor = Command::new("doctor")
        .about("Checks directories, disk, network, token, S3 and clock; says how to mend each")
        .after_help("Exit codes: 0 all is well, 1 a warning, 2 something does not work.");
    Program::new(version)
        .command(convert::command(), |invocation| convert::run(&invocation.matches))
        .command(test, |invocation| on_a_runtime(test_inputs(invocation.settings)))
        .looking(status, |invocation| show_status(&invocation))
        .command(doctor, |invocation| on_a_runtime(doctor::run(invocation.settings)))
}

/// `convert` alone, which needs no settings: whoever calls it has none yet. None: something else
/// was asked for.
#[must_use]
pub fn without_settings(args: impl Iterator<Item = OsString>) -> Option<ExitCode> {
    let args: Vec<_> = args.skip(1).collect();
    if args.first().is_none_or(|first| first != "convert") {
        return None;
    }
    let command = convert::command().bin_name("spillway-agent convert");
    Some(match command.try_get_matches_from(args) {
        Ok(matches) => convert::run(&matches),
        Err(usage) => {
            let shown = usage.print();
            let code = if usage.use_stderr() || shown.is_err() { EXIT_USAGE } else { 0 };
            ExitCode::from(code)
        }
    })
}

fn on_a_runtime(work: impl Future<Output = ExitCode>) -> ExitCode {
    match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime.block_on(work),
        Err(cause) => complain(&format!("no runtime: {cause}")),
    }
}

async fn test_inputs(settings: settings::Settings) -> ExitCode {
    let metrics = Metrics::default();
    let inputs = host::inputs(&settings, &metrics);
    let mut sampler = Sampler::new(inputs, settings.collect.input_deadline(), metrics);
    sampler.sample().await;
    tokio::time::sleep(TEST_PAUSE).await;
    let mut readings = sampler.sample().await;
    let troubles = sampler.troubles();
    if let Err(cause) = paced(&settings, &troubles, &mut readings).await {
        return complain(&chain(&cause));
    }
    let mut text = table(&readings);
    let troubles = troubles.now();
    for (input, trouble) in &troubles {
        let written = writeln!(text, "trouble with {input}: {trouble}");
        debug_assert!(written.is_ok(), "writing to a String does not fail");
    }
    let code = say(&text);
    if troubles.is_empty() { code } else { ExitCode::from(EXIT_FAILED) }
}

/// Reads every scrape, server and command once, one after the other.
async fn paced(
    settings: &Settings,
    troubles: &Troubles,
    readings: &mut Vec<Reading>,
) -> Result<(), BuildError> {
    let metrics = Metrics::default();
    let listener = Listener::new(&settings.statsd, metrics.clone());
    let around = Surroundings {
        tray: Tray::new(settings.collect.tray_bytes_max.as_usize()),
        clock: Arc::new(SystemClock),
        troubles: troubles.clone(),
        metrics,
    };
    for mut source in sources::all(settings, &listener)? {
        let pack = around.read_once(source.as_mut(), SystemClock.wall_ms()).await;
        readings.extend(pack.readings().map(|(_, reading)| reading));
    }
    // What commands said as StatsD.
    readings.extend(listener.flush());
    Ok(())
}

/// Metrics by name, values flush right.
fn table(readings: &[Reading]) -> String {
    let mut rows: Vec<[String; 4]> = readings.iter().map(row).collect();
    rows.sort();
    rows.insert(0, ["METRIC", "VALUE", "UNIT", "KIND"].map(str::to_owned));
    let width = |column: fn(&[String; 4]) -> &String| {
        rows.iter().map(|row| column(row).chars().count()).max().unwrap_or(0)
    };
    let (names, values) = (width(|row| &row[0]), width(|row| &row[1]));
    let units = width(|row| &row[2]);
    let mut text = String::new();
    for [name, value, unit, kind] in &rows {
        let written = writeln!(text, "{name:<names$}  {value:>values$}  {unit:<units$}  {kind}");
        debug_assert!(written.is_ok(), "writing to a String does not fail");
    }
    text
}

fn row(reading: &Reading) -> [String; 4] {
    let labels: Vec<_> = reading.labels.iter().map(|(k, v)| format!("{k}={v:?}")).collect();
    let name = match labels.is_empty() {
        true => reading.metric.to_string(),
        false => format!("{}{{{}}}", reading.metric, labels.join(",")),
    };
    let kind = match reading.kind {
        Kind::Gauge => "gauge",
        Kind::Delta => "delta",
        Kind::Cumulative => "cumulative",
    };
    let value = match reading.value.fract() == 0.0 {
        true => format!("{}", reading.value),
        false => format!("{:.2}", reading.value),
    };
    [name, value, reading.unit.to_owned(), kind.to_owned()]
}

fn show_status(invocation: &Invocation<Settings>) -> ExitCode {
    let state_dir = &invocation.settings.agent.state_dir;
    let page = match socket::fetch(state_dir) {
        Ok(page) => page,
        Err(cause) => {
            return complain(&format!("no agent answers in {}: {cause}", state_dir.display()));
        }
    };
    if invocation.matches.get_flag("json") {
        return say(&format!("{page}\n"));
    }
    match serde_json::from_str::<Status>(&page) {
        Ok(status) => match say(&status.text()) {
            ExitCode::SUCCESS => ExitCode::from(headline::of(&status).0.exit_code()),
            failed => failed,
        },
        Err(cause) => complain(&format!("that is no agent of ours: {cause}")),
    }
}

/// Prints to stdout; a reader that went away (`… | head`) is no failure.
pub(crate) fn say(text: &str) -> ExitCode {
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(cause) if cause.kind() != std::io::ErrorKind::BrokenPipe => ExitCode::from(EXIT_FAILED),
        _ => ExitCode::SUCCESS,
    }
}

fn complain(text: &str) -> ExitCode {
    eprintln!("spillway-agent: {text}");
    ExitCode::from(EXIT_FAILED)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_names_labels_and_units_and_keeps_its_columns() {
        let mut readings = crate::collect::Readings::default();
        readings.gauge("mem.usage", "%", 12.345);
        readings.labelled("cpu.seconds", "seconds", Kind::Cumulative, &[("mode", "user")], 7.0);
        let text = table(&readings.into_list());
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(
            lines,
            [
                "METRIC                    VALUE  UNIT     KIND",
                "cpu.seconds{mode=\"user\"}      7  seconds  cumulative",
                "mem.usage                 12.35  %        gauge",
            ]
        );
    }
}
