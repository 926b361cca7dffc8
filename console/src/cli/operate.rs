//! What is asked of the console when something is to be changed, moved or tried.

use std::num::NonZeroU32;

use clap::{Args, Subcommand};
use spillway_runtime::settings::Dur;

use super::Filter;

/// `spillway ledger [BATCH]`.
#[derive(Debug, Args)]
pub struct Ledger {
    /// Follow one batch through every hop: AGENT/EPOCH/SEQ, or content/HASH.
    pub batch: Option<String>,
    /// What `spillway-agent status --json` printed on the batch's host: whether its spool may still
    /// hold it. `-` reads it from the standard input.
    #[arg(long, value_name = "FILE", requires = "batch")]
    pub agent_status: Option<std::path::PathBuf>,
    #[command(flatten)]
    pub filter: Filter,
}

#[derive(Debug, Subcommand)]
pub enum Shard {
    /// Every server of every shard: role, replication, epoch.
    Ls,
    /// Make a replica the primary while both are well; nothing is replayed.
    Switchover(Switchover),
    /// Make a replica the primary because the primary is gone; Kafka replays what it lacks.
    Failover(Failover),
    /// Let a server follow its shard's primary again, as after a failover.
    Rebuild(Rebuild),
    /// Move groups of partitions, with the data of their environments, to another shard.
    Move(Move),
    /// Let the primary be written to again, after a change that was broken off and is not wanted.
    Unfence {
        /// The shard's name in shards.toml.
        shard: String,
    },
}

#[derive(Debug, Args)]
pub struct Switchover {
    /// The shard's name in shards.toml.
    pub shard: String,
    /// The replica, HOST:PORT as in shards.toml; the one that has most unless told.
    #[arg(long, value_name = "HOST:PORT")]
    pub to: Option<String>,
    /// Refuse if shards.toml names another primary than this.
    #[arg(long, value_name = "HOST:PORT")]
    pub expected_primary: Option<String>,
    /// How long the replica may take to have all that the primary has; else nothing changes.
    #[arg(long, default_value = "30s")]
    pub catch_up: Dur,
    /// How long consumers may take to be seen at the new primary; 0s does not wait for them.
    #[arg(long, default_value = "60s")]
    pub consumers_within: Dur,
}

#[derive(Debug, Args)]
pub struct Failover {
    #[command(flatten)]
    pub how: Switchover,
    /// You know that this primary is gone and stays so: it can't be reached to be fenced.
    #[arg(long, value_name = "HOST:PORT")]
    pub primary_is_gone: Option<String>,
    /// You accept that up to so many records, which the replica lacks and Kafka no longer holds,
    /// are lost. Their partitions are held until somebody sets their positions.
    #[arg(long, value_name = "RECORDS")]
    pub accept_loss: Option<i64>,
}

#[derive(Debug, Args)]
pub struct Rebuild {
    /// The shard's name in shards.toml.
    pub shard: String,
    /// The server that is to follow; it is added to the shard's replicas.
    #[arg(long, value_name = "HOST:PORT")]
    pub server: String,
}

#[derive(Debug, Args)]
pub struct Move {
    /// Groups as in shards.toml, like 3 or 5-7,9; `spillway where ENVIRONMENT` names an
    /// environment's.
    #[arg(long)]
    pub groups: String,
    /// The shard that takes them over.
    #[arg(long, value_name = "SHARD")]
    pub to: String,
    /// Once the groups are there: remove their rows from the shard they came from.
    #[arg(long)]
    pub clean_source: bool,
    /// How long consumers may take to be seen at the new shard; 0s does not wait for them.
    #[arg(long, default_value = "120s")]
    pub consumers_within: Dur,
}

#[derive(Debug, Subcommand)]
pub enum Maintenance {
    /// Take the lock: nobody else changes servers until you end it, and alerts keep still.
    Begin {
        /// Why; everybody who is refused is told.
        #[arg(long)]
        reason: String,
        /// After this it no longer holds anyone up.
        #[arg(long = "for", default_value = "2h")]
        lasts: Dur,
        /// Take it away from whom `maintenance show` names as owner, word for word.
        #[arg(long, value_name = "OWNER")]
        take_over_from: Option<String>,
    },
    /// Give the lock back.
    End {
        /// Although somebody else holds it.
        #[arg(long)]
        force: bool,
    },
    /// Who holds it, and why.
    Show,
}

#[derive(Debug, Subcommand)]
pub enum Ingest {
    /// Admit a share of all agents, or an environment that was paused.
    Admit(Admit),
    /// Answer an environment's senders 503 until it is admitted again; agents keep their data.
    Pause {
        /// The environment's name.
        environment: String,
    },
    /// What admission.toml says.
    Show,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = true)]
pub struct Admit {
    /// Of all agents, by hash of their id, between 0 and 1: always the same ones.
    #[arg(long)]
    pub share: Option<f64>,
    /// An environment that was paused.
    #[arg(long)]
    pub environment: Option<String>,
    /// Everyone: share 1, and no environment paused.
    #[arg(long, conflicts_with_all = ["share", "environment"])]
    pub all: bool,
}

/// What of the parked objects a command is about.
#[derive(Debug, Args)]
pub struct Objects {
    /// Objects: `spill/…` or only the 32 digits; all of them unless told.
    pub keys: Vec<String>,
    /// Objects at most, oldest first.
    #[arg(long, default_value_t = 1_000)]
    pub limit: usize,
    /// Objects a second at most.
    #[arg(long, default_value = "20")]
    pub rate: NonZeroU32,
    /// Go on behind this key, where an earlier run was ended.
    #[arg(long, value_name = "KEY")]
    pub resume_after: Option<String>,
}

/// Which objects `spill replay` puts back.
#[derive(Debug, Args)]
pub struct Replay {
    #[command(flatten)]
    pub objects: Objects,
    /// Only this environment's, as the token inside the seal says; keys_dir must have the key.
    #[arg(long)]
    pub environment: Option<String>,
    /// Only what was parked then or later, like 2026-11-22T01:30:00Z.
    #[arg(long, value_name = "TIME")]
    pub since: Option<jiff::Timestamp>,
    /// Only what was parked before.
    #[arg(long, value_name = "TIME")]
    pub until: Option<jiff::Timestamp>,
    /// Only what was set aside for this reason: one word, as in the .json beside the object, like
    /// token-unknown or unknown-key.
    #[arg(long)]
    pub reason: Option<String>,
    /// Take copies from this folder, not from quarantine: files named by the objects' 32 digits.
    #[arg(long, value_name = "DIR")]
    pub from: Option<std::path::PathBuf>,
}

#[derive(Debug, Args)]
pub struct Preflight {
    /// What is about to be stopped: HOST:PORT of a broker or a MySQL server, or a program's name
    /// in status.programs. Without it: which of all could be.
    #[arg(long = "stop", value_name = "NAME")]
    pub stop: Vec<String>,
}

#[derive(Debug, Args)]
pub struct Drill {
    /// Which; `spillway drill ls` lists them.
    pub name: String,
    /// How long a canary may take until it is readable in MySQL.
    #[arg(long, default_value = "60s")]
    pub within: Dur,
}

#[derive(Debug, Args)]
pub struct Completions {
    /// bash, zsh, fish, elvish or powershell.
    pub shell: clap_complete::Shell,
}
