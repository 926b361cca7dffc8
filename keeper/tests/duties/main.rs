//! The keeper's duties on real servers.

mod world;

mod kafka;
mod mysql;
mod redis;
mod whole;
