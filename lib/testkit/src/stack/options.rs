//! What a stack consists of. The defaults are the smallest one that carries a batch from end to end.

use std::path::PathBuf;

use crate::progress::Progress;

/// The environments that exist from the start, in every stack.
pub const ENVIRONMENTS: [&str; 3] = ["demo", "acme", "globex"];

#[derive(Debug, Clone)]
pub struct StackOptions {
    /// 1, or 3 with topics replicated three times and two acknowledgements.
    pub brokers: u16,
    pub shards: u16,
    /// Replicas of each shard.
    pub replicas: u16,
    /// Everything the stack writes. `None`: a temporary folder that goes with the stack, but stays
    /// when the test panics.
    pub dir: Option<PathBuf>,
    /// Kafka, MySQL, Redis and S3 only: no topics, no schema, no programs.
    pub servers_only: bool,
    /// Lets `spill/` objects in without a signature.
    pub s3_unsigned_put: bool,
    pub progress: Progress,
}

impl Default for StackOptions {
    fn default() -> Self {
        Self {
            brokers: 1,
            shards: 1,
            replicas: 0,
            dir: None,
            servers_only: false,
            s3_unsigned_put: false,
            progress: Progress::silent(),
        }
    }
}
