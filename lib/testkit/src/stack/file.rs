//! `stack.json`: where everything is and how to start each process again. Other programs read it,
//! so its keys are a contract; it is written in one step once the stack is ready.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::{Member, Stack, dir};
use crate::error::StackError;
use crate::process::ProcessSpec;

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StackFile {
    pub ready: bool,
    pub api: Vec<String>,
    pub status_page: Option<String>,
    /// The token of `environment`.
    pub token: Option<String>,
    pub environment: String,
    pub tokens: BTreeMap<String, String>,
    pub kafka: String,
    pub mysql: Vec<ShardEntry>,
    pub redis: String,
    pub s3: S3Entry,
    /// The recovery worker's public key, to which what is parked in S3 is sealed.
    #[serde(default)]
    pub seal: Option<String>,
    pub processes: Vec<ProcessEntry>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ShardEntry {
    pub shard: String,
    pub environments: Vec<String>,
    /// With every privilege; so are the replicas' addresses.
    pub primary: String,
    pub replicas: Vec<String>,
    /// Sees all environments through the views.
    pub reader: Option<String>,
    pub readers: BTreeMap<String, String>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct S3Entry {
    pub endpoint: String,
    pub bucket: String,
    pub access_key: String,
    pub secret_key: String,
    /// May only put objects under `spill/`.
    pub agent_access_key: String,
    pub agent_secret_key: String,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ProcessEntry {
    pub name: String,
    pub pid: Option<i32>,
    pub log: PathBuf,
    /// Where it serves `/metrics`, if it is a program of ours.
    #[serde(default)]
    pub admin: Option<String>,
    pub restart: Vec<String>,
}

impl Stack {
    #[must_use]
    pub fn file(&self) -> StackFile {
        let servers = &self.servers;
        let seeds = &self.seeds;
        let of_shard = |shard: &str| {
            let there = seeds.shard_of.iter().filter(move |(_, place)| *place == shard);
            let names: Vec<String> = there.map(|(environment, _)| environment.clone()).collect();
            names
        };
        let shard = |shard: &str| ShardEntry {
            shard: shard.into(),
            environments: of_shard(shard),
            primary: servers.primary(shard).map(|s| s.admin_url()).unwrap_or_default(),
            replicas: servers.replicas(shard).iter().map(|s| s.admin_url()).collect(),
            reader: seeds.all_readers.get(shard).cloned(),
            readers: of_shard(shard)
                .into_iter()
                .filter_map(|e| seeds.readers.get(&e).cloned().map(|url| (e, url)))
                .collect(),
        };
        StackFile {
            ready: true,
            api: self.api_urls(),
            status_page: self.status_page_url(),
            token: seeds.tokens.get(super::ENVIRONMENTS[0]).cloned(),
            environment: super::ENVIRONMENTS[0].into(),
            tokens: seeds.tokens.clone(),
            kafka: servers.bootstrap(),
            mysql: servers.shards().map(shard).collect(),
            redis: format!("redis://{}", servers.redis.address()),
            s3: S3Entry {
                endpoint: format!("http://{}", servers.s3_port.address()),
                bucket: servers.s3.bucket.clone(),
                access_key: servers.s3.access_key.clone(),
                secret_key: servers.s3.secret_key.clone(),
                agent_access_key: servers.s3.agent_access_key.clone(),
                agent_secret_key: servers.s3.agent_secret_key.clone(),
            },
            seal: Some(seeds.public_key.clone()),
            processes: self.process_entries(),
        }
    }

    fn process_entries(&self) -> Vec<ProcessEntry> {
        let entry = |Member { spec, ready, .. }: &Member| ProcessEntry {
            name: spec.name.clone(),
            pid: self.dir.living_pid(&spec.name),
            log: spec.log.clone(),
            admin: ready.admin().map(|port| port.address()),
            restart: self.restart_command(&spec.name),
        };
        self.lock().iter().map(entry).collect()
    }

    fn restart_command(&self, name: &str) -> Vec<String> {
        let (xtask, dir) = (self.xtask.display().to_string(), self.dir().display().to_string());
        vec![xtask, "stack-exec".into(), dir, name.into()]
    }

    /// Writes the file again if a process was started again, by us or by its `restart` command.
    pub fn refresh_file(&self) -> Result<(), StackError> {
        let text = std::fs::read_to_string(self.dir.stack_json()).unwrap_or_default();
        let new = serde_json::to_string_pretty(&self.file()).unwrap_or_default();
        if text == new { Ok(()) } else { dir::write_atomically(&self.dir.stack_json(), &new) }
    }

    /// Who reads the file from now on finds a stack that is not ready.
    pub(super) fn withdraw_file(&self) {
        let path = self.dir.stack_json();
        if !path.exists() {
            return;
        }
        let gone = StackFile { ready: false, ..self.file() };
        let text = serde_json::to_string_pretty(&gone).unwrap_or_default();
        if let Err(error) = dir::write_atomically(&path, &text) {
            self.options.progress.tell(&error.to_string());
        }
    }

    pub fn write_file(&self) -> Result<(), StackError> {
        let text = serde_json::to_string_pretty(&self.file()).unwrap_or_default();
        dir::write_atomically(&self.dir.stack_json(), &text)
    }
}

/// Becomes the process that the stack in `root` calls `name`: same command, same log. Returns only
/// if that fails. This is what `restart` commands run.
pub fn exec(root: &Path, name: &str) -> StackError {
    use std::os::unix::process::CommandExt;
    let file = dir::spec_file(root, name);
    let read = std::fs::read_to_string(&file);
    let text = match read.map_err(StackError::io(format!("reading {}", file.display()))) {
        Ok(text) => text,
        Err(error) => return error,
    };
    let spec: ProcessSpec = match serde_json::from_str(&text) {
        Ok(spec) => spec,
        Err(e) => return StackError::Refused { what: format!("{}: {e}", file.display()) },
    };
    let own = i32::try_from(std::process::id()).unwrap_or(0);
    if let Err(error) = dir::write_pid(root, name, own) {
        return error;
    }
    match spec.command() {
        Ok(mut command) => StackError::io(format!("starting {name}"))(command.exec()),
        Err(error) => error,
    }
}
