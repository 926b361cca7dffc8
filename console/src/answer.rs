//! What a command found, and the two ways of printing it.
//!
//! Every command returns an [`Answer`]; whoever runs the console in a script gets the same facts
//! as JSON, under the same names.

mod table;

use serde_json::{Map, Value as Json};

pub use table::{Style, duration};

/// How bad it is; also the exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Verdict {
    #[default]
    Ok,
    Warning,
    Critical,
}

impl Verdict {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Critical => "critical",
        }
    }

    pub fn exit_code(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::Warning => 1,
            Self::Critical => 2,
        }
    }
}

/// A table of an answer.
#[derive(Debug, Clone)]
pub struct Section {
    pub name: &'static str,
    pub columns: Vec<&'static str>,
    pub rows: Vec<Vec<Json>>,
}

/// What a command found.
#[derive(Debug, Clone, Default)]
pub struct Answer {
    pub verdict: Verdict,
    facts: Map<String, Json>,
    sections: Vec<Section>,
    notes: Vec<String>,
}

impl Answer {
    pub fn fact(&mut self, name: &str, value: impl Into<Json>) -> &mut Self {
        self.facts.insert(name.to_owned(), value.into());
        self
    }

    pub fn section(&mut self, name: &'static str, columns: &[&'static str]) -> &mut Section {
        let section = Section { name, columns: columns.to_vec(), rows: Vec::new() };
        self.sections.push(section);
        // Just pushed: there is a last one.
        match self.sections.last_mut() {
            Some(section) => section,
            None => unreachable!("a section was pushed"),
        }
    }

    /// A sentence for people; in JSON under `notes`.
    pub fn note(&mut self, sentence: impl Into<String>) -> &mut Self {
        self.notes.push(sentence.into());
        self
    }

    pub fn worsen(&mut self, verdict: Verdict) -> &mut Self {
        self.verdict = self.verdict.max(verdict);
        self
    }

    /// A note that makes the verdict at least a warning, or critical.
    pub fn trouble(&mut self, verdict: Verdict, sentence: impl Into<String>) -> &mut Self {
        self.worsen(verdict).note(sentence)
    }

    pub fn to_json(&self) -> Json {
        let mut object = Map::new();
        object.insert("verdict".to_owned(), self.verdict.as_str().into());
        object.extend(self.facts.clone());
        for section in &self.sections {
            object.insert(section.name.to_owned(), section.to_json());
        }
        if !self.notes.is_empty() {
            object.insert("notes".to_owned(), self.notes.clone().into());
        }
        Json::Object(object)
    }

    pub fn to_text(&self, style: Style) -> String {
        let mut text = String::new();
        for (name, value) in &self.facts {
            text.push_str(&fact_line(name, value));
        }
        for section in &self.sections {
            if !text.is_empty() {
                text.push('\n');
            }
            text.push_str(&table::of(section, style));
        }
        if !self.notes.is_empty() && !text.is_empty() {
            text.push('\n');
        }
        for note in &self.notes {
            text.push_str(note);
            text.push('\n');
        }
        text
    }
}

fn fact_line(name: &str, value: &Json) -> String {
    let shown = table::cell(name, value);
    if shown.contains('\n') {
        format!("{name}:\n\n{shown}\n\n")
    } else {
        format!("{name}: {shown}\n")
    }
}

impl Section {
    pub fn row(&mut self, cells: impl IntoIterator<Item = Json>) -> &mut Self {
        self.rows.push(cells.into_iter().collect());
        self
    }

    fn to_json(&self) -> Json {
        let object = |row: &Vec<Json>| {
            let pairs = self.columns.iter().zip(row);
            pairs.map(|(name, value)| ((*name).to_owned(), value.clone())).collect::<Map<_, _>>()
        };
        self.rows.iter().map(object).map(Json::Object).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Answer {
        let mut answer = Answer::default();
        answer.fact("environment", "acme");
        answer
            .section("partitions", &["partition", "state"])
            .row([3.into(), "ok".into()])
            .row([4.into(), Json::Null]);
        answer.trouble(Verdict::Warning, "partition 4 is behind");
        answer
    }

    #[test]
    fn json_has_the_same_facts_under_the_same_names_as_the_table() {
        let json = sample().to_json();
        assert_eq!(json["verdict"], "warning");
        assert_eq!(json["environment"], "acme");
        assert_eq!(json["partitions"][0]["partition"], 3);
        assert_eq!(json["notes"][0], "partition 4 is behind");
        let text = sample().to_text(Style::Plain);
        for part in ["environment: acme", "PARTITION", "partition 4 is behind"] {
            assert!(text.contains(part), "{part} is not in\n{text}");
        }
    }

    #[test]
    fn the_verdict_only_ever_gets_worse() {
        let mut answer = sample();
        answer.worsen(Verdict::Critical).worsen(Verdict::Ok);
        assert_eq!(answer.verdict.exit_code(), 2);
    }
}
