//! The one folder a stack writes to. It is emptied at the start if an earlier stack left it,
//! refused if it holds anything else, and locked while in use.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use rustix::process::{Pid, Signal};

use crate::error::StackError;
use crate::process::ProcessSpec;

/// Lies in every stack's folder: what has it may be emptied.
const MARKER: &str = ".spillway-stack";

#[derive(Debug)]
pub struct StackDir {
    root: PathBuf,
    _lock: File,
    temporary: Option<tempfile::TempDir>,
}

impl StackDir {
    pub fn open(wanted: Option<&Path>) -> Result<Self, StackError> {
        let mut temporary = None;
        let root = match wanted {
            Some(dir) => dir.to_owned(),
            None => {
                let dir = tempfile::Builder::new().prefix("spillway-").tempdir();
                let dir = dir.map_err(StackError::io("making a temporary folder"))?;
                temporary.insert(dir).path().to_owned()
            }
        };
        let io = |e| StackError::io(format!("preparing {}", root.display()))(e);
        fs::create_dir_all(&root).map_err(io)?;
        let root = root.canonicalize().map_err(io)?;
        let lock = lock_folder(&root)?;
        end_leftovers(&root);
        empty(&root)?;
        for part in ["config", "data", "keys", "logs", "run", "secrets"] {
            fs::create_dir_all(root.join(part)).map_err(io)?;
        }
        Ok(Self { root, _lock: lock, temporary })
    }

    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    #[must_use]
    pub fn data(&self, name: &str) -> PathBuf {
        self.root.join("data").join(name)
    }

    #[must_use]
    pub fn log(&self, name: &str) -> PathBuf {
        self.root.join("logs").join(format!("{name}.log"))
    }

    #[must_use]
    pub fn config(&self, file: &str) -> PathBuf {
        self.root.join("config").join(file)
    }

    #[must_use]
    pub fn stack_json(&self) -> PathBuf {
        self.root.join("stack.json")
    }

    #[must_use]
    pub fn secret(&self, name: &str) -> PathBuf {
        self.root.join("secrets").join(name)
    }

    /// The recovery worker's private keys.
    #[must_use]
    pub fn keys(&self) -> PathBuf {
        self.root.join("keys")
    }

    #[must_use]
    pub fn tokens_toml(&self) -> PathBuf {
        self.root.join("tokens.toml")
    }

    /// How to start `spec.name` again, for `xtask stack-exec`.
    pub fn write_spec(&self, spec: &ProcessSpec) -> Result<(), StackError> {
        let text = serde_json::to_string_pretty(spec).unwrap_or_default();
        write_atomically(&spec_file(&self.root, &spec.name), &text)
    }

    pub fn write_pid(&self, name: &str, pid: i32) -> Result<(), StackError> {
        write_pid(&self.root, name, pid)
    }

    /// The pid that was last started under this name, be it by us or by `stack-exec`, if it lives.
    #[must_use]
    pub fn living_pid(&self, name: &str) -> Option<i32> {
        living(&pid_file(&self.root, name))
    }

    /// Keeps a temporary folder: somebody will want to read its logs.
    pub fn keep(&mut self) {
        if let Some(mut dir) = self.temporary.take() {
            dir.disable_cleanup(true);
        }
    }
}

pub(crate) fn spec_file(root: &Path, name: &str) -> PathBuf {
    root.join("run").join(format!("{name}.json"))
}

fn pid_file(root: &Path, name: &str) -> PathBuf {
    root.join("run").join(format!("{name}.pid"))
}

/// The process that a pid file names, unless it is gone and its number another's.
fn living(file: &Path) -> Option<i32> {
    let text = fs::read_to_string(file).ok()?;
    let (pid, started) = text.trim().split_once(' ')?;
    let pid = pid.parse().ok()?;
    (started_at(pid)? == started).then_some(pid)
}

/// What was started by hand with a `restart` command survives a stack that was killed itself. We
/// hold the lock now, so it serves nobody any more.
fn end_leftovers(root: &Path) {
    let files = fs::read_dir(root.join("run")).into_iter().flatten().flatten();
    let pid_files =
        files.map(|entry| entry.path()).filter(|p| p.extension().is_some_and(|e| e == "pid"));
    for pid in pid_files.filter_map(|file| living(&file)).filter_map(Pid::from_raw) {
        if let Err(error) = rustix::process::kill_process(pid, Signal::KILL) {
            tracing::debug!(%error, "a leftover ended by itself");
        }
    }
}

/// The pid with the process' start time, so that a reused pid is told apart.
pub(crate) fn write_pid(root: &Path, name: &str, pid: i32) -> Result<(), StackError> {
    let started = started_at(pid).unwrap_or_default();
    write_atomically(&pid_file(root, name), &format!("{pid} {started}\n"))
}

/// Field 22 of /proc/PID/stat (proc(5)), counted after the command's name, which may hold anything.
fn started_at(pid: i32) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_whitespace().nth(19).map(str::to_owned)
}

pub fn write_atomically(path: &Path, text: &str) -> Result<(), StackError> {
    let half = path.with_extension("half");
    fs::write(&half, text).map_err(StackError::io(format!("writing {}", half.display())))?;
    fs::rename(&half, path).map_err(StackError::io(format!("writing {}", path.display())))
}

fn lock_folder(root: &Path) -> Result<File, StackError> {
    let io = |e| StackError::io(format!("locking {}", root.display()))(e);
    let marker = root.join(MARKER);
    let is_empty = fs::read_dir(root).map_err(io)?.next().is_none();
    if !is_empty && !marker.exists() {
        return Err(StackError::Refused {
            what: format!("{} is not empty and no earlier stack's folder", root.display()),
        });
    }
    let lock = File::create(&marker).map_err(io)?;
    if lock.try_lock().is_err() {
        return Err(StackError::Refused {
            what: format!("{} is in use by another stack", root.display()),
        });
    }
    Ok(lock)
}

fn empty(root: &Path) -> Result<(), StackError> {
    let io = |e| StackError::io(format!("emptying {}", root.display()))(e);
    let entries: Vec<_> = fs::read_dir(root).and_then(Iterator::collect).map_err(io)?;
    for entry in entries.into_iter().filter(|entry| entry.file_name() != MARKER) {
        let path = entry.path();
        let removed = match entry.file_type() {
            Ok(kind) if kind.is_dir() => fs::remove_dir_all(&path),
            Ok(_) => fs::remove_file(&path),
            Err(e) => Err(e),
        };
        match removed {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(io(e)),
            _ => {}
        }
    }
    Ok(())
}
