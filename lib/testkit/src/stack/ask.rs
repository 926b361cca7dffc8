//! What a stack tells: addresses, secrets, metrics, and what it left behind.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{End, Link, Seeds, Servers, Stack, blocking, programs};
use crate::error::StackError;
use crate::metrics::Metrics;
use crate::{binaries, errand, http};

impl Stack {
    /// What the program tells of itself, read now.
    pub async fn metrics(&self, name: &str) -> Result<Metrics, StackError> {
        let page = self.admin_page(name, "/metrics").await?;
        Ok(Metrics::parse(&page.body))
    }

    /// Any page of a program's admin address (`/deepz`, `/readyz`, …).
    pub async fn admin_page(&self, name: &str, path: &str) -> Result<http::Answer, StackError> {
        let address = self.admin_address(name)?;
        let what = format!("asking {name} for {path}");
        http::get(address, path).await.map_err(StackError::io(what))
    }

    pub fn admin_address(&self, name: &str) -> Result<SocketAddr, StackError> {
        let admin = self.member(name, |m| m.ready.admin().map(|port| port.socket()))?;
        admin.ok_or_else(|| StackError::Refused { what: format!("{name} has no admin address") })
    }

    /// Base URLs of the ingest-api processes.
    #[must_use]
    pub fn api_urls(&self) -> Vec<String> {
        self.apis.iter().map(|port| format!("http://{}", port.address())).collect()
    }

    #[must_use]
    pub fn status_page_url(&self) -> Option<String> {
        self.pages.as_ref().map(|pages| format!("http://{}", pages.page.address()))
    }

    /// Tokens, keys and readers.
    #[must_use]
    pub fn seeds(&self) -> &Seeds {
        &self.seeds
    }

    /// Everything a test may ask of a shard's primary; connects when first used.
    pub fn mysql(&self, shard: &str) -> Result<sqlx::MySqlPool, StackError> {
        let primary = self.servers.primary(shard);
        primary
            .map(|server| server.admin_pool())
            .ok_or_else(|| StackError::Refused { what: format!("there is no shard {shard}") })
    }

    /// The proxies between two ends that the options asked for.
    pub fn link(&self, from: End, to: End) -> Result<&Link, StackError> {
        self.links.find(from, to).ok_or_else(|| StackError::Refused {
            what: format!("StackOptions::link({from:?}, {to:?}) was not asked for"),
        })
    }

    /// Runs the console as an operator would; returns its exit code and what it printed.
    pub async fn console(&self, command: &[&str]) -> Result<std::process::Output, StackError> {
        let mut run = Command::new(binaries::program("spillway", self.options.release));
        run.arg("--config").arg(programs::console_config(&self.dir)).args(command);
        let what = format!("running spillway {}", command.join(" "));
        blocking(move || errand::output(&run).map_err(StackError::io(what))).await
    }

    /// All processes, in starting order.
    #[must_use]
    pub fn process_names(&self) -> Vec<String> {
        self.lock().iter().map(|member| member.spec.name.clone()).collect()
    }

    #[must_use]
    pub fn servers(&self) -> &Servers {
        &self.servers
    }

    #[must_use]
    pub fn dir(&self) -> &Path {
        self.dir.root()
    }

    /// Objects that wait in S3, counted in its folder: also while S3 itself is dead.
    #[must_use]
    pub fn parked_objects(&self) -> usize {
        let spill = fs::read_dir(self.bucket_dir().join("spill"));
        // s3s keeps its own notes in files whose names start with a dot.
        let counts = |name: &std::ffi::OsStr| !name.as_encoded_bytes().starts_with(b".");
        spill.map_or(0, |dir| dir.flatten().filter(|entry| counts(&entry.file_name())).count())
    }

    /// The bucket as a folder.
    #[must_use]
    pub fn bucket_dir(&self) -> PathBuf {
        self.servers.s3.root.join(&self.servers.s3.bucket)
    }
}
