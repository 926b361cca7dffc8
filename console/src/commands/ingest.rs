//! `spillway ingest admit|pause|show`: admission.toml, which every API server reads again within a
//! second of its change. Who is not admitted gets 503 with Retry-After and keeps its data.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use spillway_proto::frame::is_environment_name;
use spillway_runtime::admission::Rules;
use spillway_runtime::replace_file::replace;
use spillway_runtime::tokens::Tokens;

use crate::answer::{Answer, Verdict};
use crate::cli::{Admit, Ingest};
use crate::consent::{Consent, Plan};
use crate::desk::Desk;
use crate::failure::{Failure, UsageError};

const HEAD: &str =
    "# Whom ingest-api admits; written by `spillway ingest`, read again when it changes.
# share: of all agents, by hash of their id. paused: environments answered 503.
";

/// It holds no secret.
const NEW_MODE: u32 = 0o644;

/// Why the file is not read or written.
#[derive(Debug, thiserror::Error)]
pub enum RulesFault {
    #[error("{} can't be read or written: {cause}; set admission_file", path.display())]
    File { path: PathBuf, cause: std::io::Error },
    #[error("{} is no admission file: {cause}", path.display())]
    Damaged { path: PathBuf, cause: toml::de::Error },
    #[error("the file can't be made: {0}")]
    Unwritable(#[from] toml::ser::Error),
}

/// An absent file admits everyone.
fn load(path: &Path) -> Result<Rules, RulesFault> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => {
            return Ok(Rules::default());
        }
        Err(cause) => return Err(RulesFault::File { path: path.to_owned(), cause }),
    };
    toml::from_str(&text).map_err(|cause| RulesFault::Damaged { path: path.to_owned(), cause })
}

fn save(rules: &Rules, path: &Path) -> Result<(), RulesFault> {
    let text = format!("{HEAD}{}", toml::to_string(rules)?);
    replace(path, text.as_bytes(), NEW_MODE)
        .map_err(|cause| RulesFault::File { path: path.to_owned(), cause })
}

pub fn run(desk: &Desk, command: Ingest) -> Result<Answer, Failure> {
    let path = &desk.settings.admission_file;
    let rules = load(path)?;
    match command {
        Ingest::Show => {
            let mut answer = told(&rules);
            if rules != Rules::default() {
                answer.worsen(Verdict::Warning);
            }
            Ok(answer)
        }
        Ingest::Pause { environment } => {
            let mut new = rules.clone();
            new.paused.insert(with_senders(&environment, &desk.settings.tokens_file)?);
            change(desk, "ingest pause", &rules, &new)
        }
        Ingest::Admit(admit) => {
            let new = admitted(&rules, &admit)?;
            change(desk, "ingest admit", &rules, &new)
        }
    }
}

fn admitted(rules: &Rules, admit: &Admit) -> Result<Rules, Failure> {
    if admit.all {
        return Ok(Rules::default());
    }
    let mut new = rules.clone();
    if let Some(share) = admit.share {
        if !(0.0..=1.0).contains(&share) {
            return Err(UsageError("--share must be between 0 and 1".to_owned()).into());
        }
        new.share = share;
    }
    if let Some(environment) = &admit.environment {
        new.paused.remove(&known(environment)?);
    }
    Ok(new)
}

fn known(environment: &str) -> Result<String, UsageError> {
    match is_environment_name(environment) {
        true => Ok(environment.to_owned()),
        false => Err(UsageError(format!("{environment:?} can't be an environment's name"))),
    }
}

/// A mistyped name would pause nobody while someone counts on it.
fn with_senders(environment: &str, tokens_file: &Path) -> Result<String, Failure> {
    let environment = known(environment)?;
    let tokens = Tokens::load(tokens_file)?;
    let named: BTreeSet<&str> = tokens.iter().map(|token| token.environment.as_str()).collect();
    if named.contains(environment.as_str()) {
        return Ok(environment);
    }
    let named = named.into_iter().collect::<Vec<_>>().join(", ");
    let file = tokens_file.display();
    Err(UsageError(format!("no token of {file} is of {environment:?}; it has {named}")).into())
}

fn change(desk: &Desk, action: &'static str, old: &Rules, new: &Rules) -> Result<Answer, Failure> {
    let mut steps = Vec::new();
    if new.share != old.share {
        steps.push(format!("admit {} % of all agents, not {} %", percent(new), percent(old)));
    }
    steps.extend(new.paused.difference(&old.paused).map(|e| format!("pause environment {e}")));
    steps.extend(old.paused.difference(&new.paused).map(|e| format!("admit environment {e}")));
    let mut answer = told(new);
    match desk.ask(&Plan { action, steps })? {
        Consent::Nothing(why) => {
            answer = told(old);
            answer.note(why);
        }
        Consent::Given(entry) => {
            entry.end(save(new, &desk.settings.admission_file))?;
            answer.note("Every API server that reads this file follows within a second or two.");
        }
    }
    Ok(answer)
}

fn percent(rules: &Rules) -> f64 {
    (rules.share * 1e3).round() / 10.0
}

fn told(rules: &Rules) -> Answer {
    let mut answer = Answer::default();
    answer.fact("share", rules.share);
    answer.fact("paused", rules.paused.iter().cloned().collect::<Vec<_>>());
    answer
}
