//! Row 27, Telegraf: both of its outputs for InfluxDB while Kafka is away and ingest-api is killed,
//! held against the file that it writes beside them.

use std::collections::BTreeMap;
use std::fs;

use spillway_e2e::rig::{Rig, SETTLED_WITHIN};
use spillway_testkit::stack::StackOptions;

use crate::foreign::target::{SERIES, Target};
use crate::foreign::{
    FLUSH_WITHIN, docs, each_scrape_is_there_once, faults, file, home, start, stop, stored, tools,
};
use crate::sending::until;

/// Both blocks of docs/clients.md, each under a name of its own, and a file of what it measured.
fn config(rig: &Rig, target: &Target) -> String {
    let own = home(rig, "telegraf").join("own.influx").display().to_string();
    let (v2, v1) = (docs::block(rig, "Telegraf", 0), docs::block(rig, "Telegraf", 1));
    // A block ends within its output's table.
    format!(
        "{v2}  name_suffix = \"_v2\"\n{v1}  name_suffix = \"_v1\"\n\
         [[outputs.file]]\n  files = [\"{own}\"]\n  data_format = \"influx\"\n\
         [[inputs.prometheus]]\n  urls = [\"http://{}/\"]\n  interval = \"1s\"\n  \
         metric_version = 2\n",
        target.address
    )
}

/// Time in ms and value of each point of each series, as Telegraf wrote them down.
fn own(rig: &Rig) -> BTreeMap<String, Vec<(i64, f64)>> {
    let file = home(rig, "telegraf").join("own.influx");
    let lines = fs::read_to_string(file).expect("what Telegraf wrote");
    let mut own = BTreeMap::<String, Vec<(i64, f64)>>::new();
    for line in lines.lines() {
        let (tags, rest) = line.split_once(' ').expect("tags");
        let (fields, time) = rest.rsplit_once(' ').expect("a time");
        let n = tags.split(',').find_map(|tag| tag.strip_prefix("n="));
        let value = fields.split(',').find_map(|field| field.strip_prefix("drill_series="));
        if let (Some(n), Some(value)) = (n, value) {
            let time: i64 = time.parse().expect("nanoseconds");
            let point = (time.div_euclid(1_000_000), value.parse().expect("a number"));
            own.entry(n.to_owned()).or_default().push(point);
        }
    }
    own.values_mut().for_each(|points| points.sort_by_key(|point| point.0));
    own
}

#[tokio::test(flavor = "multi_thread")]
async fn what_telegraf_measured_is_in_mysql_by_both_of_its_outputs() {
    let program = tools::telegraf().await;
    let rig = Rig::start(StackOptions::default()).await;
    let target = Target::listen().await;
    let config = file(&rig, "telegraf", "telegraf.conf", &config(&rig, &target));
    let client = start(&rig, "telegraf", &program, &["--config", &config]);
    faults(&rig, &target).await;
    let scraped = target.served() - 1;
    let metrics = ["prometheus_v1_drill_series", "prometheus_v2_drill_series"];
    for metric in metrics {
        // It has tried again all that was refused before it is told to end.
        each_scrape_is_there_once(&rig, metric, 0, scraped).await;
    }
    stop(&client, FLUSH_WITHIN).await;
    let own = own(&rig);
    assert_eq!(own.len() as u64, SERIES);
    for (n, points) in own {
        for metric in metrics {
            let all = async || stored(&rig, metric, &n).await.len() >= points.len();
            until("MySQL has what Telegraf has", SETTLED_WITHIN, all).await;
            assert_eq!(stored(&rig, metric, &n).await, points, "{metric} {n}");
        }
        if n == "0" {
            eprintln!("{} points of each of {SERIES} series, by both outputs", points.len());
        }
    }
}
