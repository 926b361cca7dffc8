//! The command line: what can be asked for, and with which words.

mod dead_letters;
mod operate;
mod reprocess;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use spillway_runtime::settings::Dur;

use crate::status::incidents::{Impact, Phase};
pub use dead_letters::{DeadLetters, Letters, ListLetters, ReplayLetters};
pub use operate::{
    Admit, Completions, Drill, Failover, Ingest, Ledger, Maintenance, Move, Objects, Preflight,
    Rebuild, Replay, Shard, Switchover,
};
pub use reprocess::{Reprocess, ReprocessRaw, Stretch};

/// Operates Spillway: topics, schema, tokens, readers; lag, gaps, ledger, spill; an end-to-end
/// check; the status page.
#[derive(Debug, Parser)]
#[command(name = "spillway", version, after_help = EXAMPLES)]
pub struct Cli {
    #[command(flatten)]
    pub options: Options,
    #[command(subcommand)]
    pub command: Command,
}

/// The keeper's defaults, as docs/operations.md and docs/dashboards.md tell them.
const LAG_STATES: &str = "\
States, as in the view consumer_lag (its limits are the keeper's settings lag.*_after):
  OK       nothing waits, or what waits is younger than 10 s
  WARN     what waits is older than 10 s, and the position moves
  STALL    records have waited for 20 s unmoved, or MySQL has no position of the partition
  STOP     ...for 120 s
  REWIND   the position went back
  UNKNOWN  nobody can tell
Exit code: 0 for OK, 1 for WARN, 2 for all others.";

const EXAMPLES: &str = "Examples:
  spillway --config spillway.toml check
  spillway --config spillway.toml topics create --replication-factor 3
  spillway --config spillway.toml token create --environment acme --yes
  spillway --config spillway.toml lag --watch
  spillway --config spillway.toml --output json gaps --environment acme
  spillway --config spillway.toml ledger AGENT/EPOCH/SEQ
  spillway --config spillway.toml shard switchover s0 --expected-primary db-0:3306 --dry-run
  spillway completions bash > /etc/bash_completion.d/spillway

Exit codes: 0 ok, 1 warning, 2 critical or failed, 64 wrong command line, 78 wrong settings.
What changes anything prints its plan first and asks; --yes answers, --dry-run only plans.";

/// In `--help` they stand below the command's own.
const EVERYWHERE: &str = "Options of every command";

/// Options that go with every command.
#[derive(Debug, Clone, Default, Args)]
pub struct Options {
    /// The command line as it was typed, but for `--yes`: for the journal.
    #[arg(skip)]
    pub typed: String,
    /// Settings (TOML), /etc/spillway/spillway.toml if that is there; SPILLWAY__SECTION__KEY in the
    /// environment overrides them.
    #[arg(long, global = true, value_name = "FILE", help_heading = EVERYWHERE)]
    pub config: Option<PathBuf>,
    /// How to print the answer.
    #[arg(long, global = true, value_enum, default_value = "table", help_heading = EVERYWHERE)]
    pub output: Output,
    /// Print what would be changed, and change nothing.
    #[arg(long, global = true, help_heading = EVERYWHERE)]
    pub dry_run: bool,
    /// Change it without asking.
    #[arg(long, global = true, help_heading = EVERYWHERE)]
    pub yes: bool,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Output {
    #[default]
    Table,
    Json,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Kafka's topics.
    #[command(subcommand)]
    Topics(Topics),
    /// Bring each shard's schema to what this build's programs expect.
    Migrate,
    /// Who may send.
    #[command(subcommand)]
    Token(Token),
    /// The recovery worker's keys.
    #[command(subcommand)]
    Keys(Keys),
    /// MySQL users for dashboards.
    #[command(subcommand)]
    Reader(Reader),
    /// On which shard an environment lives.
    Where {
        /// The environment's name.
        environment: String,
    },
    /// How far the consumer is behind, in seconds and records.
    #[command(after_help = LAG_STATES)]
    Lag(Lag),
    /// What did not arrive, by name.
    Gaps(Filter),
    /// What arrived, per agent and epoch; or one batch, hop by hop.
    Ledger(Ledger),
    /// What is parked in S3.
    #[command(subcommand)]
    Spill(Spill),
    /// What could not be applied, and its way back once the cause is mended.
    #[command(subcommand)]
    DeadLetters(DeadLetters),
    /// MySQL servers: who is primary, and who is to be.
    #[command(subcommand)]
    Shard(Shard),
    /// Make stored data again from what it was made of, and restore what differs.
    #[command(subcommand)]
    Reprocess(Reprocess),
    /// Whom the API servers admit.
    #[command(subcommand)]
    Ingest(Ingest),
    /// One change at a time: a lock with a reason and an owner.
    #[command(subcommand)]
    Maintenance(Maintenance),
    /// May this be stopped now? Refuses what would break ISR, replica count or the last of a kind.
    Preflight(Preflight),
    /// Is everything there, and does a batch come through both ways?
    Check(Check),
    /// What is wrong with this console, its files and its ways; each with how to mend it.
    Doctor,
    /// A safe exercise on the running system.
    Drill(Drill),
    /// The status page.
    #[command(subcommand)]
    Status(Status),
    /// What the status page tells of incidents.
    #[command(subcommand)]
    Incident(Incident),
    /// Check or show the console's own settings.
    #[command(subcommand)]
    Config(Config),
    /// Completions for your shell, to be put where it looks for them.
    Completions(Completions),
}

#[derive(Debug, Subcommand)]
pub enum Topics {
    /// Create missing topics and give each new partition its position in MySQL.
    Create(CreateTopics),
    /// Are topics, their settings and the positions as they must be?
    Check,
}

#[derive(Debug, Args)]
pub struct CreateTopics {
    /// Copies of each partition; default 3, or as many as there are brokers.
    #[arg(long)]
    pub replication_factor: Option<i32>,
    /// Copies that must have a record before it counts as stored; default one less than there are.
    #[arg(long)]
    pub min_insync: Option<i32>,
    /// Topics that hold records already but have no position: start at their first record.
    #[arg(long)]
    pub from_beginning: bool,
    /// How long to wait for Kafka while it does not answer, as when it was started a moment ago.
    #[arg(long, default_value = "30s")]
    pub wait: Dur,
}

#[derive(Debug, Subcommand)]
pub enum Token {
    /// Make a token; its secret is shown once.
    Create(CreateToken),
    /// Make a token worthless from now on. Its row stays, for what was sent before.
    Revoke {
        /// The token's id, the part after `spw_`.
        id: String,
    },
    /// List tokens, without secrets.
    Ls,
}

#[derive(Debug, Args)]
pub struct CreateToken {
    /// The environment that its sender's data belongs to.
    #[arg(long)]
    pub environment: String,
    /// The token's id; random unless told.
    #[arg(long)]
    pub id: Option<String>,
    /// How long it is good for, like 90d; for ever unless told.
    #[arg(long)]
    pub expires_in: Option<Dur>,
    /// The most points per second it may send, to each API server by itself, as all limits here:
    /// behind n servers a token gets n times as much.
    #[arg(long)]
    pub points_per_second: Option<u64>,
    /// The most requests per second it may send.
    #[arg(long)]
    pub requests_per_second: Option<u64>,
    /// The most bytes of bodies per second, as they come (compressed).
    #[arg(long)]
    pub bytes_per_second: Option<u64>,
    /// The most different series within an hour, those it always sent included.
    #[arg(long)]
    pub series_per_hour: Option<u64>,
    /// The most connections it may hold open.
    #[arg(long)]
    pub connections: Option<u64>,
}

#[derive(Debug, Subcommand)]
pub enum Keys {
    /// Make a key pair: agents seal to the public half, the recovery worker opens.
    Create,
    /// List the keys in keys_dir, without the private halves.
    Ls,
}

#[derive(Debug, Subcommand)]
pub enum Reader {
    /// Make a MySQL user that sees one environment, or all; its password is shown once.
    Create(CreateReader),
    /// Drop a reader.
    Revoke {
        /// The MySQL user's name.
        name: String,
    },
    /// List readers.
    Ls,
}

#[derive(Debug, Args)]
pub struct CreateReader {
    /// The one environment it sees.
    #[arg(long, required_unless_present = "all")]
    pub environment: Option<String>,
    /// It sees all environments.
    #[arg(long, conflicts_with = "environment")]
    pub all: bool,
    /// The MySQL user's name; made from the environment unless told.
    #[arg(long)]
    pub name: Option<String>,
    /// Connections it may have at once.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    pub connections: u32,
    /// The keeper ends its statements after this.
    #[arg(long, default_value = "60s")]
    pub statement_limit: Dur,
}

#[derive(Debug, Args)]
pub struct Lag {
    /// Look again every two seconds until interrupted.
    #[arg(long)]
    pub watch: bool,
    /// Between the two looks that rates and trend come from; 0s looks once.
    #[arg(long, default_value = "2s")]
    pub window: Dur,
    /// Every partition, not only the shards' sums and the partitions that are behind.
    #[arg(long)]
    pub partitions: bool,
}

#[derive(Debug, Args)]
pub struct Filter {
    /// Only this environment.
    #[arg(long)]
    pub environment: Option<String>,
    /// Only this host.
    #[arg(long)]
    pub host: Option<String>,
    /// Rows at most.
    #[arg(long, default_value_t = 200)]
    pub limit: u32,
}

#[derive(Debug, Subcommand)]
pub enum Spill {
    /// List parked objects, oldest first.
    Ls {
        /// Rows at most; the sums count all.
        #[arg(long, default_value_t = 50)]
        limit: usize,
    },
    /// Open and judge objects as the recovery worker would; publishes and deletes nothing.
    Verify(Objects),
    /// Put quarantined objects back for the recovery worker, once their cause is mended; or copies
    /// of objects from a folder.
    Replay(Replay),
    /// One object's clear header; its batches too if keys_dir has its key.
    Show {
        /// `spill/…` or only the 32 digits.
        key: String,
    },
}

#[derive(Debug, Args)]
pub struct Check {
    /// How long the canary may take on each way until it is readable in MySQL.
    #[arg(long, default_value = "60s")]
    pub within: Dur,
    /// Look only; send nothing.
    #[arg(long)]
    pub no_canary: bool,
}

#[derive(Debug, Subcommand)]
pub enum Status {
    /// Serve the page until told to stop.
    Serve,
    /// Print once what the page would say.
    Show,
    /// Write the page to a folder, for when there is no server.
    Export {
        /// Where to; files of an earlier copy are replaced.
        dir: PathBuf,
        /// Only the page for everybody, without names.
        #[arg(long)]
        public_only: bool,
    },
}

#[derive(Debug, Subcommand)]
pub enum Incident {
    /// Tell that something is wrong.
    Open(OpenIncident),
    /// Tell what is known by now.
    Update(UpdateIncident),
    /// Tell that it is over.
    Close(CloseIncident),
    /// List incidents, newest first.
    Ls,
}

#[derive(Debug, Args)]
pub struct OpenIncident {
    /// One line: what does not work, in its users' words.
    pub title: String,
    /// What is known.
    #[arg(long)]
    pub text: String,
    #[arg(long, value_enum, default_value = "minor")]
    pub impact: Impact,
    /// What it touches: intake, log, detour, storing, storage, keeping; may be repeated.
    #[arg(long)]
    pub component: Vec<String>,
    /// Also on the public page: the text must not tell who the customers are.
    #[arg(long)]
    pub public: bool,
}

#[derive(Debug, Args)]
pub struct UpdateIncident {
    /// The first digits of its id.
    pub id: String,
    /// How far it is.
    #[arg(long, value_enum, default_value = "identified")]
    pub phase: Phase,
    /// What is known by now.
    #[arg(long)]
    pub text: String,
}

#[derive(Debug, Args)]
pub struct CloseIncident {
    /// The first digits of its id.
    pub id: String,
    /// What it was, and what was done.
    #[arg(long)]
    pub text: String,
}

#[derive(Debug, Subcommand)]
pub enum Config {
    /// Tell all problems at once; exit code 78.
    Check,
    /// The effective settings, secrets masked.
    Show,
    /// Every key with its default and meaning.
    Sample,
    /// The same as a page of Markdown.
    Reference,
}
