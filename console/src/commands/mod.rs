//! One file per command; each ends in an `Answer` or one clear sentence.

pub mod topics;
pub mod positions;
pub mod migrate;

pub mod keys;
pub mod token;
pub mod reader;
pub mod locate;

pub mod views;
pub mod lag;
pub mod gaps;
pub mod ledger;
pub mod trace;
pub mod spill;
pub mod dead_letters;

pub mod maintenance;
pub mod ingest;
pub mod shard;
pub mod reprocess;

pub mod preflight;
pub mod doctor;
pub mod check;
pub mod incident;
pub mod drill;
