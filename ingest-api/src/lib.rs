//! ingest-api: HTTP in, Kafka out. A sender hears 2xx only when Kafka has every batch.
//!
//! At run time it depends on Kafka and nothing else. Modules in travel order: a request is
//! accepted (`http`), admitted, authenticated, verified, published, answered (`http::respond`).

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::indexing_slicing))]

pub mod settings;

pub mod metrics;

pub mod mutant;

pub mod http;

pub mod admit;

pub mod authenticate;

pub mod verify;

pub mod publish;

pub mod app;
