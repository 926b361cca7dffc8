//! `--break`: one part is killed at a quarter of the run and comes back after a third of it.

use std::time::Duration;

use spillway_testkit::{Stack, StackError};

use super::screen::Screen;

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Part {
    Kafka,
    Api,
    S3,
    Mysql,
}

impl Part {
    fn processes(self, stack: &Stack) -> Vec<String> {
        let prefix = match self {
            Self::Kafka => "kafka-",
            Self::Api => "ingest-api-",
            Self::S3 => "s3",
            // Replicas stay: they are not what the consumer writes to.
            Self::Mysql => "mysql-s0",
        };
        let ours = |name: &String| {
            name.starts_with(prefix) && (self != Self::Mysql || !name.contains("replica"))
        };
        stack.process_names().into_iter().filter(ours).collect()
    }

    fn meaning(self) -> &'static str {
        match self {
            Self::Kafka => "the API answers 503, agents keep their batches and park them in S3",
            Self::Api => "agents keep their batches and park them, sealed, in S3",
            Self::S3 => "nothing notices as long as the API works: S3 is the second way",
            Self::Mysql => "the consumer waits, Kafka keeps what was accepted, lag grows",
        }
    }
}

/// One fault on its way through the run.
#[derive(Debug)]
pub struct Fault {
    part: Part,
    kill_at: Duration,
    heal_at: Duration,
    down: Vec<String>,
    done: bool,
}

impl Fault {
    pub fn plan(part: Part, seconds: u64) -> Self {
        let run = Duration::from_secs(seconds);
        let kill_at = run / 4;
        Self { part, kill_at, heal_at: kill_at + run / 3, down: Vec::new(), done: false }
    }

    /// Kills or heals if it is time.
    pub async fn act(
        &mut self,
        stack: &Stack,
        now: Duration,
        screen: &mut Screen,
    ) -> Result<(), StackError> {
        if !self.done && now >= self.kill_at {
            self.done = true;
            for name in self.part.processes(stack) {
                stack.kill(&name).await?;
                screen.line(&format!("KILLED {name}: {}", self.part.meaning()));
                self.down.push(name);
            }
        }
        if now >= self.heal_at { self.heal(stack, screen).await } else { Ok(()) }
    }

    /// Starts what is still down.
    pub async fn heal(&mut self, stack: &Stack, screen: &mut Screen) -> Result<(), StackError> {
        for name in std::mem::take(&mut self.down) {
            stack.start_process(&name).await?;
            screen.line(&format!("STARTED {name} again"));
        }
        Ok(())
    }
}
