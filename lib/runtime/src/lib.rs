//! What every Spillway program shares: settings, the program's frame (command line, logs, signals,
//! admin server, ordered drain), and the two files that operators edit (tokens and shards).
//!
//! It knows no Kafka and no S3; MySQL is behind the feature `mysql`, so that the agent stays light.
//! Modules stand in the order in which a starting program meets them.

pub mod settings;

pub mod logging;

pub mod program;

pub mod shutdown;

pub mod admin;

pub mod open_files;

pub mod outside;

pub mod mutants;

pub mod deadline;

pub mod backoff;

pub mod pulse;

pub mod watched_file;

pub mod replace_file;

pub mod admission;

pub mod tokens;

pub mod shards;

pub mod mysql_url;

#[cfg(feature = "mysql")]
pub mod mysql;
