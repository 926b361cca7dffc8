//! Files that the settings code writes: a sample and a reference page for each program.
//!
//! `cargo xtask generate` writes them, `cargo xtask check` compares. The programs themselves
//! print them (`config sample`, `config reference`), so what is shipped is what is read.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::{fs, io};

/// A program with settings of its own: package (and binary), and the name of its files.
struct Program {
    package: &'static str,
    file: &'static str,
}

const PROGRAMS: [Program; 6] = [
    Program { package: "spillway-agent", file: "agent" },
    Program { package: "spillway-ingest-api", file: "ingest-api" },
    Program { package: "spillway-consumer", file: "consumer" },
    Program { package: "spillway-recovery-worker", file: "recovery-worker" },
    Program { package: "spillway-keeper", file: "keeper" },
    Program { package: "spillway-console", file: "spillway" },
];

/// The two kinds of generated file.
const OUTPUTS: [Output; 2] = [
    Output { argument: "sample", folder: "deploy/config", extension: "toml" },
    Output { argument: "reference", folder: "docs/reference", extension: "md" },
];

struct Output {
    argument: &'static str,
    folder: &'static str,
    extension: &'static str,
}

/// A generated file as it should be.
struct Generated {
    path: PathBuf,
    text: Vec<u8>,
}

/// The files could not be made or written.
#[derive(Debug, thiserror::Error)]
pub enum GenerateError {
    #[error("cannot start {program}")]
    CannotStart { program: String, source: io::Error },
    #[error("{program} ended with {status}: {stderr}")]
    Failed { program: String, status: ExitStatus, stderr: String },
    #[error("cannot write {path}")]
    CannotWrite { path: PathBuf, source: io::Error },
}

/// Writes every generated file; returns how many changed.
pub fn run(root: &Path) -> Result<usize, GenerateError> {
    let mut changed = 0;
    for file in make(root)? {
        if is_fresh(root, &file) {
            continue;
        }
        let path = root.join(&file.path);
        let cannot_write = |source| GenerateError::CannotWrite { path: path.clone(), source };
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).map_err(cannot_write)?;
        }
        fs::write(&path, &file.text).map_err(cannot_write)?;
        println!("wrote {}", file.path.display());
        changed += 1;
    }
    Ok(changed)
}

/// Names every generated file that is missing or differs from what its program prints.
pub fn stale(root: &Path) -> Result<Vec<String>, GenerateError> {
    let files = make(root)?;
    let stale = files.iter().filter(|file| !is_fresh(root, file));
    let sentence =
        |file: &Generated| format!("{} is stale; run `cargo xtask generate`", file.path.display());
    Ok(stale.map(sentence).collect())
}

fn is_fresh(root: &Path, file: &Generated) -> bool {
    fs::read(root.join(&file.path)).is_ok_and(|text| text == file.text)
}

fn make(root: &Path) -> Result<Vec<Generated>, GenerateError> {
    let mut build = Command::new("cargo");
    build.args(["build", "--quiet"]).current_dir(root);
    for program in &PROGRAMS {
        build.args(["--package", program.package]);
    }
    output("cargo build", &mut build)?;
    let mut files = Vec::new();
    for program in &PROGRAMS {
        let binary = target_folder(root).join("debug").join(binary_of(program.package));
        for kind in &OUTPUTS {
            let mut print = Command::new(&binary);
            print.args(["config", kind.argument]).current_dir(root);
            let text = output(program.package, &mut print)?;
            let path = Path::new(kind.folder).join(format!("{}.{}", program.file, kind.extension));
            files.push(Generated { path, text });
        }
    }
    Ok(files)
}

/// The operators' command line is called by the system's own name.
fn binary_of(package: &str) -> &str {
    if package == "spillway-console" { "spillway" } else { package }
}

fn target_folder(root: &Path) -> PathBuf {
    let asked: Option<OsString> = std::env::var_os("CARGO_TARGET_DIR");
    asked.map_or_else(|| root.join("target"), |folder| root.join(folder))
}

fn output(program: &str, command: &mut Command) -> Result<Vec<u8>, GenerateError> {
    let program = || program.to_owned();
    let output = command
        .output()
        .map_err(|source| GenerateError::CannotStart { program: program(), source })?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        let status = output.status;
        return Err(GenerateError::Failed { program: program(), status, stderr });
    }
    Ok(output.stdout)
}
