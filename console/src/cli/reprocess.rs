//! What is asked of the console when data is to be made again.

use clap::{Args, Subcommand};
use jiff::Timestamp;
use spillway_runtime::settings::Dur;

#[derive(Debug, Subcommand)]
pub enum Reprocess {
    /// Make points again from what Kafka still has; restore rows that are missing or differ.
    Raw(ReprocessRaw),
    /// Hold rollups against their points; have those made again that differ.
    Rollups(Stretch),
}

/// Which time of which shard.
#[derive(Debug, Args)]
pub struct Stretch {
    /// The shard's name in shards.toml.
    #[arg(long)]
    pub shard: String,
    /// From this time on, as in 2026-11-22T01:00:00Z.
    #[arg(long, value_name = "TIME")]
    pub from: Timestamp,
    /// Up to this time; now, unless told.
    #[arg(long, value_name = "TIME")]
    pub to: Option<Timestamp>,
}

#[derive(Debug, Args)]
pub struct ReprocessRaw {
    #[command(flatten)]
    pub stretch: Stretch,
    /// Only this environment.
    #[arg(long)]
    pub environment: Option<String>,
    /// Go on at this partition, where an earlier run was ended.
    #[arg(long, value_name = "PARTITION")]
    pub from_partition: Option<u16>,
    /// The consumer's `store.future_max`: how far before its own time a point may have come.
    #[arg(long, default_value = "1h")]
    pub future_max: Dur,
}
