//! What every program promises on its command line and to signals, seen from outside a process.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Output, Stdio};

/// Cargo builds examples before it runs tests, beside the tests' own directory.
fn example() -> Command {
    let own: PathBuf = std::env::current_exe().unwrap();
    let path = own.parent().unwrap().parent().unwrap().join("examples/frame");
    let mut command = Command::new(path);
    command.stderr(Stdio::piped()).stdout(Stdio::piped());
    command
}

fn output(args: &[&str], env: &[(&str, &str)]) -> (i32, String, String) {
    let Output { status, stdout, stderr } =
        example().args(args).envs(env.iter().copied()).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code().unwrap(), text(stdout), text(stderr))
}

struct Running {
    child: Child,
    lines: BufReader<ChildStdout>,
}

impl Running {
    fn start(env: &[(&str, &str)]) -> Self {
        let mut child = example().envs(env.iter().copied()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap());
        let mut running = Self { child, lines };
        assert_eq!(running.line(), "ready");
        running
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.lines.read_line(&mut line).unwrap();
        line.trim().to_owned()
    }

    fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        let status = Command::new("kill").args(["-s", name, &pid]).status().unwrap();
        assert!(status.success());
    }

    fn end(self) -> (i32, String) {
        let Output { status, stderr, .. } = self.child.wait_with_output().unwrap();
        (status.code().unwrap(), String::from_utf8(stderr).unwrap())
    }
}

#[test]
fn config_check_tells_all_problems_and_exits_78() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("example.toml");
    std::fs::write(&file, "numbr = 5\n[shutdown]\ndrain_deadline = 10\n").unwrap();
    let args = ["--config", file.to_str().unwrap(), "config", "check"];
    let (code, _, errors) = output(&args, &[]);
    assert_eq!(code, 78);
    assert!(errors.contains("numbr: unknown key; did you mean `number`?"), "{errors}");
    assert!(errors.contains("shutdown.drain_deadline: invalid type"), "{errors}");
    std::fs::write(&file, "number = 5\n").unwrap();
    assert_eq!(output(&args, &[]).0, 0);
    let (code, _, errors) = output(&args, &[("SPILLWAY__NUMBER", "100")]);
    assert_eq!((code, errors.contains("number: must be below 100")), (78, true));
}

#[test]
fn who_only_looks_needs_no_sound_settings() {
    let (code, out, errors) = output(&["look"], &[("SPILLWAY__NUMBER", "100")]);
    assert_eq!((code, out.trim()), (0, "number 100"), "{errors}");
    let (code, _, errors) = output(&["look"], &[("SPILLWAY__NUMBER", "many")]);
    assert_eq!(code, 78, "what has not its type is nothing to go by: {errors}");
}

#[test]
fn a_program_refuses_to_run_with_wrong_settings_or_a_misfit_outside() {
    let (code, _, errors) = output(&[], &[("SPILLWAY__END", "soon")]);
    assert_eq!(code, 78, "{errors}");
    let (code, _, errors) = output(&[], &[("SPILLWAY__END", "misfit")]);
    assert_eq!((code, errors.contains("12 partitions, not 64")), (78, true));
}

#[test]
fn config_show_masks_and_config_sample_and_version_print() {
    let secret = [("SPILLWAY__PASSWORD", "hunter2")];
    let (code, shown, _) = output(&["config", "show"], &secret);
    assert_eq!((code, shown.contains("hunter2")), (0, false));
    assert!(shown.contains("password = \"********\""), "{shown}");
    assert!(output(&["config", "sample"], &[]).1.contains("# Below 100.\nnumber = 0"));
    assert_eq!(output(&["version"], &[]).1, "spillway-example 1.2.3\n");
    assert_eq!(output(&["--version"], &[]).1, "spillway-example 1.2.3\n");
    let (code, help, _) = output(&["--help"], &[]);
    assert!(code == 0 && help.contains("Examples:") && help.contains("Exit codes:"), "{help}");
}

#[test]
fn a_wrong_command_line_exits_64() {
    assert_eq!(output(&["--colour"], &[]).0, 64);
    assert_eq!(output(&["dance"], &[]).0, 64);
    assert_eq!(output(&["config"], &[]).0, 64);
}

#[test]
fn sigterm_drains_and_the_exit_code_tells_whether_something_was_left() {
    for (end, code) in [("clean", 0), ("left", 75)] {
        let mut program = Running::start(&[("SPILLWAY__END", end)]);
        program.signal("TERM");
        assert_eq!(program.line(), "draining");
        assert_eq!(program.end().0, code, "{end}");
    }
}

#[test]
fn a_second_signal_ends_at_once() {
    let mut program = Running::start(&[("SPILLWAY__END", "hang")]);
    program.signal("TERM");
    assert_eq!(program.line(), "draining");
    program.signal("INT");
    assert_eq!(program.end().0, 75);
}

#[test]
fn a_drain_that_never_ends_is_ended_by_its_deadline() {
    let env = [("SPILLWAY__END", "hang"), ("SPILLWAY__SHUTDOWN__DRAIN_DEADLINE", "10ms")];
    let program = Running::start(&env);
    program.signal("TERM");
    let (code, log) = program.end();
    assert_eq!((code, log.contains("drain deadline passed")), (75, true), "{log}");
}

#[test]
fn sighup_reloads_and_does_not_stop() {
    let mut program = Running::start(&[]);
    program.signal("HUP");
    assert_eq!(program.line(), "reloaded");
    program.signal("HUP");
    assert_eq!(program.line(), "reloaded");
    program.signal("TERM");
    assert_eq!(program.line(), "draining");
    assert_eq!(program.end().0, 0);
}

#[test]
fn logs_are_json_lines_when_nobody_is_at_a_terminal() {
    let mut program = Running::start(&[]);
    program.signal("TERM");
    assert_eq!(program.line(), "draining");
    let (_, log) = program.end();
    for line in log.lines() {
        let json: serde_json::Value = serde_json::from_str(line).unwrap();
        assert!(json["level"].is_string() && json["message"].is_string(), "{line}");
    }
    assert!(log.lines().count() >= 3, "{log}");
}
