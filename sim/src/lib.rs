//! Deterministic simulation: the real code of agent, ingest-api and recovery-worker, on one
//! thread, in simulated time, over a network, disks, a broker and a bucket that one seed decides.
//!
//! What runs as it is in production: assembler, identity, spool, delivery; the whole of a request's
//! way through ingest-api, the publisher's joining; discover, claim, fetch, unseal, republish,
//! retire. What stands for something else: sockets and TLS, librdkafka, the S3 client, and the
//! consumer (`consumer.rs`, a plain map with the ledger's rules). docs/testing.md says what is
//! proven where; docs/adr/0006 why it is built like this.
//!
//! Modules from the ground up: dice and history, what goes wrong, the places it goes wrong in, the
//! programs, and one whole run.

#![expect(clippy::expect_used, reason = "a simulation that can't go on fails")]

pub mod chance;
pub mod history;
pub mod weather;
pub mod mutant;
pub mod oracle;
pub mod world;

pub mod machine;
pub mod broker;
pub mod bucket;
pub mod servers;
pub mod network;
pub mod agents;
pub mod consumer;

pub mod director;
pub mod run;
pub mod command;
