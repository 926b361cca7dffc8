//! From the command line to an exit code: settings, the command, its answer on stdout.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory, Parser};
use spillway_runtime::program::{self, EXIT_CONFIG, EXIT_FAILED, EXIT_USAGE};
use spillway_runtime::settings;

use crate::answer::{Answer, Verdict};
use crate::cli::{
    Cli, Command, Config, Keys, Lag, Options, Output, Reader, Spill, Status, Token, Topics,
};
use crate::commands::{
    check, dead_letters, doctor, drill, gaps, incident, ingest, keys, lag, ledger, locate,
    maintenance, migrate, preflight, reader, reprocess, shard, spill, token, topics,
};
use crate::desk::Desk;
use crate::failure::Failure;
use crate::settings::ConsoleSettings;
use crate::status;

/// Where operators keep the settings, unless they say otherwise.
const USUAL_CONFIG: &str = "/etc/spillway/spillway.toml";

/// Runs one invocation.
pub fn run() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let printed = error.print();
            let asked = !error.use_stderr() && printed.is_ok();
            return ExitCode::from(if asked { 0 } else { EXIT_USAGE });
        }
    };
    if let Command::Config(Config::Sample) = cli.command {
        return print(settings::sample_toml::<ConsoleSettings>().trim_end());
    }
    if let Command::Config(Config::Reference) = cli.command {
        return print(settings::reference_markdown::<ConsoleSettings>().trim_end());
    }
    if let Command::Completions(completions) = &cli.command {
        let mut text = Vec::new();
        let mut command = Cli::command();
        clap_complete::generate(completions.shell, &mut command, "spillway", &mut text);
        return print(String::from_utf8_lossy(&text).trim_end());
    }
    let usual = Some(PathBuf::from(USUAL_CONFIG)).filter(|path| path.exists());
    let config = cli.options.config.clone().or(usual);
    let loaded: ConsoleSettings = match settings::load(config.as_deref()) {
        Ok(loaded) => loaded,
        Err(errors) => {
            eprintln!("{errors}");
            return ExitCode::from(EXIT_CONFIG);
        }
    };
    let options = Options { config, typed: typed(std::env::args().skip(1)), ..cli.options };
    let desk = Desk { settings: loaded, options };
    match cli.command {
        Command::Config(Config::Show) => print(shown(&desk).trim_end()),
        Command::Config(_) => print("the settings are sound"),
        Command::Status(Status::Serve) => {
            let (mut settings, path) = (desk.settings, desk.options.config);
            // A program that runs on its own says more than a command does.
            if settings.log.level == ConsoleSettings::default().log.level {
                settings.log.level = "info".to_owned();
            }
            program::run_to_end(env!("CARGO_PKG_VERSION"), settings, path, status::serve::run)
        }
        command => run_command(&desk, command),
    }
}

/// The effective settings in the form that was asked for.
fn shown(desk: &Desk) -> String {
    let text = settings::show(&desk.settings);
    match desk.options.output {
        Output::Table => text,
        Output::Json => toml::from_str::<serde_json::Value>(&text)
            .map_or(text, |settings| format!("{settings:#}")),
    }
}

/// What has to be typed to run the same again, and to be asked again.
fn typed(arguments: impl Iterator<Item = String>) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_=./:,@+".contains(c);
    let quoted = |argument: String| match argument.chars().all(is_plain) && !argument.is_empty() {
        true => argument,
        false => format!("'{}'", argument.replace('\'', r"'\''")),
    };
    let words = arguments.filter(|argument| argument != "--yes").map(quoted);
    std::iter::once("spillway".to_owned()).chain(words).collect::<Vec<_>>().join(" ")
}

fn run_command(desk: &Desk, command: Command) -> ExitCode {
    if let Err(error) = spillway_runtime::logging::start(&desk.settings.log) {
        eprintln!("spillway: {error}");
        return ExitCode::from(EXIT_CONFIG);
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("spillway: the async runtime cannot start: {error}");
            return ExitCode::from(EXIT_FAILED);
        }
    };
    let result = runtime.block_on(dispatch(desk, command));
    // A client that still waits for a silent server must not hold the prompt.
    runtime.shutdown_background();
    match result {
        Ok(answer) => show(desk, &answer),
        Err(failure) => fail(desk, &failure),
    }
}

async fn dispatch(desk: &Desk, command: Command) -> Result<Answer, Failure> {
    match command {
        Command::Topics(Topics::Create(options)) => topics::create(desk, &options).await,
        Command::Topics(Topics::Check) => topics::check(desk).await,
        Command::Migrate => migrate::run(desk).await,
        Command::Token(Token::Create(options)) => token::create(desk, &options),
        Command::Token(Token::Revoke { id }) => token::revoke(desk, &id),
        Command::Token(Token::Ls) => token::ls(desk),
        Command::Keys(Keys::Create) => keys::create(desk),
        Command::Keys(Keys::Ls) => keys::ls(desk),
        Command::Reader(Reader::Create(options)) => reader::create(desk, &options).await,
        Command::Reader(Reader::Revoke { name }) => reader::revoke(desk, &name).await,
        Command::Reader(Reader::Ls) => reader::ls(desk).await,
        Command::Where { environment } => locate::run(desk, &environment),
        Command::Lag(options @ Lag { watch: false, .. }) => lag::look(desk, &options).await,
        Command::Lag(options) => lag::watch(desk, &options).await,
        Command::Gaps(filter) => gaps::run(desk, &filter).await,
        Command::Ledger(options) => ledger::run(desk, &options).await,
        Command::Spill(Spill::Ls { limit }) => spill::ls(desk, limit).await,
        Command::Spill(Spill::Show { key }) => spill::show(desk, &key).await,
        Command::Spill(Spill::Verify(objects)) => spill::verify::run(desk, &objects).await,
        Command::Spill(Spill::Replay(objects)) => spill::replay::run(desk, &objects).await,
        Command::DeadLetters(command) => dead_letters::run(desk, command).await,
        Command::Shard(command) => shard::run(desk, command).await,
        Command::Reprocess(command) => reprocess::run(desk, command).await,
        Command::Ingest(command) => ingest::run(desk, command),
        Command::Maintenance(command) => maintenance::run(desk, command).await,
        Command::Preflight(options) => preflight::run(desk, &options).await,
        Command::Doctor => doctor::run(desk).await,
        Command::Drill(options) => drill::run(desk, &options).await,
        Command::Check(options) => check::run(desk, &options).await,
        Command::Status(Status::Export { dir, public_only }) => {
            status::export::run(desk, &dir, public_only).await
        }
        Command::Status(_) => status::show(desk).await,
        Command::Incident(command) => incident::run(desk, command),
        Command::Config(_) | Command::Completions(_) => Ok(Answer::default()),
    }
}

/// Prints an answer to stdout; the exit code is its verdict.
pub fn show(desk: &Desk, answer: &Answer) -> ExitCode {
    let text = match desk.options.output {
        Output::Table => answer.to_text(desk.style()),
        Output::Json => format!("{:#}\n", answer.to_json()),
    };
    match print(text.trim_end_matches('\n')) {
        ExitCode::SUCCESS => ExitCode::from(answer.verdict.exit_code()),
        failed => failed,
    }
}

fn fail(desk: &Desk, failure: &Failure) -> ExitCode {
    let sentence = failure.sentence();
    eprintln!("spillway: {sentence}");
    if desk.options.output == Output::Json {
        let verdict = Verdict::Critical.as_str();
        print(&format!("{:#}", serde_json::json!({ "verdict": verdict, "error": sentence })));
    }
    ExitCode::from(failure.exit_code)
}

/// A closed pipe (`… | head`) is no error of ours.
fn print(text: &str) -> ExitCode {
    match writeln!(std::io::stdout(), "{text}") {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(_) => ExitCode::from(EXIT_FAILED),
    }
}
