//! The model of a consumer: a plain map in the place of MySQL, with the ledger's rules. Offsets
//! lie in the same transaction as what they stand for; the group's are committed afterwards. It is
//! killed before and after a commit. The real consumer's SQL runs on real servers alone (`e2e/`).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use spillway_proto::frame::{Decoder, Header};
use spillway_proto::kafka_record::Lane;

use crate::broker::Broker;
use crate::chance;
use crate::mutant::Mutant;
use crate::weather::Fault;
use crate::world::{PARTITIONS, World};

/// Records of one transaction.
const RECORDS_MAX: usize = 16;

/// The consumer and its database.
pub struct Consumer {
    world: Arc<World>,
    broker: Arc<Broker>,
    /// Offsets as MySQL has them.
    positions: BTreeMap<(Lane, u16), usize>,
    decoder: Decoder,
    /// Set to have it killed at its next transaction.
    pub kill: Arc<AtomicBool>,
}

impl Consumer {
    #[must_use]
    pub fn new(world: &Arc<World>, broker: &Arc<Broker>) -> Self {
        Self {
            world: Arc::clone(world),
            broker: Arc::clone(broker),
            positions: BTreeMap::new(),
            decoder: Decoder::new(),
            kill: Arc::default(),
        }
    }

    /// Applies for ever.
    pub async fn run(mut self) {
        loop {
            tokio::time::sleep(chance::ms(100, 1_200)).await;
            let weather = &self.world.weather;
            if weather.is_on(Fault::BrokerDown) || weather.is_on(Fault::ConsumersAway) {
                continue;
            }
            for partition in 0..PARTITIONS {
                for lane in Lane::ALL {
                    self.transaction(lane, partition).await;
                }
            }
        }
    }

    async fn transaction(&mut self, lane: Lane, partition: u16) {
        let next = self.positions.get(&(lane, partition)).copied().unwrap_or_default();
        let records = self.broker.read(lane, partition, next, RECORDS_MAX);
        if records.is_empty() {
            // Also when idle, as the real one.
            return self.broker.commit(lane, partition, next);
        }
        let killed = self.kill.swap(false, Ordering::Relaxed);
        if killed && chance::percent(50) {
            crate::note!(self.world.history, "consumer: killed before COMMIT");
            tokio::time::sleep(chance::ms(500, 5_000)).await;
            return;
        }
        let next = next + records.len();
        for record in &records {
            self.apply(record);
        }
        self.positions.insert((lane, partition), next);
        let (count, lane_name) = (records.len(), lane.as_str());
        crate::note!(self.world.history, "consumer: {count} of {lane_name}/{partition} to {next}");
        if killed {
            crate::note!(self.world.history, "consumer: killed after COMMIT");
            tokio::time::sleep(chance::ms(500, 5_000)).await;
            return;
        }
        self.broker.commit(lane, partition, next);
    }

    fn apply(&mut self, record: &[u8]) {
        let header = Header::parse(record);
        let (Ok(header), Ok(view)) = (header, self.decoder.decode(record)) else {
            return self.world.violate("a record is poison".to_owned());
        };
        let mut batch = view.to_batch();
        if self.world.mutant == Some(Mutant::Undeclared) {
            batch.declarations.clear();
        }
        let again = self.world.mutant == Some(Mutant::AppliesTwice);
        let mut oracle = self.world.oracle();
        oracle.saw(&header);
        oracle.apply(&batch, header.crc, again);
    }
}
