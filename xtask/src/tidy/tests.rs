//! Each rule fires on a bad sample and is silent on a good one.

use super::{Finding, check_text, proofs};

fn messages(path: &str, text: &str) -> Vec<String> {
    check_text(path, text).into_iter().map(|finding| finding.to_string()).collect()
}

#[track_caller]
fn fires(path: &str, text: &str, expected: &str) {
    let found = messages(path, text);
    assert!(found.iter().any(|message| message.contains(expected)), "{expected}: {found:?}");
}

#[track_caller]
fn is_silent(path: &str, text: &str) {
    assert_eq!(messages(path, text), Vec::<String>::new());
}

/// A file of `body` under a proper head.
fn with_head(body: &str) -> String {
    format!("//! Promise.\n\n{body}\n")
}

fn function_of_lines(lines: usize) -> String {
    let body = "    work();\n".repeat(lines.saturating_sub(2));
    with_head(&format!("fn long() {{\n{body}}}"))
}

#[test]
fn a_function_of_70_lines_passes_and_one_of_71_does_not() {
    is_silent("agent/src/a.rs", &function_of_lines(70));
    fires("agent/src/a.rs", &function_of_lines(71), "fn long has 71 lines; at most 70");
}

#[test]
fn a_method_counts_as_a_function() {
    let body = "        work();\n".repeat(70);
    let text = with_head(&format!("impl A {{\n    fn long(&self) {{\n{body}    }}\n}}"));
    fires("agent/src/a.rs", &text, "fn long has 72 lines");
}

#[test]
fn test_code_may_not_have_long_functions_either() {
    fires("agent/tests/a.rs", &function_of_lines(71), "fn long has 71 lines");
}

#[test]
fn a_file_of_401_production_lines_is_too_long_and_tests_do_not_count() {
    let production = "const A: u8 = 1;\n".repeat(398);
    is_silent("agent/src/a.rs", &format!("//! Promise.\n\n{production}"));
    fires("agent/src/a.rs", &format!("//! Promise.\n\n\n{production}"), "401 lines of production");
    let tests = "#[cfg(test)]\nmod tests {\n    const B: u8 = 1;\n}\n";
    is_silent("agent/src/a.rs", &format!("//! Promise.\n\n{production}{tests}"));
}

#[test]
fn a_sibling_file_of_tests_may_be_long() {
    let tests = "const A: u8 = 1;\n".repeat(600);
    is_silent("agent/src/spool_tests.rs", &format!("//! Promise.\n{tests}"));
}

#[test]
fn long_in_file_tests_belong_in_a_sibling_file() {
    let body = "    const A: u8 = 1;\n".repeat(160);
    let text = with_head(&format!("#[cfg(test)]\nmod tests {{\n{body}}}"));
    fires("agent/src/a.rs", &text, "move to a sibling file");
}

#[test]
fn main_rs_has_at_most_60_lines() {
    let text = format!("//! Promise.\n{}", "const A: u8 = 1;\n".repeat(60));
    fires("agent/src/main.rs", &text, "61 lines of production code; at most 60");
}

#[test]
fn a_line_of_101_columns_is_too_wide() {
    let line = format!("// {}", "x".repeat(98));
    fires("agent/src/a.rs", &with_head(&line), "a.rs:3: 101 columns");
    let umlauts = format!("// {}", "ü".repeat(97));
    is_silent("agent/src/a.rs", &with_head(&umlauts));
}

#[test]
fn six_parameters_are_too_many_and_self_is_not_counted() {
    let five = "a: u8, b: u8, c: u8, d: u8, e: u8";
    is_silent("agent/src/a.rs", &with_head(&format!("impl A {{ fn f(&self, {five}) {{}} }}")));
    let text = with_head(&format!("fn f({five}, g: u8) {{}}"));
    fires("agent/src/a.rs", &text, "takes 6 parameters");
    let text = with_head(&format!("trait A {{ fn f({five}, g: u8); }}"));
    fires("agent/src/a.rs", &text, "takes 6 parameters");
}

#[test]
fn a_file_without_a_head_is_refused() {
    fires("agent/src/a.rs", "fn f() {}\n", "starts without `//!`");
}

#[test]
fn nothing_is_named_util_or_common_or_helpers() {
    for name in ["util", "utils", "common", "helpers", "manager", "types"] {
        fires(&format!("agent/src/{name}.rs"), "//! Promise.\n", "nothing is named");
        fires(&format!("lib/{name}/src/lib.rs"), "//! Promise.\n", "nothing is named");
        let text = with_head(&format!("mod {name} {{}}"));
        fires("agent/src/a.rs", &text, "nothing is named");
    }
}

#[test]
fn a_file_that_does_not_parse_is_named() {
    fires("agent/src/a.rs", "//! Promise.\nfn {", "does not parse");
}

#[test]
fn proto_does_no_io_however_it_is_imported() {
    let law = "proto does no I/O";
    for body in [
        "use std::fs;",
        "use std::{fmt, net::{IpAddr, TcpStream}};",
        "fn f() { std::fs::read(\"x\"); }",
        "async fn f() { tokio::time::sleep(d).await }",
        "fn f() { println!(\"{:?}\", std::time::SystemTime::now()) }",
    ] {
        fires("proto/src/a.rs", &with_head(body), law);
    }
    is_silent("proto/src/a.rs", &with_head("/// Not std::fs at all.\nfn f() { fmt::write() }"));
    is_silent("proto/tests/golden.rs", &with_head("use std::fs;"));
    is_silent("proto/src/a.rs", &with_head("#[cfg(test)]\nmod tests { use std::fs; }"));
}

#[test]
fn each_program_stays_ignorant_of_what_it_must_not_know() {
    fires("agent/src/a.rs", &with_head("use rdkafka::ClientConfig;"), "does not know Kafka");
    fires("agent/src/collect/exec.rs", &with_head("use sqlx::Row;"), "only as something to be");
    is_silent("agent/src/collect/mysql/status.rs", &with_head("use sqlx::Row;"));
    fires("ingest-api/src/a.rs", &with_head("use sqlx::Row;"), "does not know S3, MySQL");
    fires("ingest-api/src/a.rs", &with_head("use aws_sdk_s3 as s3;"), "does not know S3, MySQL");
    fires("consumer/src/a.rs", &with_head("use hyper::Request;"), "does not know HTTP or S3");
    fires("recovery-worker/src/a.rs", &with_head("use redis::Client;"), "MySQL or Redis");
}

#[test]
fn only_commit_rs_commits() {
    let text = with_head("async fn f() { transaction.commit().await }");
    fires("consumer/src/store/rows.rs", &text, "only commit.rs commits");
    is_silent("consumer/src/commit.rs", &text);
    let hidden = with_head("fn f() { select! { done = transaction.commit() => {} } }");
    fires("consumer/src/store/rows.rs", &hidden, "only commit.rs commits");
}

#[test]
fn only_retire_rs_deletes_objects() {
    let text = with_head("async fn f() { client.delete_object().send().await }");
    fires("recovery-worker/src/quarantine.rs", &text, "retire.rs deletes");
    fires("agent/src/a.rs", &text, "retire.rs deletes");
    is_silent("recovery-worker/src/retire.rs", &text);
}

#[test]
fn only_frame_knows_the_magic() {
    let text = with_head("const MAGIC: [u8; 4] = *b\"SPWF\";");
    fires("consumer/src/verify.rs", &text, "only proto's frame");
    fires("proto/src/batch.rs", &text, "only proto's frame");
    is_silent("proto/src/frame.rs", &text);
    is_silent("proto/src/frame/header.rs", &text);
}

#[test]
fn the_environment_is_read_in_settings_rs_only() {
    for body in ["fn f() { std::env::var(\"A\"); }", "use std::env::{self, var_os};"] {
        fires("keeper/src/app.rs", &with_head(body), "settings.rs and nowhere else");
        is_silent("keeper/src/settings.rs", &with_head(body));
        is_silent("lib/testkit/src/stack.rs", &with_head(body));
    }
    is_silent("keeper/src/app.rs", &with_head("fn f() { std::env::args(); }"));
}

#[test]
fn findings_come_in_the_order_of_their_lines() {
    let wide = format!("// {}", "x".repeat(98));
    let found = check_text("agent/src/a.rs", &format!("fn f() {{}}\n{wide}\nmod util {{}}\n"));
    let lines: Vec<usize> = found.iter().map(|Finding { line, .. }| *line).collect();
    assert_eq!(lines, [1, 2, 3]);
}

#[test]
fn a_page_names_no_proof_that_is_not_there() {
    let page =
        "Proof: `e2e/a.rs::it_holds`,\n`e2e/a.rs::it_was_renamed`, `e2e/gone.rs::x`, `a.rs`.";
    let read = |path: &str| (path == "e2e/a.rs").then(|| "async fn it_holds() {}".to_owned());
    let found = proofs::check_page("docs/guarantees.md", page, read);
    let lines: Vec<usize> = found.iter().map(|finding| finding.line).collect();
    assert_eq!(lines, [2, 2]);
}

#[test]
fn a_claim_of_the_threat_model_names_its_test_or_says_that_there_is_none() {
    let page = "# A\n| not here |\n## Who can do what\n| who | can't | seen by |\n|---|---|---|\n\
                | x | y | `a/b.rs::it_holds` |\n| x | y | no test of ours |\n| x | y | |\n\
                ## Next\n| not here |\n";
    let lines = |page| -> Vec<usize> {
        proofs::check_claims("docs/security.md", page).iter().map(|found| found.line).collect()
    };
    assert_eq!(lines(page), [8]);
    assert_eq!(lines("# A\n"), [1], "a table that went away is told as well");
}
