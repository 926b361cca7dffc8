//! Waiting for what was started: each kind of process has a question it must answer, nobody sleeps
//! and hopes. A process that ends meanwhile is reported at once, with the end of its log.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::error::StackError;
use crate::kafka::Broker;
use crate::mysql::MysqlServer;
use crate::ports::Port;
use crate::process::Process;
use crate::{http, redis, s3_server};

/// A loaded two-core machine may take its time to start a JVM; more than this is a failure.
pub const READY_DEADLINE: Duration = Duration::from_secs(300);
const QUESTION_DEADLINE: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(50);

/// The question that tells whether a process does its work.
#[derive(Debug, Clone)]
pub enum Ready {
    Kafka(Arc<Broker>),
    Mysql(Arc<MysqlServer>),
    Redis(Arc<Port>),
    S3(Arc<Port>),
    /// One of our programs: its `/readyz`.
    Admin(Arc<Port>),
    /// A web page.
    Http(Arc<Port>),
}

impl Ready {
    async fn ask(&self) -> Result<(), String> {
        match self {
            Self::Kafka(broker) => broker.answers().await,
            Self::Mysql(server) => server.answers().await,
            Self::Redis(port) => redis::answers(port).await,
            Self::S3(port) => s3_server::answers(port).await,
            Self::Admin(port) => page_answers(port, "/readyz").await,
            Self::Http(port) => page_answers(port, "/").await,
        }
    }

    /// Where this process serves `/metrics`, if it is one of ours.
    #[must_use]
    pub fn admin(&self) -> Option<&Arc<Port>> {
        match self {
            Self::Admin(port) => Some(port),
            _ => None,
        }
    }

    /// Asks until the answer is right. Returns how long that took.
    pub async fn wait(&self, process: &Process) -> Result<Duration, StackError> {
        let since = Instant::now();
        let spec = process.spec();
        let mut last = "nothing answered".to_owned();
        while since.elapsed() < READY_DEADLINE {
            match tokio::time::timeout(QUESTION_DEADLINE, self.ask()).await {
                Ok(Ok(())) => return Ok(since.elapsed()),
                Ok(Err(error)) => last = error,
                Err(_) => last = format!("no answer within {QUESTION_DEADLINE:?}"),
            }
            if let Some(status) = process.exit_status() {
                let (name, log, tail) = (spec.name.clone(), spec.log.clone(), spec.log_tail());
                return Err(StackError::Exited { name, status, log, tail });
            }
            tokio::time::sleep(PAUSE).await;
        }
        Err(StackError::NotReady {
            name: spec.name.clone(),
            waited: READY_DEADLINE,
            last,
            log: spec.log.clone(),
            tail: spec.log_tail(),
        })
    }
}

async fn page_answers(port: &Port, path: &str) -> Result<(), String> {
    let answer = http::get(port.socket(), path).await.map_err(|e| e.to_string())?;
    match answer.status {
        200 => Ok(()),
        status => Err(format!("{path} answered {status}: {}", answer.body.trim())),
    }
}
