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
fn each_number_becomes_a_gauge_of_measurement_and_field() {
    let ns = |text: &str| lines(text, Precision::Nanoseconds).unwrap();
    assert_eq!(
        ns("weather,location=us-midwest temperature=82,humidity=71i 1465839830100400200"),
        [
            "weather_temperature{location=us-midwest} 82 @1465839830100",
            "weather_humidity{location=us-midwest} 71 @1465839830100",
        ]
    );
    assert_eq!(
        ns("a value=1u\n\n# comment\r\nb on=true,off=F,text=\"x, y=\\\" \nz\",n=-1e3\r\n"),
        ["a{} 1 @7", "b_on{} 1 @7", "b_off{} 0 @7", "b_n{} -1000 @7"]
    );
    assert_eq!(lines("a v=1 5", Precision::Seconds).unwrap(), ["a_v{} 1 @5000"]);
}

#[test]
fn what_is_no_line_is_told_by_its_reason_and_number() {
    let cases = [
        ("a v=1\na", 2, LineFault::Fields),
        (",a=b v=1", 1, LineFault::Measurement),
        ("a t=\"x\ny\"\na,b v=1", 3, LineFault::Tag),
        ("a v=x", 1, LineFault::Value),
        ("a v=\"x", 1, LineFault::Text),
        ("a v=1 soon", 1, LineFault::Time),
    ];
    for (text, line, why) in cases {
        let got = lines(text, Precision::Nanoseconds);
        assert_eq!(got, Err(BadLines::Line { line, why }), "{text}");
    }
    for (text, precision) in
        [("a v=1 -5", Precision::Nanoseconds), ("a v=1 9223372036854775807", Precision::Hours)]
    {
        assert_eq!(lines(text, precision), Err(BadLines::Time { line: 1 }), "{text}");
    }
    let tray = Tray::new(1 << 16);
    let mut pack = tray.pack(Labels::new());
    let got = read(b"a v=1\nb v=\"\xff\"", Precision::Nanoseconds, 7, &mut pack);
    assert_eq!(got, Err(BadLines::Line { line: 2, why: LineFault::NotText }));
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let tray = Tray::new(1 << 16);
        let got = read(&bytes, Precision::Nanoseconds, 7, &mut tray.pack(Labels::new()));
        prop_assert!(got.is_err() || got.is_ok_and(|readings| readings <= bytes.len()));
    }
}
