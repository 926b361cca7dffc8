//! `spillway topics create|check`: Kafka's topics, and with them the consumer's first positions.

use spillway_proto::kafka_record::{Lane, TOPIC_DEAD_LETTERS};
use spillway_proto::limits::DEAD_LETTER_BYTES_MAX;
use spillway_publisher::check_topics;
use spillway_runtime::shards::{Shard, ShardMap};

use super::positions::{self, Misfit, Seeds};
use crate::answer::{Answer, Verdict};
use crate::cli::CreateTopics;
use crate::consent::{Consent, Plan};
use crate::desk::Desk;
use crate::failure::Failure;
use crate::reach::kafka::{AllEnds, Cluster, Shape, TOPICS};
use crate::reach::mysql::Server;

/// Copies of each partition where there are brokers enough.
const COPIES_WANTED: usize = 3;

/// Why topics are not created.
#[derive(Debug, thiserror::Error)]
pub enum TopicsProblem {
    #[error(
        "topic {topic} has {found} partitions, and shards.toml says {expected}; the number is \
         fixed for life: correct `partitions` in shards.toml, or use another Kafka"
    )]
    Partitions { topic: &'static str, found: usize, expected: u16 },
    #[error(
        "{copies} copies need {copies} brokers, and there are {brokers}; pass a smaller \
         --replication-factor or start more brokers"
    )]
    Copies { copies: i32, brokers: usize },
    #[error("--min-insync {min_insync} must be between 1 and the {copies} copies")]
    MinInsync { min_insync: i32, copies: i32 },
}

/// Creates what is missing; what is there already is only checked.
pub async fn create(desk: &Desk, options: &CreateTopics) -> Result<Answer, Failure> {
    let map = desk.shards()?;
    let kafka = desk.kafka()?;
    let cluster = kafka.look_patiently(options.wait.get()).await?;
    check_counts(&map, &cluster)?;
    let missing: Vec<&'static str> =
        TOPICS.into_iter().filter(|topic| !cluster.partitions.contains_key(topic)).collect();
    let shape = shape(options, map.partitions, cluster.brokers)?;
    let mut known_servers = Vec::new();
    for shard in &map.shards {
        let mut server = Server::connect(&desk.settings, shard).await?;
        let known = positions::read(&mut server).await?;
        positions::check_meta(shard, &known, &cluster.id)?;
        known_servers.push((shard, server, known));
    }
    // Last: what is applied in between would seem to lie beyond the ends.
    let ends = ends_of_existing(desk, &map, &cluster).await?;
    let mut servers = Vec::new();
    for (shard, server, known) in known_servers {
        let seeds = positions::seeds(&map, shard, (&known, &ends), options.from_beginning)?;
        let settled = seeds.is_empty() && known.meta.is_some_and(|(_, id)| id == cluster.id);
        servers.push((server, seeds, settled));
    }

    let steps = steps(&missing, &shape, &servers);
    let mut answer = Answer::default();
    answer.fact("kafka_cluster_id", cluster.id.clone());
    answer.fact("partitions", map.partitions).fact("created", missing.clone());
    let entry = match desk.ask(&Plan { action: "topics create", steps })? {
        Consent::Nothing(why) => {
            answer.note(why);
            return Ok(answer);
        }
        Consent::Given(entry) => entry,
    };
    let done = async {
        // Positions first: a topic without them could fill before a second run seeds it.
        for (server, seeds, _) in &mut servers {
            positions::write(server, seeds, &cluster.id).await?;
        }
        if !missing.is_empty() {
            kafka.create(missing, shape).await?;
            // Each new partition has its leader before anyone is told that it is there.
            kafka.ends(Lane::ALL.to_vec(), map.partitions).await?;
        }
        Ok::<_, Failure>(())
    };
    entry.end(done.await)?;
    let section = answer.section("seeded", &["shard", "partitions"]);
    for (server, seeds, _) in &servers {
        section.row(positions::row_of(&server.shard, seeds));
    }
    Ok(answer)
}

fn check_counts(map: &ShardMap, cluster: &Cluster) -> Result<(), TopicsProblem> {
    for (topic, found) in &cluster.partitions {
        let lane = Lane::of_topic(topic).is_some();
        if lane && *found != usize::from(map.partitions) {
            let (topic, found, expected) = (*topic, *found, map.partitions);
            return Err(TopicsProblem::Partitions { topic, found, expected });
        }
    }
    Ok(())
}

fn shape(options: &CreateTopics, partitions: u16, brokers: usize) -> Result<Shape, TopicsProblem> {
    let default = i32::try_from(brokers.clamp(1, COPIES_WANTED)).unwrap_or(1);
    let copies = options.replication_factor.unwrap_or(default);
    if copies < 1 || usize::try_from(copies).is_ok_and(|copies| copies > brokers) {
        return Err(TopicsProblem::Copies { copies, brokers });
    }
    let min_insync = options.min_insync.unwrap_or((copies - 1).max(1));
    if !(1..=copies).contains(&min_insync) {
        return Err(TopicsProblem::MinInsync { min_insync, copies });
    }
    Ok(Shape { partitions, copies, min_insync })
}

/// Topics that do not exist yet have no ends; those of an existing one are all there.
pub async fn ends_of_existing(
    desk: &Desk,
    map: &ShardMap,
    cluster: &Cluster,
) -> Result<AllEnds, Failure> {
    let there = |lane: Lane| cluster.partitions.contains_key(lane.topic());
    let lanes: Vec<Lane> = Lane::ALL.into_iter().filter(|lane| there(*lane)).collect();
    Ok(desk.kafka()?.ends(lanes, map.partitions).await?)
}

fn steps(missing: &[&str], shape: &Shape, servers: &[(Server, Seeds, bool)]) -> Vec<String> {
    let Shape { partitions, copies, min_insync } = shape;
    let create = |topic: &&str| {
        format!(
            "create topic {topic}: {partitions} partitions, {copies} copies of which {min_insync} \
             must have a record, append time, nothing expires"
        )
    };
    let mut steps: Vec<String> = missing.iter().map(create).collect();
    for (server, seeds, settled) in servers {
        let name = &server.shard.name;
        if !settled {
            steps.push(format!("seed {} positions on shard {name}", seeds.len()));
        }
    }
    steps
}

/// Topics, their properties, and every shard's positions against them.
pub async fn check(desk: &Desk) -> Result<Answer, Failure> {
    let map = desk.shards()?;
    let deadline = desk.settings.remote_deadline.get();
    check_topics(&desk.settings.kafka, map.partitions, deadline).await?;
    let cluster = desk.kafka()?.look().await?;
    // Before the topics' ends: what is applied in between would seem to lie beyond them.
    let mut all_known = Vec::new();
    for shard in &map.shards {
        let mut server = Server::connect(&desk.settings, shard).await?;
        all_known.push(positions::read(&mut server).await?);
    }
    let ends = ends_of_existing(desk, &map, &cluster).await?;
    let mut answer = Answer::default();
    answer.fact("kafka_cluster_id", cluster.id.clone()).fact("brokers", cluster.brokers);
    let mut rows = Vec::new();
    for (shard, known) in map.shards.iter().zip(&all_known) {
        let fits = check_shard(&map, shard, (known, &ends), &cluster);
        let state = match &fits {
            Ok(()) => "ok",
            Err(_) => "wrong",
        };
        rows.push(vec![shard.name.clone().into(), known.rows.len().into(), state.into()]);
        if let Err(misfit) = fits {
            answer.trouble(Verdict::Critical, misfit.to_string());
        }
    }
    let section = answer.section("shards", &["shard", "positions", "state"]);
    section.rows = rows;
    dead_letters(desk, &mut answer).await?;
    Ok(answer)
}

/// What the dead letters' topic must be: a letter is a record with its reason around it, so larger
/// than any record, and it must neither expire nor be compacted away. No program asks for this
/// before it needs it, since a lane that stands still for it would be worse.
async fn dead_letters(desk: &Desk, answer: &mut Answer) -> Result<(), Failure> {
    const NAMES: [&str; 3] = ["max.message.bytes", "retention.ms", "cleanup.policy"];
    let values = desk.kafka()?.topic_values(&NAMES).await?;
    let of = |name: &str| {
        let value = values.iter().find(|v| v.topic == TOPIC_DEAD_LETTERS && v.name == name);
        value.map(|value| value.value.clone())
    };
    let bytes = of("max.message.bytes").and_then(|text| text.parse::<usize>().ok());
    answer.fact("dead_letter_bytes", bytes);
    if bytes.is_some_and(|bytes| bytes < DEAD_LETTER_BYTES_MAX) {
        let text = format!(
            "{TOPIC_DEAD_LETTERS} takes {} bytes a record, and a dead letter may have \
             {DEAD_LETTER_BYTES_MAX}: a partition would be held at the first large one. Set \
             max.message.bytes of the topic",
            bytes.unwrap_or_default()
        );
        answer.trouble(Verdict::Critical, text);
    }
    for (name, must) in [("retention.ms", "-1"), ("cleanup.policy", "delete")] {
        if let Some(found) = of(name).filter(|found| found != must) {
            let text = format!(
                "{TOPIC_DEAD_LETTERS} has {name}={found}, and must have {must}: dead letters would \
                 vanish unread"
            );
            answer.trouble(Verdict::Warning, text);
        }
    }
    Ok(())
}

/// Every partition has its position, of this shard and this cluster, inside the topic.
pub fn check_shard(
    map: &ShardMap,
    shard: &Shard,
    (known, ends): (&positions::Known, &AllEnds),
    cluster: &Cluster,
) -> Result<(), CheckMisfit> {
    positions::check_meta(shard, known, &cluster.id)?;
    let missing = positions::seeds(map, shard, (known, ends), false)?;
    match missing.len() {
        0 => Ok(()),
        partitions => Err(CheckMisfit::NotSeeded { shard: shard.name.clone(), partitions }),
    }
}

/// What `topics check` finds wrong with one shard.
#[derive(Debug, thiserror::Error)]
pub enum CheckMisfit {
    #[error(transparent)]
    Misfit(#[from] Misfit),
    #[error(
        "shard {shard} has no position for {partitions} partitions; run `spillway topics create`"
    )]
    NotSeeded { shard: String, partitions: usize },
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(copies: Option<i32>, min_insync: Option<i32>) -> CreateTopics {
        CreateTopics {
            replication_factor: copies,
            min_insync,
            from_beginning: false,
            wait: spillway_runtime::settings::Dur::from_secs(0),
        }
    }

    #[test]
    fn three_copies_of_which_two_must_have_a_record_unless_brokers_are_few() {
        let of = |brokers| shape(&options(None, None), 64, brokers).unwrap();
        assert_eq!((of(5).copies, of(5).min_insync), (3, 2));
        assert_eq!((of(2).copies, of(2).min_insync), (2, 1));
        assert_eq!((of(1).copies, of(1).min_insync), (1, 1));
    }

    #[test]
    fn impossible_copies_are_refused_with_what_to_do() {
        let error = shape(&options(Some(3), None), 64, 1).unwrap_err().to_string();
        assert!(error.contains("3 copies need 3 brokers, and there are 1"), "{error}");
        assert!(shape(&options(Some(0), None), 64, 1).is_err());
        assert!(shape(&options(Some(3), Some(4)), 64, 3).is_err());
    }
}
