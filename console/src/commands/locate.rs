//! `spillway where ENVIRONMENT`: its shard, its partitions, and where its data is read.

use spillway_proto::frame::is_environment_name;

use crate::answer::Answer;
use crate::desk::Desk;
use crate::failure::{Failure, UsageError};

/// Answers from shards.toml alone, so it works while everything is down.
pub fn run(desk: &Desk, environment: &str) -> Result<Answer, Failure> {
    if !is_environment_name(environment) {
        let text = format!("{environment:?} can't be an environment's name");
        return Err(UsageError(text).into());
    }
    let map = desk.shards()?;
    let (Some(partitioning), Some(shard)) =
        (map.partitioning(), map.shard_of_environment(environment))
    else {
        return Err(UsageError("shards.toml has no shard for it".to_owned()).into());
    };
    let group = partitioning.group_of(environment);
    let first = group * map.group;
    let partitions: Vec<u16> = (first..first + map.group).collect();
    // Where, not as whom: a reader's address comes from `spillway reader create`.
    let place = |url: &spillway_runtime::mysql_url::MysqlUrl| {
        let mut url = url.clone();
        (url.user, url.password) = (None, spillway_runtime::settings::Secret::default());
        format!("{url}/spillway")
    };
    let replicas: Vec<String> = shard.replicas.iter().map(|replica| place(&replica.url)).collect();
    let mut answer = Answer::default();
    answer
        .fact("environment", environment)
        .fact("shard", shard.name.clone())
        .fact("epoch", shard.epoch)
        .fact("group", group)
        .fact("partitions", partitions)
        .fact("primary", place(&shard.primary))
        .fact("replicas", replicas)
        .note(format!(
            "A login for dashboards: spillway reader create --environment {environment}"
        ));
    Ok(answer)
}
