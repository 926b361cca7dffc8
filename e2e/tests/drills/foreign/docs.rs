//! The blocks to copy of docs/clients.md, so that what a drill runs is what a reader copies.

use std::fs;
use std::path::Path;

use spillway_e2e::rig::Rig;

/// Where the page says that ingest-api is.
const API: &str = "https://ingest.example.com";

/// The `nth` fenced block below a heading, with the stack's address in place of the page's.
pub fn block(rig: &Rig, heading: &str, nth: usize) -> String {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/clients.md");
    let page = fs::read_to_string(page).expect("docs/clients.md is there");
    let below = page.split("\n### ").find(|section| section.starts_with(heading));
    let below = below.expect("the page has the heading");
    let fenced = below.split("```").skip(1).step_by(2).nth(nth).expect("the heading has a block");
    let (_language, text) = fenced.split_once('\n').expect("a block has lines");
    assert!(text.contains(API), "the block says where to send to: {text}");
    text.replace(API, &rig.stack.file().api[0])
}

/// The block with something else in place of what is of the reader's machine.
pub fn with(block: &str, theirs: &str, ours: &str) -> String {
    assert!(block.contains(theirs), "{theirs} is in the block: {block}");
    block.replace(theirs, ours)
}
