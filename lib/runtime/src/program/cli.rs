//! The command line that all programs share: `[run] | config check|show|sample | version`, and a
//! place for a program's own subcommands.

use std::future::Future;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Arg, ArgMatches, Command, value_parser};

use super::{Context, Drained, EXIT_CONFIG, EXIT_OK, EXIT_USAGE, RunError, run_to_end};
use crate::settings::{self, Settings};

/// What a program's own subcommand is called with.
#[derive(Debug)]
pub struct Invocation<T> {
    pub settings: T,
    pub config_path: Option<PathBuf>,
    pub matches: ArgMatches,
}

type Handler<T> = Box<dyn FnOnce(Invocation<T>) -> ExitCode>;

/// A program before it runs.
pub struct Program<T> {
    version: &'static str,
    own: Vec<Own<T>>,
}

/// A subcommand of the program's own.
struct Own<T> {
    command: Command,
    handler: Handler<T>,
    /// Whether it does its work only under settings that are sound.
    checked: bool,
}

impl<T: Settings> Program<T> {
    pub fn new(version: &'static str) -> Self {
        Self { version, own: Vec::new() }
    }

    /// Adds a subcommand. It is called with checked settings, before logging starts.
    #[must_use]
    pub fn command(
        mut self,
        command: Command,
        handler: impl FnOnce(Invocation<T>) -> ExitCode + 'static,
    ) -> Self {
        self.own.push(Own { command, handler: Box::new(handler), checked: true });
        self
    }

    /// Adds a subcommand that only looks at a running program: it is called with settings as they
    /// are, and may be run by somebody who can't read the program's secrets.
    #[must_use]
    pub fn looking(
        mut self,
        command: Command,
        handler: impl FnOnce(Invocation<T>) -> ExitCode + 'static,
    ) -> Self {
        self.own.push(Own { command, handler: Box::new(handler), checked: false });
        self
    }

    /// Parses the command line and does what it says; `run` is the default.
    pub fn run<F, Fut>(self, run: F) -> ExitCode
    where
        F: FnOnce(T, Context) -> Fut,
        Fut: Future<Output = Result<Drained, RunError>>,
    {
        let matches = match self.command_line().try_get_matches() {
            Ok(matches) => matches,
            Err(error) => return usage(&error),
        };
        let config_path = matches.get_one::<PathBuf>("config").cloned();
        let (name, inner) = match matches.subcommand() {
            Some((name, inner)) => (name, inner.clone()),
            None => ("run", ArgMatches::default()),
        };
        match (name, inner.subcommand_name()) {
            ("version", _) => return say(&format!("spillway-{} {}", T::PROGRAM, self.version)),
            ("config", Some("sample")) => return say(settings::sample_toml::<T>().trim_end()),
            ("config", Some("reference")) => {
                return say(settings::reference_markdown::<T>().trim_end());
            }
            _ => {}
        }
        let own = self.own.iter().find(|own| own.command.get_name() == name);
        let load = match own.is_none_or(|own| own.checked) {
            true => settings::load::<T>,
            false => settings::load_unchecked::<T>,
        };
        let loaded: T = match load(config_path.as_deref()) {
            Ok(loaded) => loaded,
            Err(errors) => {
                eprintln!("{errors}");
                return ExitCode::from(EXIT_CONFIG);
            }
        };
        match (name, inner.subcommand_name()) {
            ("config", Some("show")) => say(settings::show(&loaded).trim_end()),
            ("config", _) => say("the settings are sound"),
            ("run", _) => run_to_end(self.version, loaded, config_path, run),
            _ => {
                let invocation = Invocation { settings: loaded, config_path, matches: inner };
                let mut own = self.own.into_iter();
                match own.find(|own| own.command.get_name() == name) {
                    Some(own) => (own.handler)(invocation),
                    None => ExitCode::from(EXIT_USAGE),
                }
            }
        }
    }

    pub(super) fn command_line(&self) -> Command {
        let config = Arg::new("config")
            .long("config")
            .value_name("FILE")
            .global(true)
            .value_parser(value_parser!(PathBuf))
            .help("Settings (TOML); SPILLWAY__SECTION__KEY in the environment overrides them");
        let settings = Command::new("config")
            .about("Checks or shows settings, without connecting to anything")
            .subcommand_required(true)
            .subcommand(Command::new("check").about("Tells all problems at once; exit code 78"))
            .subcommand(Command::new("show").about("The effective settings, secrets masked"))
            .subcommand(Command::new("sample").about("Every key with its default and meaning"))
            .subcommand(Command::new("reference").about("The same as a page of Markdown"));
        let binary = format!("spillway-{}", T::PROGRAM);
        Command::new(T::PROGRAM)
            .bin_name(binary.clone())
            .display_name(binary)
            .version(self.version)
            .about(T::ABOUT)
            .after_help(examples(T::PROGRAM))
            .arg(config)
            .subcommand(Command::new("run").about("Runs the program; the default"))
            .subcommand(settings)
            .subcommand(Command::new("version").about("Prints the version"))
            .subcommands(self.own.iter().map(|own| own.command.clone()))
    }
}

fn examples(program: &str) -> String {
    format!(
        "Examples:\n  \
         spillway-{program} config sample > {program}.toml\n  \
         spillway-{program} --config {program}.toml config check\n  \
         spillway-{program} --config {program}.toml\n  \
         SPILLWAY__LOG__LEVEL=debug spillway-{program} --config {program}.toml\n\n\
         Signals: SIGTERM drains and stops (a second one: at once), SIGHUP reads files again.\n\
         Exit codes: 0 nothing left, 75 something left, 78 wrong settings, 64 usage, 1 failed."
    )
}

/// Prints to stdout; a closed pipe (`… | head`) is no error of ours.
fn say(text: &str) -> ExitCode {
    use std::io::Write;
    match writeln!(std::io::stdout(), "{text}") {
        Ok(()) => ExitCode::from(EXIT_OK),
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => ExitCode::from(EXIT_OK),
        Err(_) => ExitCode::from(super::EXIT_FAILED),
    }
}

/// `--help` and `--version` are answers, everything else clap says is a usage error.
fn usage(error: &clap::Error) -> ExitCode {
    let printed = error.print();
    if error.use_stderr() || printed.is_err() {
        ExitCode::from(EXIT_USAGE)
    } else {
        ExitCode::from(EXIT_OK)
    }
}
