//! Brings the real servers onto this machine, once: Maven fetches ordinary artifacts from Maven
//! Central (MariaDB is Debian's: `debian.rs`), and what is inside is unpacked into a cache that all
//! stacks share. A cached part is
//! complete or absent: it is made under another name and renamed. A file lock keeps two test runs
//! from making the same part.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::database::{Database, DatabaseFiles};
use crate::error::StackError;
use crate::kafka;
use crate::progress::Progress;

const KAFKA_POM: &str = include_str!("../assets/kafka.xml");
const DATABASES_POM: &str = include_str!("../assets/databases.xml");
const MYSQL_ARCHIVE: &str = "mysql-Linux-amd64.tar.gz";

/// Where the servers' files lie.
#[derive(Debug, Clone)]
pub struct Artifacts {
    pub java: PathBuf,
    pub kafka_libs: PathBuf,
    /// A formatted storage folder.
    pub kafka_template: PathBuf,
    pub database: DatabaseFiles,
    pub redis_server: PathBuf,
}

/// `SPILLWAY_STACK_CACHE`, else `target/stack-cache` of this workspace.
#[must_use]
pub fn cache_dir() -> PathBuf {
    std::env::var_os("SPILLWAY_STACK_CACHE").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/stack-cache"),
        PathBuf::from,
    )
}

impl Artifacts {
    /// Blocks; the first time for as long as the downloads take.
    pub fn fetch(
        cache: &Path,
        database: Database,
        progress: &Progress,
    ) -> Result<Self, StackError> {
        refuse_other_platforms()?;
        let java =
            find_tool("java", "install a Java 17 runtime (Debian: openjdk-17-jre-headless)")?;
        let (cache, _lock) = locked_cache(cache, progress)?;
        let kafka_libs = part(&cache, "kafka-4.1.0-2", |dir| {
            progress.tell("downloading Apache Kafka 4.1.0 (Maven, about 45 MB, once)");
            maven(
                dir,
                KAFKA_POM,
                &["copy-dependencies", "-DincludeScope=runtime"],
                "outputDirectory",
            )
        })?;
        let kafka_template = part(&cache, "kafka-4.1.0-format-1", |dir| {
            kafka::format_template(&java, &kafka_libs, dir)
        })?;
        let databases = part(&cache, "databases-1", |dir| {
            progress.tell("downloading MySQL 8.0.31 and Redis 7.0.15 (Maven, about 60 MB, once)");
            unpack_databases(dir)
        })?;
        let database = match database {
            Database::Mysql => DatabaseFiles::mysql(&cache, &databases, progress)?,
            Database::Mariadb => DatabaseFiles::mariadb(&cache, progress)?,
        };
        let redis_server = databases.join(redis_binary());
        Ok(Self { java, kafka_libs, kafka_template, database, redis_server })
    }
}

/// The cache's folder, made if it is not there, and ours alone as long as the file lives.
pub(crate) fn locked_cache(
    cache: &Path,
    progress: &Progress,
) -> Result<(PathBuf, File), StackError> {
    make_dir(cache)?;
    let cache = cache.canonicalize().map_err(StackError::io("resolving the cache folder"))?;
    let lock = File::create(cache.join("lock")).map_err(StackError::io("locking the cache"))?;
    if lock.try_lock().is_err() {
        progress.tell("waiting for another process that is filling the cache of servers");
        lock.lock().map_err(StackError::io("locking the cache"))?;
    }
    Ok((cache, lock))
}

fn refuse_other_platforms() -> Result<(), StackError> {
    if cfg!(all(target_os = "linux", target_arch = "x86_64")) {
        return Ok(());
    }
    Err(StackError::Refused {
        what: "the local servers run on Linux x86-64 only (the MySQL artifact has no other)".into(),
    })
}

fn redis_binary() -> &'static str {
    "redis-server-7.0.15-linux-amd64"
}

pub(crate) fn find_tool(tool: &'static str, advice: &'static str) -> Result<PathBuf, StackError> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .map(|dir| dir.join(tool))
        .find(|file| file.is_file())
        .ok_or(StackError::MissingTool { tool, advice })
}

fn make_dir(dir: &Path) -> Result<(), StackError> {
    fs::create_dir_all(dir).map_err(StackError::io(format!("making {}", dir.display())))
}

/// `cache/name`, made by `make` in a folder beside it if it is not there yet.
pub(crate) fn part(
    cache: &Path,
    name: &str,
    make: impl FnOnce(&Path) -> Result<(), StackError>,
) -> Result<PathBuf, StackError> {
    let done = cache.join(name);
    if done.is_dir() {
        return Ok(done);
    }
    let unfinished = cache.join(format!("{name}.unfinished"));
    match fs::remove_dir_all(&unfinished) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => {
            return Err(StackError::io(format!("removing {}", unfinished.display()))(e));
        }
        _ => make_dir(&unfinished)?,
    }
    make(&unfinished)?;
    fs::rename(&unfinished, &done)
        .map_err(StackError::io(format!("renaming {}", unfinished.display())))?;
    Ok(done)
}

fn maven(dir: &Path, pom: &str, goal: &[&str], output: &str) -> Result<(), StackError> {
    let mvn = find_tool("mvn", "install Maven 3.8 or later (Debian: apt-get install maven)")?;
    let work = tempfile::tempdir().map_err(StackError::io("making a folder for Maven"))?;
    let file = work.path().join("pom.xml");
    fs::write(&file, pom).map_err(StackError::io("writing a pom"))?;
    let (goal, options) = goal.split_first().unwrap_or((&"copy-dependencies", &[]));
    run(Command::new(mvn)
        .args(["-q", "-B", "-ntp"])
        .arg("-f")
        .arg(&file)
        .arg(format!("dependency:{goal}"))
        .arg(format!("-D{output}={}", dir.display()))
        .args(options))
}

fn unpack_databases(dir: &Path) -> Result<(), StackError> {
    let inside = format!("-Dmdep.unpack.includes={MYSQL_ARCHIVE},{}", redis_binary());
    let goal = ["unpack-dependencies", "-DexcludeTransitive=true", inside.as_str()];
    maven(dir, DATABASES_POM, &goal, "outputDirectory")?;
    let redis = dir.join(redis_binary());
    fs::set_permissions(&redis, fs::Permissions::from_mode(0o755))
        .map_err(StackError::io(format!("making {} executable", redis.display())))?;
    let base = dir.join("mysql");
    make_dir(&base)?;
    let archive = dir.join(MYSQL_ARCHIVE);
    run(Command::new("tar").arg("xzf").arg(&archive).arg("-C").arg(&base))?;
    fs::remove_file(&archive).map_err(StackError::io(format!("removing {}", archive.display())))
}

/// Runs a tool to its end; it dies with us as every other child does.
pub(crate) fn run(command: &mut Command) -> Result<(), StackError> {
    run_fed(command, Stdio::null())
}

/// The same for a tool that reads.
pub(crate) fn run_fed(command: &mut Command, input: Stdio) -> Result<(), StackError> {
    let what = command.get_program().to_string_lossy().into_owned();
    let output = crate::errand::output_fed(command, input)
        .map_err(StackError::io(format!("running {what}")))?;
    if output.status.success() {
        return Ok(());
    }
    let text = [output.stdout, output.stderr].concat();
    let output_text = String::from_utf8_lossy(&text).into_owned();
    Err(StackError::Command { what, status: output.status, output: output_text })
}
