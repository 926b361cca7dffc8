//! What the journal says was begun and not ended: a shard between two primaries, groups that nobody
//! serves. For each the command that goes on, as it was typed.

use super::Lines;
use crate::answer::{Verdict, duration};
use crate::desk::Desk;
use crate::journal::{How, Unended, unended};

/// Lines of it at most, the newest: of more there is no hope to read them.
const SHOWN_MAX: usize = 10;

pub fn look(desk: &Desk, lines: &mut Lines) {
    let journal = &desk.settings.journal_file;
    let found = match unended(journal) {
        Ok(found) => found,
        Err(cause) => {
            let detail = format!("{} can't be read: {cause}", journal.display());
            let fix = "make it readable to you: it says what was begun and not ended";
            return lines.wrong(Verdict::Warning, "begun before", (detail, fix));
        }
    };
    if found.is_empty() {
        return lines.fine("begun before", "everything that was begun was ended");
    }
    for one in found.iter().rev().take(SHOWN_MAX) {
        tell(one, lines);
    }
}

fn tell(one: &Unended, lines: &mut Lines) {
    let what = match one.about.as_str() {
        "" => one.action.clone(),
        about => format!("{} {about}", one.action),
    };
    let ago = duration(jiff::Timestamp::now().duration_since(one.at).as_secs_f64().max(0.0));
    let begun = format!("begun {ago} ago by {}", one.by);
    let (verdict, detail) = match &one.how {
        How::Running(pid) => {
            return lines.fine(what, format!("{begun}, and under way (process {pid})"));
        }
        How::BrokenOff if one.action.starts_with("shard ") => {
            (Verdict::Critical, format!("{begun}, and never ended"))
        }
        How::BrokenOff => (Verdict::Warning, format!("{begun}, and never ended")),
        How::Failed(error) => (Verdict::Warning, format!("{begun}, and failed: {error}")),
    };
    lines.wrong(verdict, what, (detail, &way_on(one)));
}

/// What goes on, and what undoes it where something does.
fn way_on(one: &Unended) -> String {
    let command = &one.command;
    match one.action.as_str() {
        "shard switchover" | "shard failover" => format!(
            "`{command}` goes on; or, while no other server took over, `spillway shard unfence {}` \
             undoes it",
            one.about
        ),
        "shard move" => format!(
            "`{command}` goes on; moving the groups to where they were undoes it, while the new \
             shard has not taken them over"
        ),
        "token create" => "`spillway token ls`: revoke what nobody has seen the secret of".into(),
        "reader create" => {
            "`spillway reader ls`: revoke what nobody has seen the password of".into()
        }
        "incident open" | "incident update" | "incident close" => {
            "`spillway incident ls` shows whether it was written".into()
        }
        _ => format!("`{command}` again: what is done already is left as it is"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_move_that_was_broken_off_is_critical_with_the_command_that_goes_on() {
        let command = "spillway shard move --groups 0 --to s1";
        let one = Unended::example("shard move", "0", command);
        let mut lines = Lines::default();
        tell(&one, &mut lines);
        assert_eq!(lines.verdict, Verdict::Critical);
        assert!(lines.rows[0][3].as_str().unwrap().starts_with(&format!("`{command}` goes on")));
        let mut lines = Lines::default();
        tell(&Unended { how: How::Running(7), ..one }, &mut lines);
        assert_eq!(lines.verdict, Verdict::Ok, "a console that is at work is no fault");
    }
}
