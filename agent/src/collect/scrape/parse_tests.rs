//! Lines as exporters write them, odd ones, and bytes of any kind.

use proptest::prelude::*;

use super::*;

type Own = (String, Vec<(String, String)>, f64);
type Case<'a> = (&'a str, &'a str, &'a [(&'a str, &'a str)], f64);

fn sample(line: &str) -> Option<Own> {
    let mut labels = Vec::new();
    match parse(line.as_bytes(), &mut labels) {
        Ok(Line::Sample(sample)) => {
            let name = sample.metric.into_owned();
            let own = |(k, v): &(Cow<'_, str>, Cow<'_, str>)| (k.to_string(), v.to_string());
            Some((name, labels.iter().map(own).collect(), sample.value))
        }
        _ => None,
    }
}

fn labels(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
}

#[test]
fn the_documented_examples_are_read() {
    let cases: [Case<'_>; 9] = [
        (
            "http_requests_total{method=\"post\",code=\"200\"} 1027 1395066363000",
            "http_requests_total",
            &[("method", "post"), ("code", "200")],
            1027.0,
        ),
        (
            "metric_without_timestamp_and_labels 12.47",
            "metric_without_timestamp_and_labels",
            &[],
            12.47,
        ),
        (
            concat!(
                "msdos_file_access_time_seconds{path=\"C:\\\\DIR\\\\FILE.TXT\",",
                "error=\"Cannot find file:\\n\\\"FILE.TXT\\\"\"} 1.458255915e9",
            ),
            "msdos_file_access_time_seconds",
            &[("path", "C:\\DIR\\FILE.TXT"), ("error", "Cannot find file:\n\"FILE.TXT\"")],
            1.458255915e9,
        ),
        ("a{} +1 -3982045", "a", &[], 1.0),
        (
            "a_bucket{le=\"+Inf\"} 3 # {trace_id=\"x # y\"} 0.67 1.5",
            "a_bucket",
            &[("le", "+Inf")],
            3.0,
        ),
        ("a { b = \"c\" , } 7", "a", &[("b", "c")], 7.0),
        ("a\t{b=\"}\"}\t7 1.5e9", "a", &[("b", "}")], 7.0),
        (
            "{\"http.server.duration\", \"http.method\"=\"GET\"} 7",
            "http.server.duration",
            &[("http.method", "GET")],
            7.0,
        ),
        ("rpc:rate5m 0x", "", &[], 0.0),
    ];
    for (line, metric, pairs, value) in cases {
        let expected = (!metric.is_empty()).then(|| (metric.to_owned(), labels(pairs), value));
        assert_eq!(sample(line), expected, "{line}");
    }
    assert_eq!(sample("inf_gauge -Inf").unwrap().2, f64::NEG_INFINITY);
    assert!(sample("nan_gauge NaN").unwrap().2.is_nan());
}

#[test]
fn comments_tell_types_units_and_the_end() {
    let line = |text: &'static str| parse(text.as_bytes(), &mut Vec::new()).unwrap();
    assert_eq!(line("# TYPE a counter"), Line::Type { family: "a", name: "counter" });
    assert_eq!(line("#\tTYPE  a.b histogram "), Line::Type { family: "a.b", name: "histogram" });
    assert_eq!(line("# TYPE \"a b\" gauge"), Line::Type { family: "a b", name: "gauge" });
    assert_eq!(line("# UNIT a seconds"), Line::Unit { family: "a", unit: "seconds" });
    assert_eq!(line("# EOF"), Line::End);
    for nothing in ["# HELP a what it is", "#", "# ", "", "   ", "# TYPE", "## TYPE a gauge"] {
        assert!(
            matches!(line(nothing), Line::Nothing | Line::Type { family: "", .. }),
            "{nothing:?}"
        );
    }
}

#[test]
fn what_is_no_line_is_told_by_its_reason() {
    let cases: [(&[u8], Malformed); 14] = [
        (b"a", Malformed::Value),
        (b"a{", Malformed::Labels),
        (b"a{b", Malformed::Labels),
        (b"a{b=}", Malformed::Labels),
        (b"a{b=\"c} 1", Malformed::Labels),
        (b"a{b=\"c\" d=\"e\"} 1", Malformed::Labels),
        (b"a{b=\"c\",b=\"d\"} 1", Malformed::Labels),
        (b"a{=\"c\"} 1", Malformed::Labels),
        (b"a{\"b\"} 1", Malformed::Labels),
        (b"{a=\"b\"} 1", Malformed::Name),
        (b"1a 1", Malformed::Name),
        (b"a x", Malformed::Value),
        (b"a 1 2 3", Malformed::Timestamp),
        (b"\xff 1", Malformed::NotText),
    ];
    for (line, why) in cases {
        let shown = String::from_utf8_lossy(line);
        assert_eq!(parse(line, &mut Vec::new()), Err(why), "{shown}");
    }
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        drop(parse(&bytes, &mut Vec::new()));
    }

    #[test]
    fn nearly_right_lines_never_panic(line in "[a#{]{0,3}[ {}\"=,a-c\\\\\\n0-9.eE+#-]{0,40}") {
        let mut labels = Vec::new();
        if let Ok(Line::Sample(sample)) = parse(line.as_bytes(), &mut labels) {
            prop_assert!(!sample.metric.is_empty());
        }
    }

    #[test]
    fn what_an_exporter_writes_is_read_back(
        metric in "[a-zA-Z_:][a-zA-Z0-9_:]{0,20}",
        pairs in prop::collection::btree_map("[a-zA-Z_][a-zA-Z0-9_]{0,8}", any::<String>(), 0..5),
        value in any::<f64>(),
    ) {
        let escaped = |text: &str| {
            text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
        };
        let inside: Vec<_> = pairs.iter().map(|(k, v)| format!("{k}=\"{}\"", escaped(v))).collect();
        let line = format!("{metric}{{{}}} {value}", inside.join(","));
        // A line's own end can't be in it; any other control character may.
        prop_assume!(!line.contains('\n'));
        let (got, labels, read) = sample(&line).expect("a sample");
        prop_assert_eq!(got, metric);
        prop_assert_eq!(labels, pairs.into_iter().collect::<Vec<_>>());
        prop_assert!(read == value || (read.is_nan() && value.is_nan()));
    }
}
