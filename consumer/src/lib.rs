//! The consumer: from Kafka into MySQL, where each record's rows, ledger and offset enter in one
//! transaction, so that nothing is lost and nothing counts twice.
//!
//! Modules stand in the order in which a record meets them.
#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::indexing_slicing,
        reason = "a test that cannot go on should say where"
    )
)]

pub mod settings;
pub mod metrics;
pub mod books;
pub mod failpoint;
pub mod mutant;
pub mod migrations;

pub mod claim;
pub mod log_ends;
pub mod group;
pub mod sources;
pub mod stalls;
pub mod witness;
pub mod poller;
pub mod receive;

pub mod verify;
pub mod gather;

pub mod store;
pub mod commit;
pub mod quarantine;
pub mod last_seen;

pub mod worker;
pub mod app;
