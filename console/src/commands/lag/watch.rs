//! `spillway lag --watch`: the same picture again and again, drawn over the last one.

use std::io::{IsTerminal, Write};
use std::time::Duration;

use super::{History, answer, measure_again};
use crate::answer::Answer;
use crate::cli::{Lag, Output};
use crate::desk::Desk;
use crate::failure::Failure;

/// How often it looks.
const EVERY: Duration = Duration::from_secs(2);
/// Home, and erase what is below: the screen does not flicker as it would when cleared first.
const REDRAW: &str = "\x1b[H\x1b[J";

/// Looks until interrupted; a look that fails is told and tried again. Its verdict is the last
/// look's. JSON is one line a look.
pub async fn watch(desk: &Desk, options: &Lag) -> Result<Answer, Failure> {
    let map = desk.shards()?;
    let mut history = History::default();
    let mut verdict;
    let on_screen = std::io::stdout().is_terminal();
    loop {
        let looked = measure_again(desk, &map, &mut history).await;
        let text = match looked {
            Ok(look) => {
                let answer = answer::answer(&look, options.partitions);
                verdict = answer.verdict;
                match desk.options.output {
                    Output::Json => format!("{}\n", answer.to_json()),
                    Output::Table => framed(desk, &answer, on_screen),
                }
            }
            Err(failure) => {
                eprintln!("spillway: {}", failure.sentence());
                verdict = crate::answer::Verdict::Critical;
                String::new()
            }
        };
        let mut out = std::io::stdout().lock();
        let written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
        drop(out);
        if written.is_err() {
            break;
        }
        tokio::select! {
            interrupted = tokio::signal::ctrl_c() => {
                interrupted?;
                break;
            }
            () = tokio::time::sleep(EVERY) => {}
        }
    }
    let mut last = Answer::default();
    last.worsen(verdict);
    Ok(last)
}

fn framed(desk: &Desk, answer: &Answer, on_screen: bool) -> String {
    let clock = jiff::Timestamp::now().strftime("%H:%M:%S").to_string();
    let head = format!("spillway lag, {clock} UTC, every 2 s; Ctrl-C ends\n\n");
    let body = answer.to_text(desk.style());
    match on_screen {
        true => format!("{REDRAW}{head}{body}"),
        false => format!("{head}{body}\n"),
    }
}
