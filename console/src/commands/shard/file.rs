//! shards.toml with another primary: one shard's lines change, every other byte stays as it was.

use std::path::{Path, PathBuf};

use spillway_runtime::mysql_url::MysqlUrl;
use spillway_runtime::replace_file::replace;
use spillway_runtime::shards::{ShardMap, ShardsError, written};
use toml_edit::{Array, DocumentMut, InlineTable, Item, Table, TableLike, Value};

use super::same;

/// Addresses may hold passwords.
const NEW_MODE: u32 = 0o640;

/// Why the file is not changed.
#[derive(Debug, thiserror::Error)]
pub enum FileFault {
    #[error("{} can't be read or written: {cause}", path.display())]
    File { path: PathBuf, cause: std::io::Error },
    #[error("shards.toml can't be read: {0}")]
    Toml(#[from] toml_edit::TomlError),
    #[error("shards.toml does not hold {0} as it was read a moment ago; somebody edits it")]
    Changed(String),
    #[error("the new version would be refused: {0}")]
    Refused(#[from] ShardsError),
}

/// What changes of one shard.
#[derive(Debug, Clone)]
pub enum Change<'a> {
    /// This replica becomes the primary of the next epoch; the old one stays as a replica, or not.
    Promote { replica: &'a MysqlUrl, keep_old: bool },
    /// One replica more.
    AddReplica(&'a MysqlUrl),
}

/// The new text of the file at `path`.
pub fn changed(path: &Path, shard: &str, change: &Change<'_>) -> Result<String, FileFault> {
    let text = std::fs::read_to_string(path)
        .map_err(|cause| FileFault::File { path: path.to_owned(), cause })?;
    edit(&text, shard, change)
}

/// Puts it in place in one step.
pub fn write(path: &Path, text: &str) -> Result<(), FileFault> {
    replace(path, text.as_bytes(), NEW_MODE)
        .map_err(|cause| FileFault::File { path: path.to_owned(), cause })
}

/// Whether the file could be replaced, asked before anything is changed.
pub fn check_writable(path: &Path) -> Result<(), FileFault> {
    let dir = path.parent().unwrap_or(Path::new("."));
    let tried = tempfile::NamedTempFile::new_in(dir);
    tried.map(drop).map_err(|cause| FileFault::File { path: path.to_owned(), cause })
}

/// The new text of the file at `path`, with `groups` at shard `to` and both shards' next epochs.
pub fn moved(path: &Path, groups: &[u16], to: &str) -> Result<String, FileFault> {
    let text = std::fs::read_to_string(path)
        .map_err(|cause| FileFault::File { path: path.to_owned(), cause })?;
    edit_groups(&text, groups, to)
}

fn edit_groups(text: &str, groups: &[u16], to: &str) -> Result<String, FileFault> {
    let before = ShardMap::parse(text)?;
    let mut document: DocumentMut = text.parse()?;
    for shard in &before.shards {
        let leaves = |group: &u16| shard.name != to && groups.contains(group);
        let mut own: Vec<u16> = shard.groups.iter().copied().filter(|at| !leaves(at)).collect();
        if shard.name == to {
            own.extend(groups);
            own.sort_unstable();
            own.dedup();
        }
        if own == shard.groups {
            continue;
        }
        let row = row(&mut document, &shard.name)
            .ok_or_else(|| FileFault::Changed(format!("shard {}", shard.name)))?;
        set(row, "groups", Value::from(written(&own)));
        set(row, "epoch", Value::from(i64::from(shard.epoch) + 1));
    }
    let text = document.to_string();
    before.refuses(&ShardMap::parse(&text)?)?;
    Ok(text)
}

fn edit(text: &str, shard: &str, change: &Change<'_>) -> Result<String, FileFault> {
    let before = ShardMap::parse(text)?;
    let mut document: DocumentMut = text.parse()?;
    let gone = || FileFault::Changed(format!("shard {shard}"));
    let row = row(&mut document, shard).ok_or_else(gone)?;
    match change {
        Change::AddReplica(url) => add_replica(row, url, &url.reveal()),
        Change::Promote { replica, keep_old } => {
            let old = row.get("primary").and_then(Item::as_str).ok_or_else(gone)?.to_owned();
            let new = take_replica(row, replica)
                .ok_or_else(|| FileFault::Changed(format!("replica {replica}")))?;
            let epoch = row.get("epoch").and_then(Item::as_integer).unwrap_or(1);
            set(row, "primary", Value::from(new));
            set(row, "epoch", Value::from(epoch + 1));
            if *keep_old && let Ok(url) = old.parse::<MysqlUrl>() {
                add_replica(row, &url, &old);
            }
        }
    }
    let text = document.to_string();
    // The programs must take it as the next version of what they have.
    before.refuses(&ShardMap::parse(&text)?)?;
    Ok(text)
}

/// `[[shard]]` tables, or one array of inline tables.
fn row<'a>(document: &'a mut DocumentMut, shard: &str) -> Option<&'a mut dyn TableLike> {
    let named = |table: &dyn TableLike| table.get("name").and_then(Item::as_str) == Some(shard);
    match document.get_mut("shard")? {
        Item::ArrayOfTables(tables) => {
            tables.iter_mut().find(|table| named(*table)).map(|table| table as &mut dyn TableLike)
        }
        Item::Value(Value::Array(array)) => array
            .iter_mut()
            .filter_map(Value::as_inline_table_mut)
            .find(|table| named(*table))
            .map(|table| table as &mut dyn TableLike),
        _ => None,
    }
}

/// Keeps what is written around the old value: comments, spaces.
fn set(row: &mut dyn TableLike, key: &str, mut value: Value) {
    if let Some(old) = row.get(key).and_then(Item::as_value) {
        *value.decor_mut() = old.decor().clone();
    }
    row.insert(key, Item::Value(value));
}

fn is_at(table: &dyn TableLike, url: &MysqlUrl) -> bool {
    let at = table.get("url").and_then(Item::as_str).and_then(|text| text.parse().ok());
    at.is_some_and(|at: MysqlUrl| same(&at, url))
}

/// Removes a replica and gives its address as it was written, with a login if it had one.
fn take_replica(row: &mut dyn TableLike, url: &MysqlUrl) -> Option<String> {
    let address =
        |table: &dyn TableLike| table.get("url").and_then(Item::as_str).map(str::to_owned);
    match row.get_mut("replicas")? {
        Item::ArrayOfTables(tables) => {
            let place = tables.iter().position(|table| is_at(table, url))?;
            let text = tables.get(place).and_then(|table| address(table));
            tables.remove(place);
            text
        }
        Item::Value(Value::Array(array)) => {
            let found = |value: &Value| value.as_inline_table().is_some_and(|t| is_at(t, url));
            let place = array.iter().position(found)?;
            let text = array.get(place).and_then(Value::as_inline_table).and_then(|t| address(t));
            array.remove(place);
            text
        }
        _ => None,
    }
}

fn add_replica(row: &mut dyn TableLike, url: &MysqlUrl, written: &str) {
    let mut inline = InlineTable::new();
    inline.insert("url", Value::from(written));
    match row.get_mut("replicas") {
        Some(Item::ArrayOfTables(tables)) => {
            if !tables.iter().any(|table| is_at(table, url)) {
                let mut table = Table::new();
                table.insert("url", Item::Value(Value::from(written)));
                tables.push(table);
            }
        }
        Some(Item::Value(Value::Array(array))) => {
            let there = |value: &Value| value.as_inline_table().is_some_and(|t| is_at(t, url));
            if !array.iter().any(there) {
                array.push(inline);
            }
        }
        _ => {
            let mut array = Array::new();
            array.push(inline);
            row.insert("replicas", Item::Value(Value::Array(array)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# Ours; ask Ann before you touch it.\npartitions = 8\ngroup = 4\n\n\
        [[shard]]\nname = \"s0\"\nprimary = \"mysql://u:p%40ss@db-0:3306\" # rack 1\n\
        replicas = [{ url = \"mysql://u:p%40ss@db-0b:3306\", region = \"west\" }, \
        { url = \"mysql://db-0c\" }]\n\
        groups = \"0\"\nepoch = 4 # since May\n\n\
        [[shard]]\nname = \"s1\"\nprimary = \"mysql://db-1\"\ngroups = \"1\"\n";

    fn url(text: &str) -> MysqlUrl {
        text.parse().unwrap()
    }

    #[test]
    fn a_promotion_changes_one_shard_and_keeps_logins_comments_and_the_rest() {
        let replica = url("mysql://db-0b:3306");
        let new = edit(TEXT, "s0", &Change::Promote { replica: &replica, keep_old: true }).unwrap();
        assert!(new.contains("primary = \"mysql://u:p%40ss@db-0b:3306\" # rack 1"), "{new}");
        assert!(new.contains("epoch = 5 # since May") && new.contains("ask Ann"), "{new}");
        let map = ShardMap::parse(&new).unwrap();
        let shard = map.shard("s0").unwrap();
        let replicas: Vec<&str> = shard.replicas.iter().map(|r| r.url.host.as_str()).collect();
        assert_eq!((shard.epoch, replicas), (5, vec!["db-0c", "db-0"]));
        let tail = |text: &str| text.split("[[shard]]").last().map(str::to_owned);
        assert_eq!(tail(&new), tail(TEXT), "the other shard is untouched");
    }

    #[test]
    fn a_primary_that_is_gone_is_no_replica_until_it_is_rebuilt() {
        let replica = url("mysql://db-0b:3306");
        let gone = Change::Promote { replica: &replica, keep_old: false };
        let new = edit(TEXT, "s0", &gone).unwrap();
        assert!(!new.contains("db-0:3306"), "{new}");
        let old = url("mysql://u:p%40ss@db-0:3306");
        let again = edit(&new, "s0", &Change::AddReplica(&old)).unwrap();
        assert_eq!(ShardMap::parse(&again).unwrap().shard("s0").unwrap().replicas.len(), 2);
        let twice = edit(&again, "s0", &Change::AddReplica(&old)).unwrap();
        assert_eq!(again, twice, "adding it again changes nothing");
    }

    #[test]
    fn a_shard_without_an_epoch_line_gets_epoch_two() {
        let text = TEXT.replace("epoch = 4 # since May\n", "");
        let replica = url("mysql://db-0c");
        let new =
            edit(&text, "s0", &Change::Promote { replica: &replica, keep_old: true }).unwrap();
        assert_eq!(ShardMap::parse(&new).unwrap().shard("s0").unwrap().epoch, 2);
    }

    #[test]
    fn moved_groups_change_both_shards_and_nothing_else() {
        let new = edit_groups(TEXT, &[0], "s1").unwrap();
        let map = ShardMap::parse(&new).unwrap();
        let of = |name: &str| map.shard(name).map(|s| (s.groups.clone(), s.epoch)).unwrap();
        assert_eq!((of("s0"), of("s1")), ((vec![], 5), (vec![0, 1], 2)));
        assert!(new.contains("epoch = 5 # since May") && new.contains("# rack 1"), "{new}");
        assert_eq!(edit_groups(&new, &[0], "s1").unwrap(), new, "again changes nothing");
    }

    #[test]
    fn a_replica_or_shard_that_is_not_there_changes_nothing() {
        let stranger = url("mysql://db-9");
        let change = Change::Promote { replica: &stranger, keep_old: true };
        assert!(matches!(edit(TEXT, "s0", &change), Err(FileFault::Changed(_))));
        assert!(matches!(edit(TEXT, "s7", &change), Err(FileFault::Changed(_))));
    }
}
