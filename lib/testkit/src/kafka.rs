//! Real Kafka brokers in KRaft mode, each broker a controller too. With three of them the topics
//! are replicated three times and two must acknowledge, as in production.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};

use crate::artifacts::{Artifacts, run};
use crate::error::StackError;
use crate::ports::Port;
use crate::process::ProcessSpec;

const METADATA_DEADLINE: Duration = Duration::from_secs(2);
/// What `format` writes besides the identity: the feature levels that a new cluster starts with.
const BOOTSTRAP: &str = "bootstrap.checkpoint";
const LOG4J: &str = include_str!("../assets/kafka-log4j2.xml");

/// One broker and the folder it lives in.
#[derive(Debug)]
pub struct Broker {
    pub name: String,
    pub node_id: u16,
    pub port: Port,
    pub controller: Port,
    pub dir: PathBuf,
    /// Further doors: a client that comes in there is told to go on through `advertised`.
    pub doors: Vec<Door>,
}

/// A listener of its own for clients that reach the broker through a proxy: Kafka tells each client
/// the address of the listener it came through, so one listener cannot serve both.
#[derive(Debug)]
pub struct Door {
    pub listener: String,
    pub port: Port,
    /// Where the proxy in front of it listens.
    pub advertised: Arc<Port>,
}

/// Kafka's form of a cluster's or folder's id: 16 random bytes in URL-safe base64 without padding.
#[must_use]
pub fn new_id() -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let number = uuid::Uuid::new_v4().as_u128();
    // 22 digits of 6 bits; the last one carries 2 bits.
    (0..22u32)
        .map(|i| {
            let shift = 122_i32 - 6 * i32::try_from(i).unwrap_or(0);
            let digit = if shift >= 0 { number >> shift } else { number << -shift };
            char::from(ALPHABET.get((digit & 63) as usize).copied().unwrap_or(b'A'))
        })
        .collect()
}

impl Broker {
    fn properties(&self, quorum: &[(u16, u16)]) -> String {
        let nodes = quorum.len();
        let (replicas, in_sync) = if nodes >= 3 { (3, 2) } else { (1, 1) };
        let voters: Vec<_> =
            quorum.iter().map(|(id, port)| format!("{id}@127.0.0.1:{port}")).collect();
        let plain = self.port.address();
        let mut listeners = vec![format!("PLAINTEXT://{plain}")];
        let mut advertised = listeners.clone();
        let mut protocols =
            vec!["PLAINTEXT:PLAINTEXT".to_owned(), "CONTROLLER:PLAINTEXT".to_owned()];
        for door in &self.doors {
            listeners.push(format!("{}://{}", door.listener, door.port.address()));
            advertised.push(format!("{}://{}", door.listener, door.advertised.address()));
            protocols.push(format!("{}:PLAINTEXT", door.listener));
        }
        listeners.push(format!("CONTROLLER://{}", self.controller.address()));
        format!(
            include_str!("../assets/kafka.properties.in"),
            node_id = self.node_id,
            voters = voters.join(","),
            listeners = listeners.join(","),
            advertised = advertised.join(","),
            protocols = protocols.join(","),
            data = self.dir.join("data").display(),
            replicas = replicas,
            in_sync = in_sync,
        )
    }

    /// Writes the properties, and formats the storage unless it is formatted: the bootstrap records
    /// that `StorageTool format` made for the template, and an identity of this broker's own.
    pub fn prepare(
        &self,
        artifacts: &Artifacts,
        cluster_id: &str,
        quorum: &[(u16, u16)],
    ) -> Result<(), StackError> {
        let what = || StackError::io(format!("preparing {}", self.name));
        let data = self.dir.join("data");
        fs::create_dir_all(&data).map_err(what())?;
        fs::write(self.dir.join("log4j2.xml"), LOG4J).map_err(what())?;
        let properties = self.dir.join("server.properties");
        fs::write(&properties, self.properties(quorum)).map_err(what())?;
        let meta = data.join("meta.properties");
        if meta.exists() {
            return Ok(());
        }
        let bootstrap = artifacts.kafka_template.join("data").join(BOOTSTRAP);
        fs::copy(&bootstrap, data.join(BOOTSTRAP)).map_err(what())?;
        let (node, directory) = (self.node_id, new_id());
        let text = format!(
            "version=1\ncluster.id={cluster_id}\nnode.id={node}\ndirectory.id={directory}\n"
        );
        fs::write(&meta, text).map_err(what())
    }

    #[must_use]
    pub fn spec(&self, artifacts: &Artifacts, log: PathBuf) -> ProcessSpec {
        let mut args = java_options("384m", &self.dir);
        args.extend(["-cp".into(), class_path(&artifacts.kafka_libs), "kafka.Kafka".into()]);
        args.push(self.dir.join("server.properties").display().to_string());
        ProcessSpec {
            name: self.name.clone(),
            program: artifacts.java.clone(),
            args,
            env: Vec::new(),
            cwd: self.dir.clone(),
            log,
        }
    }

    /// Asks this broker for metadata. Ready when it names itself among the brokers.
    pub async fn answers(&self) -> Result<(), String> {
        let address = self.port.address();
        let port = i32::from(self.port.number());
        let asked = tokio::task::spawn_blocking(move || {
            let client: BaseConsumer = ClientConfig::new()
                .set("bootstrap.servers", &address)
                .set("log_level", "0")
                .create()
                .map_err(|e| e.to_string())?;
            let metadata =
                client.fetch_metadata(None, METADATA_DEADLINE).map_err(|e| e.to_string())?;
            if metadata.brokers().iter().any(|broker| broker.port() == port) {
                return Ok(());
            }
            Err(format!("knows {} brokers, itself not among them", metadata.brokers().len()))
        });
        asked.await.unwrap_or_else(|e| Err(e.to_string()))
    }
}

/// Formats a storage folder of a lone broker, once; its bootstrap records serve every broker, which
/// spares each start of a stack a JVM.
pub(crate) fn format_template(java: &Path, libs: &Path, dir: &Path) -> Result<(), StackError> {
    let what = || StackError::io("preparing Kafka's template");
    let template = Broker {
        name: "template".into(),
        node_id: 0,
        port: Port::take()?,
        controller: Port::take()?,
        dir: dir.to_owned(),
        doors: Vec::new(),
    };
    let properties = dir.join("server.properties");
    fs::write(dir.join("log4j2.xml"), LOG4J).map_err(what())?;
    fs::write(&properties, template.properties(&[(0, template.controller.number())]))
        .map_err(what())?;
    run(Command::new(java)
        .args(java_options("128m", dir))
        .arg("-cp")
        .arg(class_path(libs))
        .args(["kafka.tools.StorageTool", "format", "-t", &new_id(), "-c"])
        .arg(&properties))
}

fn java_options(heap: &str, dir: &Path) -> Vec<String> {
    vec![
        format!("-Xmx{heap}"),
        // One small heap and two cores: the serial collector costs the least.
        "-XX:+UseSerialGC".into(),
        "-XX:-UsePerfData".into(),
        "-Djava.awt.headless=true".into(),
        format!("-Dlog4j2.configurationFile=file:{}", dir.join("log4j2.xml").display()),
    ]
}

fn class_path(libs: &Path) -> String {
    format!("{}/*", libs.display())
}

#[cfg(test)]
mod tests {
    use super::new_id;

    #[test]
    fn ids_have_kafkas_form() {
        let id = new_id();
        assert_eq!(id.len(), 22);
        assert!(id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_'));
        // Two bits are left for the last digit.
        assert!("AQgw".contains(id.chars().last().unwrap_or(' ')));
        assert_ne!(id, new_id());
    }
}
