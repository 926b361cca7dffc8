//! The whole pipeline on real servers, each test named after the promise it holds the system to,
//! each file after what breaks. Every test ends with the comparison of L1–L4 and L8.
//!
//! One binary, run with `--test-threads=2`: each test has a stack of its own, on two cores.

#![expect(clippy::expect_used, reason = "a test that can't go on fails")]

mod agent_killed;
mod api_killed;
mod consumer_killed;
mod drained_twice;
mod everything_well;
mod inputs;
mod kafka_down;
mod lost_ack;
mod mysql_killed;
mod operated;
mod poison;
mod redis_gone;
mod replica_status;
mod reprocessed;
mod shard_down;
