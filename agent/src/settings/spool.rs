//! `[spool]`: where batches wait until somebody else has them.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use spillway_runtime::settings::{Dur, Size};

/// Where the spool keeps its batches.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SpoolKind {
    /// On disk: survives a crash of agent and host.
    #[default]
    Disk,
    /// In memory, for hosts whose disk must not be touched: a restart loses what waits (the
    /// loss is counted and named).
    Memory,
}

/// Where batches wait until somebody else has them.
#[derive(Clone, Debug, Deserialize, JsonSchema, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct SpoolSettings {
    /// `disk` or `memory`.
    pub kind: SpoolKind,
    /// Where the segments lie. Empty: `spool` in the state directory.
    pub dir: Option<PathBuf>,
    /// The spool never takes more than this, at most 1 GiB. For `memory`, 64 MiB at most is used.
    pub bytes_max: Size,
    /// The spool also stops growing while the file system has less than this left, so that
    /// a customer's disk is never filled.
    pub free_space_floor: Size,
    /// Part of `bytes_max` that backlog may not use: room for live data is always there.
    pub live_reserve: Size,
    /// Size of one preallocated segment; also the least the spool takes.
    pub segment_bytes: Size,
    /// A batch that waited longer than this is given up and declared.
    pub age_max: Dur,
}

impl Default for SpoolSettings {
    fn default() -> Self {
        Self {
            kind: SpoolKind::Disk,
            dir: None,
            bytes_max: Size::mib(512),
            free_space_floor: Size::mib(512),
            live_reserve: Size::mib(64),
            segment_bytes: Size::mib(8),
            age_max: Dur::from_hours(24),
        }
    }
}
