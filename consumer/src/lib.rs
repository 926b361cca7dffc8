//! Kafka to MySQL.

pub mod store;

pub mod migrations;
