//! Batches as agents make them.

use spillway_proto::kafka_record::Lane;
use spillway_proto::{Batch, BatchId, Kind, Point, Series};
use uuid::Uuid;

use super::site::Site;

/// One agent's counting.
pub struct Agent {
    pub agent_id: Uuid,
    pub epoch: Uuid,
    pub environment: String,
    pub host: String,
    /// Where its windows begin: the same seq is the same batch however long a test takes.
    pub base_ts: u32,
}

/// A window a minute ago: neither old nor in the future.
pub fn recent_window() -> u32 {
    let now = jiff::Timestamp::now().as_second() - 60;
    u32::try_from(now / 10 * 10).unwrap()
}

impl Agent {
    pub fn new(environment: &str, host: &str) -> Self {
        Self {
            agent_id: Uuid::new_v4(),
            epoch: Uuid::now_v7(),
            environment: environment.to_owned(),
            host: host.to_owned(),
            base_ts: recent_window() - 600,
        }
    }

    /// The batch with this seq: `values` at one-second steps in one series, in a window of its own.
    pub fn batch(&self, seq: u64, values: &[f64]) -> Batch {
        let window_ts = self.base_ts + u32::try_from(seq % 60).unwrap() * 10;
        let ts_ms = |at: usize| i64::from(window_ts) * 1_000 + i64::try_from(at).unwrap() * 1_000;
        let points = values.iter().enumerate();
        Batch {
            id: BatchId::Sequenced { agent_id: self.agent_id, epoch: self.epoch, seq },
            environment: self.environment.clone(),
            host: self.host.clone(),
            window_ts,
            series: vec![Series {
                metric: "requests".into(),
                labels: vec![("code".into(), "200".into())],
                kind: Kind::Delta,
                unit: "1".into(),
                points: points
                    .map(|(at, value)| Point { ts_ms: ts_ms(at), value: *value })
                    .collect(),
            }],
            previous: None,
            declarations: vec![],
            closing: false,
            host_info: None,
        }
    }

    /// Publishes seqs, three points each.
    pub fn publish(&self, site: &Site, lane: Lane, seqs: impl IntoIterator<Item = u64>) {
        for seq in seqs {
            site.publish(lane, &self.batch(seq, &[seq as f64, 1.0, 2.0]));
        }
    }
}
