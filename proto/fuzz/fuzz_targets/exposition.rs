//! A target's answer, cut anywhere: never a panic, and the same whatever the pieces.

#![no_main]

use libfuzzer_sys::fuzz_target;
use spillway_agent::collect::scrape::answer::{Answer, Limits};
use spillway_agent::collect::tray::Tray;

const LIMITS: Limits = Limits { samples: 1_000, labels: 32, label_value_bytes: 1_024 };

fn read(tray: &Tray, pieces: &[&[u8]]) -> Option<usize> {
    let mut pack = tray.pack(Vec::new());
    let mut answer = Answer::new(&mut pack, 1, LIMITS, &["job"]);
    pieces.iter().try_for_each(|piece| answer.feed(piece)).ok()?;
    let samples = answer.finish(false).ok()?;
    assert_eq!(pack.readings().count(), samples);
    Some(samples)
}

fuzz_target!(|data: &[u8]| {
    let tray = Tray::new(1 << 24);
    let Some((cut, text)) = data.split_first() else { return };
    let (first, second) = text.split_at(usize::from(*cut).min(text.len()));
    assert_eq!(read(&tray, &[text]), read(&tray, &[first, second]));
    assert_eq!(tray.bytes(), 0);
});
