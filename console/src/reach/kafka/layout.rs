//! How topics lie on brokers, and the values that decide what they keep.

use rdkafka::admin::{AdminClient, AdminOptions, OwnedResourceSpecifier, ResourceSpecifier};
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::consumer::Consumer;

use super::{Kafka, KafkaFault, Quiet, TOPICS};

/// Every copy of every partition of our topics.
#[derive(Debug, Clone, Default)]
pub struct Layout {
    /// id and host:port, by id.
    pub brokers: Vec<(i32, String)>,
    pub partitions: Vec<PartitionCopies>,
}

/// Where one partition's copies are, and which of them are in sync.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionCopies {
    pub topic: String,
    pub partition: i32,
    pub copies: Vec<i32>,
    pub in_sync: Vec<i32>,
}

/// One setting of one topic, as the brokers have it in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicValue {
    pub topic: String,
    pub name: String,
    pub value: String,
}

impl Kafka {
    /// Where everything lies now.
    pub async fn layout(&self) -> Result<Layout, KafkaFault> {
        self.visit(|own| {
            let consumer = own.consumer()?;
            let metadata = consumer.fetch_metadata(None, own.deadline);
            let metadata = metadata.map_err(|cause| own.unreachable(cause))?;
            let broker = |b: &rdkafka::metadata::MetadataBroker| {
                (b.id(), format!("{}:{}", b.host(), b.port()))
            };
            let mut layout = Layout {
                brokers: metadata.brokers().iter().map(broker).collect(),
                partitions: Vec::new(),
            };
            layout.brokers.sort_unstable();
            let ours = metadata.topics().iter().filter(|topic| TOPICS.contains(&topic.name()));
            for topic in ours {
                layout.partitions.extend(topic.partitions().iter().map(|p| PartitionCopies {
                    topic: topic.name().to_owned(),
                    partition: p.id(),
                    copies: p.replicas().to_vec(),
                    in_sync: p.isr().to_vec(),
                }));
            }
            Ok(layout)
        })
        .await
    }

    /// These settings of all our topics.
    pub async fn topic_values(
        &self,
        names: &'static [&'static str],
    ) -> Result<Vec<TopicValue>, KafkaFault> {
        let runtime = tokio::runtime::Handle::current();
        self.visit(move |own| {
            let admin = AdminClient::from_config_and_context(&own.config, Quiet);
            let admin = admin.map_err(KafkaFault::Client)?;
            let topics = TOPICS.map(ResourceSpecifier::Topic);
            let options = AdminOptions::new().request_timeout(Some(own.deadline));
            let found = runtime.block_on(admin.describe_configs(&topics, &options));
            let found = found.map_err(|cause| own.unreachable(cause))?;
            let mut values = Vec::new();
            for resource in found.iter().flatten() {
                let OwnedResourceSpecifier::Topic(topic) = &resource.specifier else { continue };
                for name in names {
                    let value = resource.get(name).and_then(|entry| entry.value.clone());
                    let (topic, name) = (topic.clone(), (*name).to_owned());
                    values.extend(value.map(|value| TopicValue { topic, name, value }));
                }
            }
            Ok(values)
        })
        .await
    }
}
