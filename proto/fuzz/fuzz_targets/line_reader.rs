//! The reader of line protocol that the agent and ingest-api share: never a panic, numbers of lines
//! ascend, and a line that is taken apart and written down again is read as the same line.

#![no_main]

use std::fmt::Write as _;

use libfuzzer_sys::fuzz_target;
use spillway_proto::line_protocol::{Field, Line, lines, parse};

fuzz_target!(|data: &[u8]| {
    let mut before = 0;
    for (number, text) in lines(data) {
        assert!(number > before, "line {number} after {before}");
        before = number;
        let Ok(text) = text else { continue };
        let mut line = Line::default();
        if parse(text, &mut line).is_err() {
            continue;
        }
        assert!(!line.fields.is_empty() && !line.measurement.is_empty());
        assert!(line.tags.is_sorted_by(|one, other| one.0 < other.0));
        let written = written(&line);
        let mut again = Line::default();
        parse(&written, &mut again).expect("what was read can be read again");
        assert_eq!(line, again, "{written:?}");
    }
});

fn written(line: &Line<'_>) -> String {
    let mut text = escaped(&line.measurement, &[',', ' ']);
    for (name, value) in &line.tags {
        let (name, value) = (escaped(name, &[',', ' ', '=']), escaped(value, &[',', ' ', '=']));
        write!(text, ",{name}={value}").expect("a text takes it");
    }
    for (at, (name, field)) in line.fields.iter().enumerate() {
        let (before, name) = (if at == 0 { ' ' } else { ',' }, escaped(name, &[',', ' ', '=']));
        match field {
            Field::Number(value) => {
                assert!(value.is_finite());
                write!(text, "{before}{name}={value:?}").expect("a text takes it");
            }
            Field::Text => write!(text, "{before}{name}=\"\"").expect("a text takes it"),
        }
    }
    match line.time {
        Some(time) => text + &format!(" {time}"),
        None => text,
    }
}

fn escaped(name: &str, escapable: &[char]) -> String {
    let mut text = String::new();
    for character in name.chars() {
        if escapable.contains(&character) {
            text.push('\\');
        }
        text.push(character);
    }
    text
}
