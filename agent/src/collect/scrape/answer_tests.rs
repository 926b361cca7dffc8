//! Whole answers: in any pieces, of every type, over each limit.

use proptest::prelude::*;

use super::*;
use crate::collect::tray::Tray;
use crate::collect::{Labels, Reading};

const LIMITS: Limits = Limits { samples: 100, labels: 10, label_value_bytes: 100 };

fn read(text: &[u8], piece: usize, must_end: bool) -> Result<Vec<Reading>, BadAnswer> {
    let tray = Tray::new(1 << 20);
    let mut pack = tray.pack(vec![("job".into(), "j".to_owned())] as Labels);
    let mut answer = Answer::new(&mut pack, 5, LIMITS, &["job"]);
    for piece in text.chunks(piece.max(1)) {
        answer.feed(piece)?;
    }
    answer.finish(must_end)?;
    Ok(pack.readings().map(|(_, reading)| reading).collect())
}

const CLASSIC: &str = "\
# HELP http_requests_total Requests.
# TYPE http_requests_total counter
http_requests_total{code=\"200\",job=\"theirs\"} 10 1395066363000
# TYPE rpc_seconds histogram
rpc_seconds_bucket{le=\"0.1\"} 3
rpc_seconds_bucket{le=\"+Inf\"} 4
rpc_seconds_sum 1.5
rpc_seconds_count 4
rpc_seconds_created 1.7e9
# TYPE lag_seconds summary
lag_seconds{quantile=\"0.5\"} NaN
lag_seconds_sum 7
lag_seconds_count 2
# TYPE mem_bytes gauge
mem_bytes 5
bare 1";

const OPEN: &str = "\
# TYPE jobs counter
jobs_total 3 1.5 # {trace_id=\"a\"} 1 1.5
jobs_created 1.0
# TYPE power_watts gauge
# UNIT power_watts watts
power_watts 4
# TYPE build info
build_info{version=\"1\"} 1
# TYPE state stateset
state{state=\"on\"} 1
# TYPE sizes gaugehistogram
sizes_bucket{le=\"1\"} 2
sizes_gcount 2
# EOF
";

fn shown(readings: &[Reading]) -> Vec<String> {
    let one = |r: &Reading| format!("{} {:?} {:?} {}", r.metric, r.kind, r.unit, r.labels.len());
    readings.iter().map(one).collect()
}

#[test]
fn every_type_of_the_text_format_gets_its_kind_and_unit() {
    let got = read(CLASSIC.as_bytes(), 7, false).unwrap();
    assert_eq!(
        shown(&got),
        [
            "http_requests_total Cumulative \"\" 3",
            "rpc_seconds_bucket Cumulative \"\" 2",
            "rpc_seconds_bucket Cumulative \"\" 2",
            "rpc_seconds_sum Cumulative \"seconds\" 1",
            "rpc_seconds_count Cumulative \"\" 1",
            "lag_seconds Gauge \"seconds\" 2",
            "lag_seconds_sum Cumulative \"seconds\" 1",
            "lag_seconds_count Cumulative \"\" 1",
            "mem_bytes Gauge \"bytes\" 1",
            "bare Gauge \"\" 1",
        ]
    );
    let names: Vec<_> = got[0].labels.iter().map(|(k, v)| format!("{k}={v}")).collect();
    assert_eq!(names, ["code=200", "exported_job=theirs", "job=j"]);
}

#[test]
fn every_type_of_openmetrics_gets_its_kind_and_unit() {
    let got = read(OPEN.as_bytes(), 11, true).unwrap();
    assert_eq!(
        shown(&got),
        [
            "jobs_total Cumulative \"\" 1",
            "power_watts Gauge \"watts\" 1",
            "build_info Gauge \"\" 2",
            "state Gauge \"\" 2",
            "sizes_bucket Gauge \"\" 2",
            "sizes_gcount Gauge \"\" 1",
        ]
    );
    let cut = OPEN.strip_suffix("# EOF\n").unwrap();
    assert!(matches!(read(cut.as_bytes(), 11, true), Err(BadAnswer::CutOff)));
}

#[test]
fn over_a_limit_the_whole_answer_is_refused_and_named() {
    let told = |text: String| read(text.as_bytes(), 1_000, false).unwrap_err().to_string();
    let many: String = (0..101).map(|n| format!("m{n} 1\n")).collect();
    assert!(told(many).starts_with("more than samples_max (100)"));
    let labels: Vec<_> = (0..11).map(|n| format!("l{n}=\"v\"")).collect();
    assert!(told(format!("a 1\na{{{}}} 1\n", labels.join(","))).contains("line 2"));
    let long = format!("a{{b=\"{}\"}} 1\n", "v".repeat(101));
    assert!(told(long).contains("label_value_bytes_max (100)"));
    assert!(told("a 1\n<html>\n".to_owned()).starts_with("line 2 has no metric's name"));
    assert!(told("x".repeat(LINE_BYTES_MAX + 1)).contains("line 1 is longer"));
}

proptest! {
    #[test]
    fn pieces_of_any_size_say_the_same(piece in 1_usize..200) {
        let whole = shown(&read(CLASSIC.as_bytes(), 1 << 20, false).unwrap());
        prop_assert_eq!(shown(&read(CLASSIC.as_bytes(), piece, false).unwrap()), whole);
    }

    #[test]
    fn no_bytes_make_it_panic(
        text in "[a-c_#{}\"=\\\\ \n0-9.TYPEcounter]{0,300}", piece in 1_usize..50
    ) {
        drop(read(text.as_bytes(), piece, false));
    }
}
