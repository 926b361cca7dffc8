//! A site on this machine, and the console run against it as an operator would.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value as Json;

/// What one invocation brought.
#[derive(Debug)]
pub struct Ran {
    pub code: i32,
    pub json: Json,
    pub errors: String,
}

/// A folder with the operators' files.
pub struct Site {
    dir: tempfile::TempDir,
}

impl Site {
    /// `shards` and `settings` are the texts of shards.toml and of spillway.toml's rest.
    pub fn new(shards: &str, settings: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let site = Self { dir };
        let path = |name: &str| site.path(name).display().to_string();
        let own = format!(
            "shards_file = {:?}\ntokens_file = {:?}\nkeys_dir = {:?}\njournal_file = {:?}\n\
             admission_file = {:?}\nmaintenance_file = {:?}\n\
             status.history_file = {:?}\nstatus.incidents_file = {:?}\n",
            path("shards.toml"),
            path("tokens.toml"),
            path("keys"),
            path("journal.jsonl"),
            path("admission.toml"),
            path("maintenance.json"),
            path("status-history.json"),
            path("incidents.jsonl")
        );
        std::fs::write(site.path("shards.toml"), shards).unwrap();
        std::fs::write(site.path("spillway.toml"), own + settings).unwrap();
        site
    }

    pub fn path(&self, name: &str) -> PathBuf {
        Path::join(self.dir.path(), name)
    }

    pub fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    pub fn run(&self, command: &str) -> Ran {
        self.run_with(command, &[])
    }

    /// Runs `spillway --output json …`, never on a terminal.
    pub fn run_with(&self, command: &str, env: &[(&str, &str)]) -> Ran {
        self.invoke(&command.split_whitespace().collect::<Vec<_>>(), env)
    }

    /// Arguments may have spaces.
    pub fn invoke(&self, command: &[&str], env: &[(&str, &str)]) -> Ran {
        let output = Command::new(env!("CARGO_BIN_EXE_spillway"))
            .arg("--config")
            .arg(self.path("spillway.toml"))
            .args(["--output", "json"])
            .args(command)
            .envs(env.iter().copied())
            .stdin(std::process::Stdio::null())
            .output()
            .unwrap();
        Ran {
            code: output.status.code().unwrap(),
            json: serde_json::from_slice(&output.stdout).unwrap_or(Json::Null),
            errors: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// Runs what must succeed.
    pub fn ok(&self, command: &str) -> Json {
        let ran = self.run(command);
        assert_eq!(ran.code, 0, "{command}: {ran:#?}");
        ran.json
    }

    /// Runs what must be refused, and gives the sentence.
    pub fn refused(&self, command: &str, code: i32) -> String {
        let ran = self.run(command);
        assert_eq!(ran.code, code, "{command}: {ran:#?}");
        ran.errors
    }
}
