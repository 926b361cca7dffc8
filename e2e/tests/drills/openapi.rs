//! What ingest-api says of its own routes, held against what it does, by a program that makes up
//! requests: schemathesis, from PyPI.

use std::process::Command;

use spillway_e2e::rig::Rig;
use spillway_testkit::stack::StackOptions;

/// Known to the drill, so that a new release changes nothing by surprise.
const SCHEMATHESIS: &str = "schemathesis==4.32.5";
/// What is looked at. Not: that unknown headers are refused, which HTTP forbids, and that random
/// bytes are frames.
const CHECKS: &str = "not_a_server_error,status_code_conformance,content_type_conformance,\
                      response_headers_conformance,response_schema_conformance,\
                      unsupported_method,allow_header_conformance,ignored_auth";

fn run(command: &mut Command) -> String {
    let output = command.output().expect("it starts");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    text
}

#[tokio::test(flavor = "multi_thread")]
async fn the_description_of_our_routes_is_what_they_do() {
    let rig = Rig::start(StackOptions::default()).await;
    let file = rig.stack.file();
    let venv = rig.stack.dir().join("schemathesis");
    run(Command::new("python3").args(["-m", "venv"]).arg(&venv));
    run(Command::new(venv.join("bin/pip")).args(["install", "--quiet", SCHEMATHESIS]));
    let described = format!("{}/openapi.json", file.api[0]);
    let token = format!("Authorization: Bearer {}", file.tokens["demo"]);
    let mut command = Command::new(venv.join("bin/schemathesis"));
    command.current_dir(&venv).args(["run", &described, "--header", &token]);
    command.args(["--phases", "examples,coverage,fuzzing", "--max-examples", "200"]);
    command.args(["--continue-on-failure", "--seed", "27", "--checks", CHECKS]);
    let told = run(&mut command);
    let summary = told.lines().rev().take(20).collect::<Vec<_>>();
    eprintln!("{}", summary.into_iter().rev().collect::<Vec<_>>().join("\n"));
}
