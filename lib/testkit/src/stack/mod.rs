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
mod control;
mod ask;
mod file;
mod stop;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub use self::file::{ProcessEntry, ShardEntry, StackFile, exec};
pub use self::link::{End, Link};
pub use self::options::{AgentOptions, ENVIRONMENTS, Override, StackOptions, Variable};
pub use self::programs::{PACKAGES, PARTITION_GROUP, PARTITIONS};
pub use self::seed::Seeds;
pub use self::servers::{BUCKET, Servers};

use self::dir::StackDir;
use self::link::Links;
use self::programs::Site;
use self::ready::Ready;
use self::seed::Seeding;
use self::servers::Plan;
use self::stop::Wave;
use crate::artifacts::{self, Artifacts};
use crate::binaries;
use crate::error::StackError;
use crate::ports::Port;
use crate::process::{Process, ProcessSpec};

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
    wave: Wave,
    process: Option<Arc<Process>>,
}

impl Stack {
    /// Fetches and builds what is missing, starts everything and waits until it works.
    pub async fn start(options: StackOptions) -> Result<Self, StackError> {
        let (database, telling) = (options.database, options.progress.clone());
        let fetch = move || Artifacts::fetch(&artifacts::cache_dir(), database, &telling);
        let artifacts = blocking(fetch).await?;
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
            self.spawn_agent(AgentOptions::new("agent", ENVIRONMENTS[0], "")).await?;
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
    pub async fn spawn_agent(&self, agent: AgentOptions) -> Result<(), StackError> {
        let plan = self.site().agent(&agent)?;
        self.start_together(vec![plan]).await
    }

    /// Starts all, then waits for each.
    async fn start_together(&self, plans: Vec<Plan>) -> Result<(), StackError> {
        let mut started = Vec::new();
        for Plan { spec, ready, wave } in plans {
            self.dir.write_spec(&spec)?;
            let process = self.spawn(&spec)?;
            started.push((ready.clone(), Arc::clone(&process)));
            self.lock().push(Member { spec, ready, wave, process: Some(process) });
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
}

/// The programs, and ourselves for S3.
fn build(options: &StackOptions) -> Result<PathBuf, StackError> {
    let progress = &options.progress;
    let xtask = binaries::xtask(progress)?;
    if !options.servers_only {
        let ours =
            programs::PACKAGES.iter().filter(|(_, binary)| binaries::given(binary).is_none());
        let packages: Vec<&str> = ours.map(|(package, _)| *package).collect();
        // Without a package cargo would build everything.
        if !packages.is_empty() {
            let profile = if options.release { "release" } else { "dev" };
            progress.tell(&format!("building the programs ({profile} profile)"));
            binaries::build(&packages, options.release, progress.is_shown())?;
        }
    }
    Ok(xtask)
}

pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StackError> + Send + 'static,
) -> Result<T, StackError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|e| Err(StackError::Refused { what: e.to_string() }))
}
