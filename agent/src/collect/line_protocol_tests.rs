//! Lines of the reference, odd ones, and bytes of any kind.

use proptest::prelude::*;

use super::*;
use crate::collect::Labels;
use crate::collect::tray::Tray;

fn lines(text: &str, precision: Precision) -> Result<Vec<String>, BadLines> {
    let tray = Tray::new(1 << 20);
    let mut pack = tray.pack(Labels::new());
    read(text.as_bytes(), precision, 7, &mut pack)?;
    let shown = pack.readings().map(|(ts_ms, reading)| {
        let labels: Vec<_> = reading.labels.iter().map(|(k, v)| format!("{k}={v}")).collect();
        format!("{}{{{}}} {} @{ts_ms}", reading.metric, labels.join(","), reading.value)
    });
    Ok(shown.collect())
}

#[test]
fn the_documented_examples_are_read() {
    let ns = |text: &str| lines(text, Precision::Nanoseconds).unwrap();
    assert_eq!(
        ns("weather,location=us-midwest temperature=82,humidity=71i 1465839830100400200"),
        [
            "weather_temperature{location=us-midwest} 82 @1465839830100",
            "weather_humidity{location=us-midwest} 71 @1465839830100",
        ]
    );
    assert_eq!(
        ns("wea\\,ther,loc\\ ation=us\\=mid temp\\=erature=82 1465839830100400200"),
        ["wea,ther_temp=erature{loc ation=us=mid} 82 @1465839830100"]
    );
    assert_eq!(
        ns("a value=1u\n\n# comment\r\nb on=true,off=F,text=\"x, y=\\\" z\",n=-1e3\r\n"),
        ["a{} 1 @7", "b_on{} 1 @7", "b_off{} 0 @7", "b_n{} -1000 @7"]
    );
    assert_eq!(lines("a v=1 5", Precision::Seconds).unwrap(), ["a_v{} 1 @5000"]);
    assert_eq!(Precision::named("ms"), Some(Precision::Milliseconds));
    assert_eq!(Precision::named("fortnight"), None);
}

#[test]
fn what_is_no_line_is_told_by_its_reason_and_number() {
    let cases = [
        ("a v=1\na", 2, Malformed::Field),
        (",a=b v=1", 1, Malformed::Measurement),
        ("a,b v=1", 1, Malformed::Tag),
        ("a,b= v=1", 1, Malformed::Tag),
        ("a v", 1, Malformed::Field),
        ("a =1", 1, Malformed::Field),
        ("a v=x", 1, Malformed::Field),
        ("a v=NaN", 1, Malformed::Field),
        ("a v=1.5i", 1, Malformed::Field),
        ("a v=\"x", 1, Malformed::Field),
        ("a v=1 soon", 1, Malformed::Time),
        ("a v=1 -5", 1, Malformed::Time),
    ];
    for (text, line, why) in cases {
        let got = lines(text, Precision::Nanoseconds);
        assert_eq!(got, Err(BadLines::Line { line, why }), "{text}");
    }
    let far = lines("a v=1 9223372036854775807", Precision::Hours);
    assert_eq!(far, Err(BadLines::Line { line: 1, why: Malformed::Time }));
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let tray = Tray::new(1 << 16);
        let got = read(&bytes, Precision::Nanoseconds, 7, &mut tray.pack(Labels::new()));
        prop_assert!(got.is_err() || got.is_ok_and(|readings| readings <= bytes.len()));
    }

    #[test]
    fn nearly_right_lines_never_panic(text in "[ab,= \\\\\"\n0-9iut.]{0,60}") {
        drop(lines(&text, Precision::Milliseconds));
    }

    #[test]
    fn what_a_client_writes_is_read_back(
        name in "[a-zé ,=]{1,10}", tag in "[a-zé ,=]{1,10}", value in -1e12_f64..1e12
    ) {
        let escaped = |text: &str| {
            text.replace(',', "\\,").replace('=', "\\=").replace(' ', "\\ ")
        };
        let line = format!("m,k={} {}={value} 5", escaped(&tag), escaped(&name));
        let got = lines(&line, Precision::Milliseconds).unwrap();
        let metric = if name == "value" { "m".to_owned() } else { format!("m_{name}") };
        prop_assert_eq!(got, vec![format!("{metric}{{k={tag}}} {value} @5")]);
    }
}
