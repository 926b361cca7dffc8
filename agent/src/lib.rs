//! The agent: measures a host, keeps what it measured, and hands it on.
//!
//! Modules in the order a measurement travels. What may be forgotten where, and why, is in
//! ARCHITECTURE.md; the agent knows HTTP and S3, never Kafka.

pub mod settings;

pub mod metrics;

pub mod mutant;

pub mod clock;

pub mod durable;
pub mod folder;

pub mod credential;

pub mod collect;

pub mod assemble;

pub mod identity;

pub mod spool;

pub mod deliver;

pub mod app;

pub mod cli;

pub mod convert;

pub mod status;

pub mod doctor;
