//! What shards.toml promises: each group exactly one shard, epochs only rise, groups do not move.

use super::*;

fn file(shards: &[(&str, &str, u32)]) -> String {
    let rows = shards.iter().map(|(name, groups, epoch)| {
        format!(
            "[[shard]]\nname = \"{name}\"\nprimary = \"mysql://root:pw@127.0.0.1:3306\"\n\
             groups = \"{groups}\"\nepoch = {epoch}\n"
        )
    });
    format!("partitions = 64\ngroup = 4\n{}", rows.collect::<String>())
}

fn refusal(shards: &[(&str, &str, u32)]) -> String {
    ShardMap::parse(&file(shards)).unwrap_err().to_string()
}

#[test]
fn every_partition_and_environment_has_exactly_one_shard() {
    let map = ShardMap::parse(&file(&[("s0", "0-3,8", 1), ("s1", "4-7,9-15", 2)])).unwrap();
    let mut all: Vec<u16> = map.shards.iter().flat_map(|s| map.partitions_of(s)).collect();
    all.sort_unstable();
    assert_eq!(all, (0..64).collect::<Vec<_>>());
    assert_eq!(map.shard_of_partition(35).unwrap().name, "s0");
    assert_eq!(map.shard_of_partition(36).unwrap().name, "s1");
    assert!(map.shard_of_partition(64).is_none());
    let partitioning = map.partitioning().unwrap();
    for environment in ["demo", "acme", "globex"] {
        let partition = partitioning.partition_of(environment, "web-1");
        let by_partition = map.shard_of_partition(partition).unwrap();
        assert_eq!(map.shard_of_environment(environment), Some(by_partition));
    }
}

#[test]
fn a_group_without_shard_or_with_two_is_refused_by_number() {
    assert!(refusal(&[("s0", "0-7", 1)]).contains("group 8 has no shard"));
    let twice = refusal(&[("s0", "0-15", 1), ("s1", "15", 1)]);
    assert!(twice.contains("group 15 has several shards: s0, s1"), "{twice}");
    assert!(refusal(&[]).contains("group 0 has no shard"));
}

#[test]
fn wrong_ranges_and_names_are_refused_in_clear_words() {
    assert!(refusal(&[("s0", "0-16", 1)]).contains("goes past the last group, 15"));
    assert!(refusal(&[("s0", "zero", 1)]).contains("is no range; write it like"));
    assert!(refusal(&[("s0", "5-3", 1)]).contains("is no range"));
    assert!(refusal(&[("s0", "0-15,3", 1)]).contains("names a group twice"));
    assert!(refusal(&[("s 0", "0-15", 1)]).contains("a-z, 0-9"));
    assert!(refusal(&[("s0", "0-15", 1), ("s0", "", 1)]).contains("the name is there twice"));
    let uneven = ShardMap::parse("partitions = 64\ngroup = 5").unwrap_err().to_string();
    assert!(uneven.contains("cannot be cut into groups"), "{uneven}");
    let unknown = ShardMap::parse("partitions = 64\ngroup = 4\nshards = []").unwrap_err();
    assert!(unknown.to_string().contains("unknown field `shards`"), "{unknown}");
}

#[test]
fn a_damaged_address_is_refused_without_showing_its_password() {
    let text = file(&[("s0", "0-15", 1)]).replace("127.0.0.1:3306", "127.0.0.1:port");
    let error = ShardMap::parse(&text).unwrap_err().to_string();
    assert!(error.contains("the port is no number"), "{error}");
}

#[test]
fn an_epoch_may_rise_and_never_goes_down() {
    let map = |epoch| ShardMap::parse(&file(&[("s0", "0-15", epoch)])).unwrap();
    assert!(map(1).refuses(&map(2)).is_ok());
    assert!(map(2).refuses(&map(2)).is_ok());
    let error = map(2).refuses(&map(1)).unwrap_err().to_string();
    assert!(error.contains("the epoch goes down from 2 to 1"), "{error}");
}

#[test]
fn groups_do_not_move_and_the_sizes_are_fixed() {
    let before = ShardMap::parse(&file(&[("s0", "0-7", 1), ("s1", "8-15", 1)])).unwrap();
    let moved = ShardMap::parse(&file(&[("s0", "0-8", 1), ("s1", "9-15", 1)])).unwrap();
    let error = before.refuses(&moved).unwrap_err().to_string();
    assert!(error.contains("only `spillway shard move`"), "{error}");
    let renamed = ShardMap::parse(&file(&[("s0", "0-7", 1), ("s2", "8-15", 1)])).unwrap();
    assert!(before.refuses(&renamed).is_err());
    let empty = [("s0", "0-7", 1), ("s1", "8-15", 1), ("s2", "", 1)];
    assert!(before.refuses(&ShardMap::parse(&file(&empty)).unwrap()).is_ok());
    let fewer = file(&[("s0", "0-7", 1)]).replace("partitions = 64", "partitions = 32");
    let error = before.refuses(&ShardMap::parse(&fewer).unwrap()).unwrap_err();
    assert!(error.to_string().contains("fixed for life"), "{error}");
}

#[test]
fn groups_move_only_where_the_epochs_of_both_shards_rose() {
    let map = |shards: &[(&str, &str, u32)]| ShardMap::parse(&file(shards)).unwrap();
    let before = map(&[("s0", "0-7", 1), ("s1", "8-13", 4), ("s2", "14-15", 1)]);
    let taken = |epochs: [u32; 3]| {
        let [first, second, third] = epochs;
        let new = map(&[("s0", "0-6", first), ("s1", "7-13", second), ("s2", "14-15", third)]);
        before.refuses(&new)
    };
    assert!(taken([2, 5, 1]).is_ok());
    for epochs in [[1, 4, 1], [2, 4, 1], [1, 5, 1], [1, 5, 2], [2, 3, 1]] {
        assert!(taken(epochs).is_err(), "{epochs:?}");
    }
    assert!(!before.places_alike(&map(&[("s0", "0-6", 2), ("s1", "7-13", 5), ("s2", "14-15", 1)])));
    let failed_over = map(&[("s0", "0-7", 2), ("s1", "8-13", 4), ("s2", "14-15", 1)]);
    assert!(before.places_alike(&failed_over));
    let stranger = map(&[("s0", "0-6", 2), ("s1", "8-13", 5), ("s2", "14-15", 2), ("s3", "7", 9)]);
    assert!(before.refuses(&stranger).is_err(), "it was no shard of the file before");
}

#[test]
fn groups_are_written_as_they_are_read() {
    for text in ["0-3,8", "0", "", "1,3,5-15", "0-1"] {
        assert_eq!(written(&expand(text, 16).unwrap()), text);
    }
}

#[tokio::test(start_paused = true)]
async fn a_running_program_takes_a_risen_epoch_and_refuses_a_fallen_one() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("shards.toml");
    let (reload, receiver) = watch::channel(0);
    assert!(ShardFile::watch(&path, receiver.clone()).is_err(), "none at all");
    let epoch = |epoch| file(&[("s0", "0-15", epoch)]);
    std::fs::write(&path, epoch(3)).unwrap();
    let shards = ShardFile::watch(&path, receiver).unwrap();
    for (written, in_force) in [(4, 4), (2, 4), (5, 5)] {
        std::fs::write(&path, epoch(written)).unwrap();
        reload.send_modify(|n| *n += 1);
        tokio::time::sleep(2 * watched_file::LOOK_EVERY).await;
        assert_eq!(shards.current().shards[0].epoch, in_force);
        assert_eq!(shards.last_error().is_some(), written != in_force);
    }
}
