//! Foreign senders: each rule of docs/clients.md and of the protocols' own specifications.

mod datadog;

mod far_ahead;

mod influx;

mod mutated;

mod otlp;

mod protobuf;

mod remote_write;

mod remote_write_rules;

mod shared_rules;

use std::collections::BTreeMap;

use rdkafka::Message;
use spillway_proto::frame::Decoder;
use spillway_proto::kafka_record::TOPIC_LIVE;
use spillway_proto::{Batch, Kind};

use crate::stage::{Reply, Stage, request};

/// What Kafka has of one series: labels as `a=b,c=d`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Name {
    pub host: String,
    pub metric: String,
    pub labels: String,
}

pub fn name(host: &str, metric: &str, labels: &str) -> Name {
    Name { host: host.to_owned(), metric: metric.to_owned(), labels: labels.to_owned() }
}

impl Stage {
    /// `POST` with the stage's token, on a connection of its own.
    pub async fn send(&self, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Reply {
        let token = format!("Bearer {}", self.token);
        let all = [&[("Authorization", token.as_str())], headers].concat();
        self.ask("POST", path, &all, body).await
    }

    pub async fn ask(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Reply {
        let length = body.len().to_string();
        let all = [&[("Content-Length", length.as_str())], headers].concat();
        let mut client = self.connect().await;
        client.write(&request(method, path, &all, body)).await;
        client.reply().await
    }

    /// All batches in Kafka.
    pub fn batches(&self) -> Vec<Batch> {
        let mut decoder = Decoder::new();
        let records = self.records(TOPIC_LIVE);
        let batch = |payload: &[u8]| decoder.decode(payload).unwrap().to_batch();
        records.iter().map(|record| record.payload().unwrap()).map(batch).collect()
    }

    /// All points in Kafka, a later one in place of an earlier one of the same time.
    pub fn points(&self) -> BTreeMap<(Name, i64), f64> {
        let mut points = BTreeMap::new();
        for batch in self.batches() {
            assert_eq!(batch.environment, "demo");
            for series in &batch.series {
                let labels = series.labels.iter().map(|(name, value)| format!("{name}={value}"));
                let labels: Vec<String> = labels.collect();
                let name = name(&batch.host, &series.metric, &labels.join(","));
                for point in &series.points {
                    points.insert((name.clone(), point.ts_ms), point.value);
                }
            }
        }
        points
    }

    /// The kind of each metric in Kafka.
    pub fn kinds(&self) -> BTreeMap<String, Kind> {
        let batches = self.batches();
        let series = batches.iter().flat_map(|batch| &batch.series);
        series.map(|series| (series.metric.clone(), series.kind)).collect()
    }
}
