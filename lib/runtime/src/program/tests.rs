//! The frame's promises that need no process of their own; `tests/frame.rs` has the others.

use super::*;

#[derive(Debug, thiserror::Error)]
#[error("outer")]
struct Outer(#[source] Misconfigured);

#[test]
fn errors_about_settings_end_with_78_even_when_wrapped_and_others_with_1() {
    let wrong = || Misconfigured("64 partitions expected, the topic has 12".to_owned());
    assert_eq!(exit_code(Err(wrong().into())), EXIT_CONFIG);
    assert_eq!(exit_code(Err(Outer(wrong()).into())), EXIT_CONFIG);
    assert_eq!(exit_code(Err("broken".into())), EXIT_FAILED);
    assert_eq!(exit_code(Ok(Drained::Everything)), EXIT_OK);
    assert_eq!(exit_code(Ok(Drained::Left("3 batches".to_owned()))), EXIT_LEFT);
}

#[test]
fn a_chain_of_causes_reads_as_one_sentence() {
    let error = Outer(Misconfigured("inner".to_owned()));
    assert_eq!(chain(&error), "outer: inner");
}
