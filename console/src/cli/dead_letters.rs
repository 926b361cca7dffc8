//! What is asked of the console about records that could not be applied.

use std::num::NonZeroU32;

use clap::{Args, Subcommand};

#[derive(Debug, Subcommand)]
pub enum DeadLetters {
    /// Count dead letters by reason and environment, and show the newest.
    ///
    /// Reads the whole topic, from the first letter that Kafka still has to its end as of now.
    /// A letter stays there after a replay too: what is still missing, `spillway gaps` tells.
    Ls(ListLetters),
    /// Publish the batches of dead letters once more, once the cause is mended.
    ///
    /// Each batch goes to spillway.backlog, in its right partition, as the recovery worker would
    /// publish it; the consumer applies it and its gap closes. A batch that lies there several
    /// times goes once. What is no batch, or lies about whose it is, is counted as not replayable
    /// and left. Letters stay in the topic, and nothing notes what was replayed: doing it again is
    /// harmless, since the ledger knows each batch by its id and counts it as a duplicate. What
    /// the consumer still refuses comes back as a new letter; so mend the cause first.
    Replay(ReplayLetters),
}

/// Which letters a command is about.
#[derive(Debug, Args)]
pub struct Letters {
    /// Only those set aside for this reason: one word, as `dead-letters ls` shows it, like
    /// future-time or too-many-series.
    #[arg(long)]
    pub reason: Option<String>,
    /// Only those of this environment, as the record was accepted.
    #[arg(long)]
    pub environment: Option<String>,
}

#[derive(Debug, Args)]
pub struct ListLetters {
    #[command(flatten)]
    pub letters: Letters,
    /// Rows of the newest at most; the counts are of all.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(..=10_000))]
    pub limit: u32,
}

#[derive(Debug, Args)]
pub struct ReplayLetters {
    #[command(flatten)]
    pub letters: Letters,
    /// Only this batch: AGENT/EPOCH/SEQ, or content/HASH.
    #[arg(long, value_name = "ID")]
    pub batch: Option<String>,
    /// Batches a second at most; more than 1000 are not told apart.
    #[arg(long, default_value = "200")]
    pub rate: NonZeroU32,
}
