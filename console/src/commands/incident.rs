//! `spillway incident open|update|close|ls`: what the status page and its feeds tell of incidents.

use jiff::Timestamp;
use serde_json::Value as Json;

use crate::answer::Answer;
use crate::cli::{CloseIncident, Incident, OpenIncident, UpdateIncident};
use crate::consent::{Consent, Plan};
use crate::desk::Desk;
use crate::failure::{Failure, UsageError};
use crate::status::component::Part;
use crate::status::feed::new_id;
use crate::status::incidents::{
    self, Line, Opening, Phase, TEXT_CHARS_MAX, TITLE_CHARS_MAX, append, find,
};

pub fn run(desk: &Desk, command: Incident) -> Result<Answer, Failure> {
    match command {
        Incident::Open(options) => open(desk, options),
        Incident::Update(options) => update(desk, options),
        Incident::Close(options) => close(desk, options),
        Incident::Ls => ls(desk),
    }
}

fn open(desk: &Desk, options: OpenIncident) -> Result<Answer, Failure> {
    let title = checked("the title", &options.title, TITLE_CHARS_MAX)?;
    let text = checked("the text", &options.text, TEXT_CHARS_MAX)?;
    let part = |key: &String| {
        Part::from_key(key).ok_or_else(|| {
            let known: Vec<_> = Part::ALL.iter().map(|part| part.key()).collect();
            UsageError(format!("there is no component {key}; known are {}", known.join(", ")))
        })
    };
    let parts = options.component.iter().map(part).collect::<Result<Vec<_>, _>>()?;
    let who = if options.public { "everybody" } else { "operators only" };
    let step = format!("open the {} incident \"{title}\", for {who}", options.impact.words());
    let opening = Opening { title, impact: options.impact, parts, public: options.public };
    let (at, id) = (Timestamp::now(), new_id());
    let line = Line { at, id, phase: Phase::Investigating, text, opened: Some(opening) };
    tell(desk, "incident open", step, &line)
}

fn update(desk: &Desk, options: UpdateIncident) -> Result<Answer, Failure> {
    if options.phase == Phase::Resolved {
        let sentence = "an incident is resolved by `spillway incident close`".to_owned();
        return Err(UsageError(sentence).into());
    }
    add(desk, "incident update", &options.id, options.phase, &options.text)
}

fn close(desk: &Desk, options: CloseIncident) -> Result<Answer, Failure> {
    add(desk, "incident close", &options.id, Phase::Resolved, &options.text)
}

fn add(
    desk: &Desk,
    action: &'static str,
    id: &str,
    phase: Phase,
    text: &str,
) -> Result<Answer, Failure> {
    let text = checked("the text", text, TEXT_CHARS_MAX)?;
    let incidents = incidents::read(&desk.settings.status.incidents_file)?;
    let incident = find(&incidents, id)?;
    let step = format!("tell of \"{}\": {}: {text}", incident.opening.title, phase.words());
    let line = Line { at: Timestamp::now(), id: incident.id, phase, text, opened: None };
    tell(desk, action, step, &line)
}

fn tell(desk: &Desk, action: &'static str, step: String, line: &Line) -> Result<Answer, Failure> {
    let mut answer = Answer::default();
    match desk.ask(&Plan { action, steps: vec![step] })? {
        Consent::Nothing(why) => {
            answer.note(why);
        }
        Consent::Given(entry) => {
            entry.end(append(&desk.settings.status.incidents_file, line))?;
            let id = line.id.simple().to_string();
            answer.fact("id", id.chars().take(8).collect::<String>());
            answer.fact("phase", line.phase.words());
        }
    }
    Ok(answer)
}

fn ls(desk: &Desk) -> Result<Answer, Failure> {
    let incidents = incidents::read(&desk.settings.status.incidents_file)?;
    let mut answer = Answer::default();
    let columns = ["id", "phase", "impact", "public", "opened", "updated", "title"];
    let section = answer.section("incidents", &columns);
    for incident in incidents.iter().rev() {
        let moment = |at: Timestamp| Json::from(at.strftime("%Y-%m-%d %H:%M").to_string());
        section.row([
            incident.short_id().into(),
            incident.phase().words().into(),
            incident.opening.impact.words().into(),
            incident.opening.public.into(),
            moment(incident.opened_at()),
            moment(incident.updated_at()),
            incident.opening.title.clone().into(),
        ]);
    }
    Ok(answer)
}

fn checked(what: &str, text: &str, chars_max: usize) -> Result<String, UsageError> {
    let text = text.trim();
    if text.is_empty() || text.chars().count() > chars_max {
        return Err(UsageError(format!("{what} has 1 to {chars_max} characters")));
    }
    if text.chars().any(|c| c.is_control() && c != '\n') {
        return Err(UsageError(format!("{what} has control characters")));
    }
    Ok(text.to_owned())
}
