//! System calls that fail or kill, in a program that runs: strace attached to it.
//!
//! strace(1), "Tampering": `inject=CALLS:error=EIO`, `inject=CALLS:signal=KILL:when=N`; `when`
//! counts per thread and from the moment strace attached.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use spillway_e2e::rig::Rig;

/// strace says "attached" within this.
const ATTACHED_WITHIN: Duration = Duration::from_secs(20);

/// As long as this lives, the calls fail. Dropped: the program goes on undisturbed.
pub struct Injection {
    strace: Child,
}

impl Injection {
    /// Attaches to every thread of a running program; returns when all are traced.
    pub async fn attach(rig: &Rig, name: &str, calls: &str, fault: &str) -> Self {
        let pid = rig.stack.pid(name).expect("it runs");
        let mut command = Command::new("strace");
        command.args(["-qq", "-f", "-o", "/dev/null", "-p", &pid.to_string()]);
        command.args(["-e", &format!("trace={calls}"), "-e", &format!("inject={calls}:{fault}")]);
        command.stdin(Stdio::null()).stdout(Stdio::null());
        let strace = command.spawn().expect("strace is installed (apt install strace)");
        let mut injection = Self { strace };
        let until = Instant::now() + ATTACHED_WITHIN;
        while !all_traced(pid) {
            let ended = injection.strace.try_wait().expect("strace can be asked");
            // A program that was killed by its first call has taken strace with it.
            if ended.is_some() {
                break;
            }
            assert!(Instant::now() < until, "strace did not attach to {name}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        injection
    }
}

impl Drop for Injection {
    fn drop(&mut self) {
        // Asked politely it ends the call it tampers with, and then lets go.
        let pid = rustix::process::Pid::from_child(&self.strace);
        let asked = rustix::process::kill_process(pid, rustix::process::Signal::INT);
        if let Err(error) = asked {
            eprintln!("strace: {error}");
        }
        if let Err(error) = self.strace.wait() {
            eprintln!("strace: {error}");
        }
    }
}

/// Whether every thread of a process has a tracer (proc(5): `TracerPid` in status).
fn all_traced(pid: i32) -> bool {
    let Ok(threads) = std::fs::read_dir(format!("/proc/{pid}/task")) else { return false };
    threads.flatten().all(|thread| {
        let status = std::fs::read_to_string(thread.path().join("status")).unwrap_or_default();
        status.lines().any(|line| line.starts_with("TracerPid:") && !line.ends_with("\t0"))
    })
}

/// How a program starts without us.
pub struct Plain {
    name: String,
    program: PathBuf,
    args: Vec<String>,
}

impl Plain {
    pub fn of(rig: &Rig, name: &str) -> Self {
        let (mut program, mut args) = (PathBuf::new(), Vec::new());
        let looked = rig.stack.respec(name, |spec| {
            (program, args) = (spec.program.clone(), spec.args.clone());
        });
        looked.expect("it is one of ours");
        Self { name: name.to_owned(), program, args }
    }

    /// From its next start on the program runs under strace: the fault counts from its first call.
    /// It keeps its own process number (`-D`).
    pub fn under_strace(&self, rig: &Rig, calls: &str, fault: &str) {
        let (trace, inject) = (format!("trace={calls}"), format!("inject={calls}:{fault}"));
        let strace = ["-D", "-qq", "-f", "-o", "/dev/null", "-e", &trace, "-e", &inject];
        let mut args: Vec<String> = strace.iter().map(ToString::to_string).collect();
        args.push(self.program.display().to_string());
        args.extend(self.args.iter().cloned());
        self.respec(rig, "strace".into(), args);
    }

    /// …and from its next start on it runs alone.
    pub fn alone(&self, rig: &Rig) {
        self.respec(rig, self.program.clone(), self.args.clone());
    }

    fn respec(&self, rig: &Rig, program: PathBuf, args: Vec<String>) {
        let changed = rig.stack.respec(&self.name, |spec| {
            (spec.program, spec.args) = (program, args);
        });
        changed.expect("it is one of ours");
    }
}
