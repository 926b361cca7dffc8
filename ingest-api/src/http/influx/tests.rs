//! Lines by InfluxDB's rules: what is read, what is refused by which name, on which line.

use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::cut;

fn parsed(text: &str) -> Result<Line, LineFault> {
    let mut line = Line::default();
    parse(text, &mut line).map(|()| line)
}

fn texts(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

#[test]
fn a_line_is_taken_apart() {
    let line = parsed(r"cpu\ load,host=web-1,a\,b=c\=d user=1.5,n=-3i,u=7u,on=t,s=\x=2 9").err();
    assert_eq!(line, Some(LineFault::Value));
    let line = parsed(r#"cpu\ load,host=web-1,a\,b=c\=d user=1.5,n=-3i,u=7u,on=t,s="x, y" 9"#);
    let line = line.unwrap();
    assert_eq!(line.measurement, "cpu load");
    assert_eq!(line.tags, texts(&[("host", "web-1"), ("a,b", "c=d")]));
    let fields: Vec<(&str, Field)> =
        line.fields.iter().map(|(name, value)| (name.as_str(), *value)).collect();
    let number = Field::Number;
    let wanted =
        [("user", number(1.5)), ("n", number(-3.0)), ("u", number(7.0)), ("on", number(1.0))];
    assert_eq!(fields, [&wanted[..], &[("s", Field::Text)]].concat());
    assert_eq!(line.time, Some(9));
}

#[test]
fn each_fault_of_a_line_has_its_name() {
    for (text, fault) in [
        (",a=b c=1", LineFault::Measurement),
        ("m,a c=1", LineFault::Tag),
        ("m,a= c=1", LineFault::Tag),
        ("m,a=b", LineFault::Fields),
        ("m c", LineFault::Field),
        ("m c=", LineFault::Value),
        ("m c=1x", LineFault::Value),
        ("m c=nan", LineFault::Value),
        ("m c=\"x", LineFault::Text),
        ("m c=1 soon", LineFault::Time),
    ] {
        assert_eq!(parsed(text).err(), Some(fault), "{text}");
    }
}

#[test]
fn a_line_break_in_a_text_does_not_end_a_line_and_lines_keep_their_numbers() {
    let body = "# a \"comment\na b=1\r\n\nc d=\"x\ny\",e=2\nf g=3";
    let lines: Vec<_> = lines(body).collect();
    assert_eq!(lines, [(2, "a b=1"), (4, "c d=\"x\ny\",e=2"), (6, "f g=3")]);
}

#[test]
fn a_time_is_read_in_the_stated_unit() {
    for (precision, time, ms) in [
        ("", 1_500_999_999, 1_500),
        ("us", 1_500_999, 1_500),
        ("ms", 1_500, 1_500),
        ("s", 1, 1_000),
        ("m", 1, 60_000),
        ("h", 1, 3_600_000),
        ("ns", -1, -1),
    ] {
        assert_eq!(Precision::named(precision).unwrap().to_ms(time), ms, "{precision}");
    }
    assert_eq!(Precision::named("d"), None);
}

proptest! {
    #[test]
    fn any_text_ends_in_points_or_faults(body in "[a-c,= \\\\\"\n0-9i]{0,60}") {
        let mut intake = Intake::new(Arc::from("token"), 5);
        read(body.as_bytes(), Precision::Seconds, &mut intake).unwrap();
        prop_assert_eq!(cut::frames("demo", intake).1, 0);
    }
}
