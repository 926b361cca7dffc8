//! A whole pipeline on this machine: real servers and our own programs, each on free ports of
//! 127.0.0.1, with all data in one folder and a log file each. Made for tests and for developers'
//! commands; whatever way it ends, no process stays behind.

mod options;
mod dir;
mod servers;
mod link;
mod ready;
mod seed;
mod settings_file;
mod programs;
mod file;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::process::{Pid, Signal};

pub use self::file::{ProcessEntry, ShardEntry, StackFile, exec};
pub use self::link::{End, Link};
pub use self::options::{AgentOptions, ENVIRONMENTS, Override, StackOptions};
pub use self::programs::{PARTITION_GROUP, PARTITIONS};
pub use self::seed::Seeds;
pub use self::servers::{BUCKET, Servers};

use self::dir::StackDir;
use self::link::Links;
use self::programs::Site;
use self::ready::Ready;
use self::seed::Seeding;
use self::servers::Plan;
use crate::artifacts::{self, Artifacts};
use crate::error::StackError;
use crate::metrics::Metrics;
use crate::ports::Port;
use crate::process::{self, Process, ProcessSpec};
use crate::{binaries, http};

/// A server that is asked to end gets this long before it is killed.
const STOP_DEADLINE: Duration = Duration::from_secs(30);

pub struct Stack {
    options: StackOptions,
    /// In starting order; stopped in reverse.
    members: Mutex<Vec<Member>>,
    servers: Servers,
    apis: Vec<Arc<Port>>,
    pages: Option<StatusPages>,
    links: Links,
    seeds: Seeds,
    xtask: PathBuf,
    dir: StackDir,
}

/// Where the console serves the status page, and its own health.
#[derive(Debug)]
pub(crate) struct StatusPages {
    pub page: Arc<Port>,
    pub admin: Arc<Port>,
}

struct Member {
    spec: ProcessSpec,
    ready: Ready,
    process: Option<Arc<Process>>,
}

impl Stack {
    /// Fetches and builds what is missing, starts everything and waits until it works.
    pub async fn start(options: StackOptions) -> Result<Self, StackError> {
        let telling = options.progress.clone();
        let artifacts =
            blocking(move || Artifacts::fetch(&artifacts::cache_dir(), &telling)).await?;
        let wanted = options.clone();
        let xtask = blocking(move || build(&wanted)).await?;
        let mut stack = Self::lay_out(options, xtask).await?;
        stack.options.progress.tell(&format!("starting servers in {}", stack.dir().display()));
        stack.servers.prepare(&artifacts, &stack.dir).await?;
        let plans = stack.servers.plans(&artifacts, &stack.dir, &stack.xtask);
        stack.start_together(plans).await?;
        for server in &stack.servers.mysql {
            server.follow().await?;
        }
        if !stack.options.servers_only {
            stack.start_programs().await?;
        }
        stack.write_file()?;
        Ok(stack)
    }

    /// Takes the folder and the ports; nothing runs yet but the proxies.
    async fn lay_out(options: StackOptions, xtask: PathBuf) -> Result<Self, StackError> {
        let dir = StackDir::open(options.dir.as_deref())?;
        let servers = Servers::lay_out(&options, &dir)?;
        let ours = !options.servers_only;
        let apis = if ours { options.apis } else { 0 };
        let apis: Vec<_> =
            (0..apis).map(|_| Port::take().map(Arc::new)).collect::<Result<_, _>>()?;
        let pages = (ours && options.status_page).then(|| {
            let (page, admin) = (Arc::new(Port::take()?), Arc::new(Port::take()?));
            Ok::<_, StackError>(StatusPages { page, admin })
        });
        let pages = pages.transpose()?;
        let links = Links::lay(&options, &servers, &apis).await?;
        let (members, seeds) = (Mutex::default(), Seeds::default());
        Ok(Self { options, members, servers, apis, pages, links, seeds, xtask, dir })
    }

    async fn start_programs(&mut self) -> Result<(), StackError> {
        self.seeds = self.seeding().run().await?;
        self.options.progress.tell("starting programs");
        let plans = self.site().plans()?;
        let programs: Vec<_> = plans.iter().filter_map(Plan::admin_url).collect();
        self.seeding().write_console_settings(&programs)?;
        self.start_together(plans).await?;
        if self.options.agent {
            self.spawn_agent(&AgentOptions::new("agent", ENVIRONMENTS[0], "")).await?;
        }
        Ok(())
    }

    fn seeding(&self) -> Seeding<'_> {
        Seeding {
            options: &self.options,
            dir: &self.dir,
            servers: &self.servers,
            links: &self.links,
            console: binaries::program("spillway", self.options.release),
            apis: &self.apis,
            pages: self.pages.as_ref(),
            progress: &self.options.progress,
        }
    }

    fn site(&self) -> Site<'_> {
        Site {
            options: &self.options,
            dir: &self.dir,
            servers: &self.servers,
            links: &self.links,
            apis: &self.apis,
            seeds: &self.seeds,
            pages: self.pages.as_ref(),
        }
    }

    /// Starts one more agent; returns when it is ready.
    pub async fn spawn_agent(&self, agent: &AgentOptions) -> Result<(), StackError> {
        let plan = self.site().agent(agent)?;
        self.start_together(vec![plan]).await
    }

    /// Starts all, then waits for each.
    async fn start_together(&self, plans: Vec<Plan>) -> Result<(), StackError> {
        let mut started = Vec::new();
        for Plan { spec, ready } in plans {
            self.dir.write_spec(&spec)?;
            let process = self.spawn(&spec)?;
            started.push((ready.clone(), Arc::clone(&process)));
            self.lock().push(Member { spec, ready, process: Some(process) });
        }
        for (ready, process) in started {
            let took = ready.wait(&process).await?;
            self.options.progress.tell(&format!("{} is ready ({took:.1?})", process.spec().name));
        }
        Ok(())
    }

    fn spawn(&self, spec: &ProcessSpec) -> Result<Arc<Process>, StackError> {
        let process = Process::start(spec.clone())?;
        self.dir.write_pid(&spec.name, process.pid())?;
        Ok(Arc::new(process))
    }

    /// SIGKILL, as a machine that loses power; returns when it is gone.
    pub async fn kill(&self, name: &str) -> Result<(), StackError> {
        self.running(name)?.kill().await.map(|_| ())
    }

    /// SIGSTOP: the process is there and says nothing.
    pub fn freeze(&self, name: &str) -> Result<(), StackError> {
        self.running(name)?.signal(Signal::STOP)
    }

    pub fn thaw(&self, name: &str) -> Result<(), StackError> {
        self.running(name)?.signal(Signal::CONT)
    }

    /// SIGTERM; the exit code once it has ended, `None` if a signal ended it.
    pub async fn terminate(
        &self,
        name: &str,
        deadline: Duration,
    ) -> Result<Option<i32>, StackError> {
        let process = self.running(name)?;
        process.signal(Signal::TERM)?;
        let status = process.wait(deadline).await.ok_or_else(|| StackError::Refused {
            what: format!("{name} still runs {deadline:?} after SIGTERM"),
        })?;
        Ok(status.code())
    }

    /// Any other signal (SIGHUP, SIGUSR1, …).
    pub fn signal(&self, name: &str, signal: Signal) -> Result<(), StackError> {
        self.running(name)?.signal(signal)
    }

    /// Starts a process that was killed or terminated; returns when it is ready.
    pub async fn start_process(&self, name: &str) -> Result<(), StackError> {
        let (spec, ready) = self.member(name, |m| (m.spec.clone(), m.ready.clone()))?;
        if self.member(name, |m| m.process.as_ref().is_some_and(|p| p.exit_status().is_none()))? {
            return Err(StackError::Refused { what: format!("{name} is already running") });
        }
        let process = self.spawn(&spec)?;
        self.member(name, |m| m.process = Some(Arc::clone(&process)))?;
        ready.wait(&process).await.map(|_| ())
    }

    #[must_use]
    pub fn is_running(&self, name: &str) -> bool {
        self.running(name).is_ok_and(|p| p.exit_status().is_none())
    }

    pub fn log_path(&self, name: &str) -> Result<PathBuf, StackError> {
        self.member(name, |m| m.spec.log.clone())
    }

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
        blocking(move || process::output(&mut run).map_err(StackError::io(what))).await
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

    fn running(&self, name: &str) -> Result<Arc<Process>, StackError> {
        self.member(name, |m| m.process.clone())?
            .ok_or_else(|| StackError::Refused { what: format!("{name} was never started") })
    }

    fn member<T>(&self, name: &str, take: impl FnOnce(&mut Member) -> T) -> Result<T, StackError> {
        let mut members = self.lock();
        if let Some(member) = members.iter_mut().find(|m| m.spec.name == name) {
            return Ok(take(member));
        }
        let known: Vec<_> = members.iter().map(|m| m.spec.name.as_str()).collect();
        Err(StackError::UnknownProcess { name: name.into(), known: known.join(", ") })
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Member>> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends everything in order: what feeds before what is fed. Blocks.
    pub fn stop(&mut self) {
        let members = std::mem::take(&mut *self.lock());
        let running: Vec<_> = members.iter().filter_map(|m| m.process.as_ref()).rev().collect();
        for process in &running {
            // A frozen process takes no SIGTERM before it is thawed.
            for signal in [Signal::CONT, Signal::TERM] {
                if let Err(error) = process.signal(signal) {
                    tracing::warn!(%error, "stopping");
                }
            }
        }
        let until = std::time::Instant::now() + STOP_DEADLINE;
        for process in &running {
            let left = until.saturating_duration_since(std::time::Instant::now());
            if process.wait_blocking(left).is_none() {
                process.kill_blocking();
            }
        }
        for member in &members {
            self.kill_stranger(&member.spec.name);
        }
    }

    /// What somebody else started again with our `restart` command is ours to stop as well.
    fn kill_stranger(&self, name: &str) {
        let Some(pid) = self.dir.living_pid(name).and_then(Pid::from_raw) else { return };
        if let Err(error) = rustix::process::kill_process(pid, Signal::KILL) {
            tracing::warn!(name, %error, "killing what was restarted by hand");
        }
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        self.stop();
        if std::thread::panicking() {
            self.dir.keep();
        }
    }
}

/// The programs, and ourselves for S3.
fn build(options: &StackOptions) -> Result<PathBuf, StackError> {
    let progress = &options.progress;
    let xtask = binaries::xtask(progress)?;
    if !options.servers_only {
        let profile = if options.release { "release" } else { "dev" };
        progress.tell(&format!("building the programs ({profile} profile)"));
        let ours =
            programs::PACKAGES.iter().filter(|(_, binary)| binaries::given(binary).is_none());
        let packages: Vec<&str> = ours.map(|(package, _)| *package).collect();
        binaries::build(&packages, options.release, progress.is_shown())?;
    }
    Ok(xtask)
}

pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StackError> + Send + 'static,
) -> Result<T, StackError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|e| Err(StackError::Refused { what: e.to_string() }))
}
