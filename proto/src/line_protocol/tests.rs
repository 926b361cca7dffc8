//! Lines by InfluxDB's rules: what is read, what is refused by which name, on which line.

use proptest::prelude::*;

use super::*;

/// Lines that are text.
fn texts(body: &str) -> impl Iterator<Item = (usize, &str)> {
    lines(body.as_bytes()).map(|(number, text)| (number, text.unwrap()))
}

fn parsed(text: &str) -> Result<Line<'_>, LineFault> {
    let mut line = Line::default();
    parse(text, &mut line).map(|()| line)
}

/// `measurement{tag=value,…} field=value,… @time`, without any escapes.
fn shown(text: &str) -> String {
    let line = parsed(text).unwrap();
    let tags: Vec<_> = line.tags.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let fields: Vec<_> = line
        .fields
        .iter()
        .map(|(name, value)| match value {
            Field::Number(number) => format!("{name}={number}"),
            Field::Text => format!("{name}=text"),
        })
        .collect();
    let time = line.time.map_or(String::new(), |time| format!(" @{time}"));
    format!("{}{{{}}} {}{time}", line.measurement, tags.join(","), fields.join(","))
}

#[test]
fn the_documented_examples_are_read() {
    for (text, wanted) in [
        (
            "weather,location=us-midwest temperature=82,humidity=71i 1465839830100400200",
            "weather{location=us-midwest} temperature=82,humidity=71 @1465839830100400200",
        ),
        (
            r"wea\,ther,loc\ ation=us\=mid temp\=erature=82 1465839830100400200",
            "wea,ther{loc ation=us=mid} temp=erature=82 @1465839830100400200",
        ),
        (
            r#"cpu\ load,host=web-1,a\,b=c\=d user=1.5,n=-3i,u=7u,on=t,off=F,s="x, y=\" z" 9"#,
            "cpu load{a,b=c=d,host=web-1} user=1.5,n=-3,u=7,on=1,off=0,s=text @9",
        ),
        ("m,b=2,a=1   v=-1e3   -5  ", "m{a=1,b=2} v=-1000 @-5"),
        ("m v=.5,w=5.,x=1E+2,\"q\"=1", "m{} v=0.5,w=5,x=100,\"q\"=1"),
    ] {
        assert_eq!(shown(text), wanted, "{text}");
    }
}

#[test]
fn a_backslash_before_anything_that_needs_none_means_itself() {
    for (text, wanted) in [
        (r"m,disk=C:\\x v=1", r"m{disk=C:\\x} v=1"),
        (r"m\=n\a v=1", r"m\=n\a{} v=1"),
        (r"a\\,b v=1", r"a\,b{} v=1"),
        (r"m,t=a\\\ b v=1", r"m{t=a\\ b} v=1"),
        (r#"m t="ends in \\",v=1"#, "m{} t=text,v=1"),
    ] {
        assert_eq!(shown(text), wanted, "{text}");
    }
}

#[test]
fn each_fault_of_a_line_has_its_name() {
    for (text, fault) in [
        (",a=b c=1", LineFault::Measurement),
        ("m,a c=1", LineFault::Tag),
        ("m,a= c=1", LineFault::Tag),
        ("m,=a c=1", LineFault::Tag),
        ("m, c=1", LineFault::Tag),
        ("m,a=b=c c=1", LineFault::Tag),
        ("m,a=1,b=2,a=3 c=1", LineFault::Tag),
        ("m,a=b", LineFault::Fields),
        ("m", LineFault::Fields),
        ("m c", LineFault::Field),
        ("m =1", LineFault::Field),
        ("m c=1,", LineFault::Field),
        ("m c=1, d=2", LineFault::Field),
        ("m c=", LineFault::Value),
        ("m c=1x", LineFault::Value),
        ("m c=1.5i", LineFault::Value),
        ("m c=-1u", LineFault::Value),
        ("m c=+1", LineFault::Value),
        ("m c=+1i", LineFault::Value),
        ("m c=nan", LineFault::Value),
        ("m c=1e999", LineFault::Value),
        ("m c=9223372036854775808i", LineFault::Value),
        (r"m s=\x=2", LineFault::Value),
        ("m c=\"x\"y", LineFault::Value),
        ("m c=\"x", LineFault::Text),
        (r#"m c="x\""#, LineFault::Text),
        ("m c=1 soon", LineFault::Time),
        ("m c=1 +5", LineFault::Time),
        ("m c=1 5 6", LineFault::Time),
        ("m c=1 1.5", LineFault::Time),
    ] {
        assert_eq!(parsed(text).err(), Some(fault), "{text}");
    }
    let long = format!("{} c=1", "m".repeat(METRIC_BYTES_MAX + 1));
    assert_eq!(parsed(&long).err(), Some(LineFault::Long));
    let many: Vec<String> = (0..=PARTS_MAX).map(|n| format!("f{n}=1")).collect();
    assert_eq!(parsed(&format!("m {}", many.join(","))).err(), Some(LineFault::TooMany));
}

#[test]
fn a_line_break_in_a_text_does_not_end_a_line_and_lines_keep_their_numbers() {
    let body = "# a \"comment\na b=1\r\n\n\0\nc d=\"x\ny\",e=2\nf g=3\n  # no line\nh,t=\" i=4\n";
    let lines: Vec<_> = texts(body).collect();
    let wanted = [(2, "a b=1"), (5, "c d=\"x\ny\",e=2"), (7, "f g=3"), (9, "h,t=\" i=4")];
    assert_eq!(lines, wanted);
}

#[test]
fn bytes_that_are_no_text_cost_their_own_line() {
    let body = b"a b=1\n\xff b=1\n# \xff\n\xff\n c d=\"\xc3\n\",e=2 \ng h=3";
    let lines: Vec<_> = lines(body).collect();
    let wrong = Err(LineFault::NotText);
    let wanted = [(1, Ok("a b=1")), (2, wrong), (4, wrong), (5, wrong), (7, Ok("g h=3"))];
    assert_eq!(lines, wanted);
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
    assert_eq!(Precision::named("fortnight"), None);
}

/// As clients write it: what they must escape, and nothing else.
fn escaped(text: &str, what: &[char]) -> String {
    let before = |c: char| if what.contains(&c) { vec!['\\', c] } else { vec![c] };
    text.chars().flat_map(before).collect()
}

/// A line as it would be sent; what a text holds is not kept.
fn written(line: &Line<'_>) -> String {
    let name = |text: &str| escaped(text, &OF_NAME);
    let tags = line.tags.iter().map(|(tag, value)| format!(",{}={}", name(tag), name(value)));
    let fields = line.fields.iter().map(|(field, value)| match value {
        Field::Number(value) => format!("{}={value:?}", name(field)),
        Field::Text => format!("{}=\"\"", name(field)),
    });
    let (tags, fields): (String, Vec<_>) = (tags.collect(), fields.collect());
    let time = line.time.map_or(String::new(), |time| format!(" {time}"));
    let measurement = escaped(&line.measurement, &OF_MEASUREMENT);
    format!("{measurement}{tags} {}{time}", fields.join(","))
}

proptest! {
    #[test]
    fn any_text_ends_in_lines_or_faults(body in any::<String>()) {
        for (number, text) in texts(&body) {
            prop_assert!(number <= body.len());
            let _told = parsed(text).is_ok();
        }
    }

    #[test]
    fn nearly_right_lines_never_panic_and_hold_what_they_say_when_written_down_too(
        body in "[a-c,= \\\\\"\n0-9iut.#+-]{0,60}"
    ) {
        for (_, text) in texts(&body) {
            let Ok(line) = parsed(text) else { continue };
            prop_assert!(!line.measurement.is_empty() && !line.fields.is_empty());
            let names = line.tags.iter().map(|(name, _)| name);
            prop_assert!(names.is_sorted_by(|one, other| one < other));
            let finite = |(_, value): &(Text<'_>, Field)| match value {
                Field::Number(number) => number.is_finite(),
                Field::Text => true,
            };
            prop_assert!(line.fields.iter().all(finite));
            let written = written(&line);
            let again = parsed(&written);
            prop_assert_eq!(again.as_ref(), Ok(&line), "{:?}", written);
        }
    }

    #[test]
    fn what_a_client_writes_is_read_back(
        // A backslash at the end would take the meaning of what follows: clients cut it off.
        measurement in "[a-zé ,=\\\\\"]{0,8}[a-z]",
        tag in "[a-zé ,=\\\\\"]{0,8}[a-z]",
        field in "[a-zé ,=\\\\\"]{0,8}[a-z]",
        text in "[a-z ,=\\\\\"\n]{0,9}",
        value in any::<f64>().prop_filter("finite", |value| value.is_finite()),
        time in any::<i64>(),
    ) {
        // Nor can one before a comma or a space be told from an escape.
        prop_assume!([&measurement, &tag, &field].iter().all(|name| {
            !["\\,", "\\ ", "\\="].iter().any(|pair| name.contains(pair))
        }));
        prop_assume!(!measurement.starts_with('#') && !measurement.starts_with(' '));
        let body = format!(
            "{},k={} t=\"{}\",{}={value} {time}\n",
            escaped(&measurement, &OF_MEASUREMENT),
            escaped(&tag, &OF_NAME),
            escaped(&text, &['"', '\\']),
            escaped(&field, &OF_NAME),
        );
        let all: Vec<_> = texts(&body).collect();
        prop_assert_eq!(all.len(), 1);
        let line = parsed(all[0].1).unwrap();
        prop_assert_eq!(&*line.measurement, measurement);
        prop_assert_eq!(&*line.tags[0].1, tag);
        prop_assert_eq!(line.fields[0].1, Field::Text);
        prop_assert_eq!((&*line.fields[1].0, line.fields[1].1), (&*field, Field::Number(value)));
        prop_assert_eq!(line.time, Some(time));
    }
}
