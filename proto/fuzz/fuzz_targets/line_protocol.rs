//! A body of line protocol from any program on the host: never a panic, and what is taken has a
//! time and a value that a batch can hold.

#![no_main]

use libfuzzer_sys::fuzz_target;
use spillway_agent::collect::line_protocol::{Precision, read};
use spillway_agent::collect::tray::Tray;
use spillway_proto::limits::TS_MS_MAX;

fuzz_target!(|data: &[u8]| {
    let tray = Tray::new(1 << 24);
    for precision in [Precision::Nanoseconds, Precision::Hours] {
        let mut pack = tray.pack(Vec::new());
        let Ok(readings) = read(data, precision, 7, &mut pack) else { continue };
        assert_eq!(pack.readings().count(), readings);
        for (ts_ms, reading) in pack.readings() {
            assert!((0..=TS_MS_MAX).contains(&ts_ms) && reading.value.is_finite());
            assert!(reading.labels.is_sorted_by(|a, b| a.0 < b.0));
        }
    }
});
