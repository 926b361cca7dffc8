//! ingest-api's promises, each test against the whole program in this process and librdkafka's
//! mock of a Kafka cluster; requests are written byte by byte, as no well-behaved client would.

#![expect(clippy::unwrap_used, reason = "a test that can't be set up has failed")]
#![expect(clippy::indexing_slicing, reason = "an answer without its field is a failed test")]

mod stage;

mod acknowledged;

mod kafka_away;

mod leader_moves;

mod damaged;

mod tokens;

mod bounds;

mod admission;

mod drained;

mod books;

mod tls;

mod foreign;

mod openapi;
