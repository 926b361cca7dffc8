//! Programs of other makers that no package has: built once from the Go module proxy, or installed
//! from PyPI, into `target/tools`. A first run takes minutes; the others find what is there.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use spillway_testkit::binaries::target_dir;
use spillway_testkit::process::{Process, ProcessSpec};

/// Telegraf, the largest of them, takes seven minutes on one core.
const MADE_WITHIN: Duration = Duration::from_secs(30 * 60);

/// A Go program, built without a module of ours: from its own module's tree, with its own sums.
struct GoModule {
    program: &'static str,
    module: &'static str,
    version: &'static str,
    package: &'static str,
    tags: &'static str,
}

const VMAGENT: GoModule = GoModule {
    program: "vmagent",
    module: "github.com/VictoriaMetrics/VictoriaMetrics",
    version: "v1.93.5",
    package: "./app/vmagent",
    tags: "",
};

/// With the few of its four hundred plugins that the drill needs.
const TELEGRAF: GoModule = GoModule {
    program: "telegraf",
    module: "github.com/influxdata/telegraf",
    version: "v1.37.2",
    package: "./cmd/telegraf",
    tags: "custom,inputs.prometheus,parsers.prometheus,outputs.influxdb,outputs.influxdb_v2,\
           outputs.file,serializers.influx",
};

/// e2e/clients/otelcol; the version is in the program's name so that a new one is built.
const OTELCOL: &str = "otelcol-v0.152.0";

pub async fn vmagent() -> PathBuf {
    VMAGENT.built().await.expect("vmagent can be built")
}

pub async fn telegraf() -> PathBuf {
    TELEGRAF.built().await.expect("Telegraf can be built")
}

/// The OpenTelemetry collector, put together in e2e/clients/otelcol.
pub async fn otelcol() -> PathBuf {
    go_build(OTELCOL, &clients().join("otelcol"), ".", "").await.expect("the collector is built")
}

/// Python with the libraries of e2e/clients/python.
pub async fn python() -> PathBuf {
    python_with_libraries().await.expect("PyPI has the libraries")
}

/// Where the sources of ours are.
pub fn clients() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("clients")
}

impl GoModule {
    async fn built(&self) -> Result<PathBuf, String> {
        let at = format!("{}@{}", self.module, self.version);
        let name = format!("{}-{}", self.program, self.version);
        if tools().join(&name).is_file() {
            return Ok(tools().join(name));
        }
        run(&name, "go", &["mod", "download", &at]).await?;
        let said = run(&name, "go", &["list", "-m", "-f", "{{.Dir}}", &at]).await?;
        let tree = said.lines().last().ok_or("go names no folder")?;
        go_build(&name, Path::new(tree), self.package, self.tags).await
    }
}

async fn go_build(name: &str, tree: &Path, package: &str, tags: &str) -> Result<PathBuf, String> {
    let done = tools().join(name);
    if done.is_file() {
        return Ok(done);
    }
    eprintln!("building {name} (once, some minutes)");
    let half = tools().join(format!("{name}.{}", std::process::id()));
    let (tree, half) = (tree.display().to_string(), half.display().to_string());
    let build = ["go", "build", "-C", &tree, "-mod=readonly", "-trimpath", "-buildvcs=false"];
    let more = ["-p=1", "-tags", tags, "-o", &half, package];
    // Whoever works on the machine meanwhile comes first.
    run(name, "nice", &[&["-n", "15"], &build[..], &more].concat()).await?;
    fs::rename(&half, &done).map_err(|error| format!("moving {name}: {error}"))?;
    Ok(done)
}

async fn python_with_libraries() -> Result<PathBuf, String> {
    let list = clients().join("python/requirements.txt");
    let wanted = fs::read(&list).map_err(|error| format!("requirements.txt: {error}"))?;
    let home = tools().join("python");
    let (python, has) = (home.join("bin/python"), home.join("requirements.txt"));
    if fs::read(&has).is_ok_and(|has| has == wanted) {
        return Ok(python);
    }
    let (folder, pip) = (home.display().to_string(), python.display().to_string());
    run("python", "python3", &["-m", "venv", "--clear", &folder]).await?;
    let list = list.display().to_string();
    run("python", &pip, &["-m", "pip", "install", "--quiet", "-r", &list]).await?;
    fs::write(has, wanted).map_err(|error| format!("noting what is installed: {error}"))?;
    Ok(python)
}

fn tools() -> PathBuf {
    let folder = target_dir().join("tools");
    // A drill's working folder is not the workspace.
    std::path::absolute(&folder).unwrap_or(folder)
}

/// Runs a step to its end and returns what it said.
async fn run(name: &str, program: &str, args: &[&str]) -> Result<String, String> {
    fs::create_dir_all(tools()).map_err(|error| format!("target/tools: {error}"))?;
    let log = tools().join(format!("{name}.log"));
    fs::write(&log, "").map_err(|error| format!("{}: {error}", log.display()))?;
    let spec = ProcessSpec {
        name: name.to_owned(),
        program: program.into(),
        args: args.iter().map(|arg| (*arg).to_owned()).collect(),
        env: Vec::new(),
        cwd: tools(),
        log: log.clone(),
    };
    let process = Process::start(spec).map_err(|error| {
        format!("{error}: these drills need Go 1.26 or later and Python 3.11 with venv")
    })?;
    let ended = process.wait(MADE_WITHIN).await;
    let said = fs::read_to_string(&log).unwrap_or_default();
    match ended {
        Some(status) if status.success() => Ok(said),
        Some(status) => Err(format!("{program} {args:?}: {status}: {said}")),
        None => Err(format!("{program} {args:?} is not done after {MADE_WITHIN:?}: {said}")),
    }
}
