//! What Kafka's logs hold: first and next offset of both lanes of some partitions, asked for by a
//! client of its own, so that neither the poller nor the group waits for the answer.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rdkafka::config::FromClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use spillway_proto::kafka_record::Lane;

/// How long the brokers may take to answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// First and next offset of each log.
#[derive(Clone, Debug, Default)]
pub struct Ends {
    pub logs: BTreeMap<(Lane, u16), (i64, i64)>,
    pub cluster_id: Option<String>,
}

/// Kafka did not tell.
#[derive(Debug, thiserror::Error)]
pub enum LogEndsError {
    #[error("Kafka does not tell the ends of its logs: {0}")]
    Kafka(#[from] KafkaError),
    #[error("the question to Kafka was ended: {0}")]
    Ended(#[from] tokio::task::JoinError),
}

/// Asks for ends of logs.
#[derive(Clone)]
pub struct LogEnds {
    config: ClientConfig,
    client: Arc<Mutex<Arc<BaseConsumer>>>,
    #[cfg(feature = "mutants")]
    group: Arc<BaseConsumer>,
}

impl LogEnds {
    /// `config` is that of any client of this cluster.
    pub fn new(config: &ClientConfig) -> Result<Self, KafkaError> {
        let mut config = config.clone();
        #[cfg(feature = "mutants")]
        let group = Arc::new(BaseConsumer::from_config(&config)?);
        config.remove("group.id");
        Ok(Self {
            client: Arc::new(Mutex::new(Arc::new(BaseConsumer::from_config(&config)?))),
            config,
            #[cfg(feature = "mutants")]
            group,
        })
    }

    /// What the group committed, where it did, for the mutant that trusts it.
    #[cfg(feature = "mutants")]
    pub async fn group_offsets(&self, partition: u16, stored: [i64; 2]) -> [i64; 2] {
        let group = Arc::clone(&self.group);
        let ask = move || {
            let mut list = TopicPartitionList::new();
            for lane in Lane::ALL {
                list.add_partition(lane.topic(), i32::from(partition));
            }
            group.committed_offsets(list, ANSWER_WITHIN)
        };
        let told = tokio::task::spawn_blocking(ask).await;
        let Ok(Ok(told)) = told else { return stored };
        let mut next = stored;
        for (lane, next) in Lane::ALL.into_iter().zip(&mut next) {
            let element = told.find_partition(lane.topic(), i32::from(partition));
            if let Some(Offset::Offset(offset)) = element.map(|element| element.offset()) {
                *next = offset;
            }
        }
        next
    }

    /// The ends of both lanes of `partitions`. A log that Kafka does not know is left out.
    pub async fn of(&self, partitions: Vec<u16>) -> Result<Ends, LogEndsError> {
        let wanted = partitions.len() * Lane::ALL.len();
        let client = Arc::clone(&self.client.lock().unwrap_or_else(PoisonError::into_inner));
        let ask = move || -> Result<Ends, KafkaError> {
            let low = ask(&client, &partitions, Offset::Beginning)?;
            let high = ask(&client, &partitions, Offset::End)?;
            let both = |(place, low): (_, i64)| Some((place, (low, *high.get(&place)?)));
            let logs = low.into_iter().filter_map(both).collect();
            Ok(Ends { logs, cluster_id: client.client().fetch_cluster_id(ANSWER_WITHIN) })
        };
        let ends = tokio::task::spawn_blocking(ask).await?;
        if !ends.as_ref().is_ok_and(|ends| ends.logs.len() == wanted) {
            self.forget().await?;
        }
        Ok(ends?)
    }

    /// Takes a client that knows nothing yet. What librdkafka heard of the topics while brokers
    /// were changing it believes for up to 15 minutes (three times `metadata.max.age.ms`).
    async fn forget(&self) -> Result<(), LogEndsError> {
        let (config, client) = (self.config.clone(), Arc::clone(&self.client));
        let renew = move || -> Result<(), KafkaError> {
            let fresh = Arc::new(BaseConsumer::from_config(&config)?);
            *client.lock().unwrap_or_else(PoisonError::into_inner) = fresh;
            Ok(())
        };
        Ok(tokio::task::spawn_blocking(renew).await??)
    }
}

/// One question to each broker for all partitions at once: an offset in place of a time asks for an
/// end of the log (ListOffsets, KIP-79).
fn ask(
    client: &BaseConsumer,
    partitions: &[u16],
    end: Offset,
) -> Result<BTreeMap<(Lane, u16), i64>, KafkaError> {
    let mut list = TopicPartitionList::new();
    for lane in Lane::ALL {
        for partition in partitions {
            list.add_partition_offset(lane.topic(), i32::from(*partition), end)?;
        }
    }
    let answered = client.offsets_for_times(list, ANSWER_WITHIN)?;
    let mut ends = BTreeMap::new();
    for element in answered.elements() {
        let lane = Lane::of_topic(element.topic());
        let partition = u16::try_from(element.partition()).ok();
        if let (Some(lane), Some(partition), Offset::Offset(offset), Ok(())) =
            (lane, partition, element.offset(), element.error())
        {
            ends.insert((lane, partition), offset);
        }
    }
    Ok(ends)
}
