//! ingest-api: HTTP in, Kafka out. A sender hears 2xx only when Kafka has every batch.
//!
//! At run time it depends on Kafka and nothing else. Modules in travel order: a request is
//! accepted (`http`), admitted, authenticated, verified, published, answered (`http::respond`). A
//! foreign body is unpacked, read (`wire`, `json`, `http::{remote_write,otlp,influx,datadog}`) and
//! cut into batches before it is verified.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::indexing_slicing))]

pub mod settings;

pub mod metrics;
pub mod books;

pub mod mutant;

pub mod http;

pub mod admit;

pub mod authenticate;

pub mod quota;

pub mod unpack;

pub mod wire;

pub mod json;

pub mod histogram;

pub mod cut;

pub mod verify;

pub mod publish;

pub mod app;
