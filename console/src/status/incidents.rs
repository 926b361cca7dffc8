//! What operators told about incidents: an append-only file of JSON lines, synced line by line.
//! Nothing is ever rewritten; the page and the feeds fold the lines.

use std::io::Write;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::component::Part;

/// Lines beyond this many bytes are not read: some ten thousand updates.
const FILE_BYTES_MAX: u64 = 8 << 20;
/// A title is one line on a phone or two.
pub const TITLE_CHARS_MAX: usize = 120;
/// An update is a paragraph.
pub const TEXT_CHARS_MAX: usize = 2_000;

/// The file could not be used.
#[derive(Debug, thiserror::Error)]
pub enum IncidentError {
    #[error("status.incidents_file {} can't be read: {cause}", path.display())]
    Unreadable { path: PathBuf, cause: std::io::Error },
    #[error("status.incidents_file {} can't be written: {cause}", path.display())]
    Unwritable { path: PathBuf, cause: std::io::Error },
    #[error("status.incidents_file {} is larger than 8 MiB; move it away", path.display())]
    TooLarge { path: PathBuf },
    #[error("there is no incident {0}; see `spillway incident ls`")]
    Unknown(String),
    #[error("{0} fits several incidents; write more of its id")]
    Ambiguous(String),
    #[error("incident {0} is closed; open a new one")]
    Closed(String),
}

/// How much of the service it takes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Impact {
    #[default]
    Minor,
    Major,
    Critical,
    /// Planned work.
    Maintenance,
}

/// How far its handling is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    #[default]
    Investigating,
    Identified,
    Monitoring,
    Resolved,
}

impl Impact {
    pub fn words(self) -> &'static str {
        match self {
            Self::Minor => "minor",
            Self::Major => "major",
            Self::Critical => "critical",
            Self::Maintenance => "maintenance",
        }
    }
}

impl Phase {
    pub fn words(self) -> &'static str {
        match self {
            Self::Investigating => "Investigating",
            Self::Identified => "Identified",
            Self::Monitoring => "Monitoring",
            Self::Resolved => "Resolved",
        }
    }
}

/// One line of the file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Line {
    pub at: Timestamp,
    pub id: Uuid,
    pub phase: Phase,
    pub text: String,
    /// Only with the first line of an incident.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub opened: Option<Opening>,
}

/// What an incident is, told once.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Opening {
    pub title: String,
    pub impact: Impact,
    #[serde(default)]
    pub parts: Vec<Part>,
    /// Shown to everybody; otherwise on the operators' page alone.
    #[serde(default)]
    pub public: bool,
}

/// One incident with all that was told of it, oldest first.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Incident {
    pub id: Uuid,
    #[serde(flatten)]
    pub opening: Opening,
    pub updates: Vec<Update>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Update {
    pub at: Timestamp,
    pub phase: Phase,
    pub text: String,
}

impl Incident {
    pub fn is_open(&self) -> bool {
        self.phase() != Phase::Resolved
    }

    pub fn phase(&self) -> Phase {
        self.updates.last().map(|update| update.phase).unwrap_or_default()
    }

    pub fn opened_at(&self) -> Timestamp {
        self.updates.first().map(|update| update.at).unwrap_or_default()
    }

    pub fn updated_at(&self) -> Timestamp {
        self.updates.last().map(|update| update.at).unwrap_or_default()
    }

    /// The first digits of its id, which commands take.
    pub fn short_id(&self) -> String {
        self.id.simple().to_string().chars().take(8).collect()
    }
}

/// All incidents, in the order of their opening. No file is no incident; a line that is torn or
/// foreign is passed over and told.
pub fn read(path: &Path) -> Result<Vec<Incident>, IncidentError> {
    let unreadable = |cause| IncidentError::Unreadable { path: path.to_owned(), cause };
    let bytes = match std::fs::metadata(path) {
        Ok(known) if known.len() > FILE_BYTES_MAX => {
            return Err(IncidentError::TooLarge { path: path.to_owned() });
        }
        Ok(_) => std::fs::read(path).map_err(unreadable)?,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(unreadable(error)),
    };
    Ok(fold(&bytes))
}

fn fold(bytes: &[u8]) -> Vec<Incident> {
    let mut incidents: Vec<Incident> = Vec::new();
    for text in bytes.split(|byte| *byte == b'\n').filter(|text| !text.is_empty()) {
        let Ok(line) = serde_json::from_slice::<Line>(text) else {
            tracing::warn!(bytes = text.len(), "a line of the incidents' file can't be read");
            continue;
        };
        let update = Update { at: line.at, phase: line.phase, text: line.text };
        match (incidents.iter_mut().find(|known| known.id == line.id), line.opened) {
            (Some(known), _) => known.updates.push(update),
            (None, Some(opening)) => {
                incidents.push(Incident { id: line.id, opening, updates: vec![update] });
            }
            (None, None) => tracing::warn!(id = %line.id, "an update of an unknown incident"),
        }
    }
    incidents
}

/// The open incident whose id begins with `prefix`.
pub fn find<'a>(incidents: &'a [Incident], prefix: &str) -> Result<&'a Incident, IncidentError> {
    let wanted = prefix.to_lowercase().replace('-', "");
    let fits = |known: &&Incident| {
        !wanted.is_empty() && known.id.simple().to_string().starts_with(&wanted)
    };
    let mut fitting = incidents.iter().filter(fits);
    match (fitting.next(), fitting.next()) {
        (None, _) => Err(IncidentError::Unknown(prefix.to_owned())),
        (Some(_), Some(_)) => Err(IncidentError::Ambiguous(prefix.to_owned())),
        (Some(one), None) if !one.is_open() => Err(IncidentError::Closed(prefix.to_owned())),
        (Some(one), None) => Ok(one),
    }
}

/// Appends a line and syncs it. A torn line of an earlier crash is ended first.
pub fn append(path: &Path, line: &Line) -> Result<(), IncidentError> {
    let write = || -> std::io::Result<()> {
        if let Some(dir) = path.parent().filter(|dir| !dir.as_os_str().is_empty()) {
            std::fs::create_dir_all(dir)?;
        }
        let mut text = serde_json::to_vec(line)?;
        text.push(b'\n');
        if is_torn(path)? {
            text.insert(0, b'\n');
        }
        let mut file = std::fs::File::options().create(true).append(true).open(path)?;
        file.write_all(&text)?;
        file.sync_all()
    };
    write().map_err(|cause| IncidentError::Unwritable { path: path.to_owned(), cause })
}

fn is_torn(path: &Path) -> std::io::Result<bool> {
    use std::io::{Read, Seek, SeekFrom};
    let mut file = match std::fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    };
    if file.metadata()?.len() == 0 {
        return Ok(false);
    }
    let mut last = [0];
    file.seek(SeekFrom::End(-1))?;
    file.read_exact(&mut last)?;
    Ok(last != *b"\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(id: u128, phase: Phase, opened: Option<Opening>) -> Line {
        let (at, id) = (Timestamp::UNIX_EPOCH, Uuid::from_u128(id));
        Line { at, id, phase, text: "told".to_owned(), opened }
    }

    fn opening() -> Option<Opening> {
        Some(Opening { title: "Kafka <is> slow".to_owned(), ..Opening::default() })
    }

    #[test]
    fn lines_fold_into_incidents_and_a_torn_one_costs_itself_only() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("incidents.jsonl");
        assert_eq!(read(&path).unwrap(), []);
        append(&path, &line(1 << 100, Phase::Investigating, opening())).unwrap();
        let mut torn = std::fs::read(&path).unwrap();
        torn.extend(b"{\"at\":\"2026");
        std::fs::write(&path, torn).unwrap();
        append(&path, &line(1 << 100, Phase::Resolved, None)).unwrap();
        let incidents = read(&path).unwrap();
        let [incident] = incidents.as_slice() else { panic!("{incidents:?}") };
        assert_eq!(incident.updates.len(), 2);
        assert!(!incident.is_open());
        assert!(matches!(find(&incidents, &incident.short_id()), Err(IncidentError::Closed(_))));
    }

    #[test]
    fn an_incident_is_found_by_the_beginning_of_its_id() {
        let lines = [
            line(1 << 100, Phase::Investigating, opening()),
            line(2, Phase::Monitoring, opening()),
        ];
        let text: Vec<u8> = lines
            .iter()
            .flat_map(|line| [serde_json::to_vec(line).unwrap(), b"\n".to_vec()].concat())
            .collect();
        let incidents = fold(&text);
        assert_eq!(find(&incidents, "00000010").unwrap().id, Uuid::from_u128(1 << 100));
        assert!(matches!(find(&incidents, "0000"), Err(IncidentError::Ambiguous(_))));
        assert!(matches!(find(&incidents, "f"), Err(IncidentError::Unknown(_))));
        assert!(matches!(find(&incidents, ""), Err(IncidentError::Unknown(_))));
    }
}
