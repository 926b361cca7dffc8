//! `spillway status export`: the page as a folder of files that need no server, for the hour in
//! which there is none: put it on another host, or open it from a disk.

use std::path::{Path, PathBuf};

use super::page::{Audience, Facts, Frame};
use super::rendered::Rendered;
use super::{assets, gather, history, incidents, page};
use crate::answer::Answer;
use crate::desk::Desk;
use crate::failure::Failure;

/// A file of the copy could not be written.
#[derive(Debug, thiserror::Error)]
#[error("{} can't be written: {cause}", path.display())]
pub struct ExportError {
    path: PathBuf,
    cause: std::io::Error,
}

/// Writes both variants to `dir`; with `public_only` the one for everybody alone.
pub async fn run(desk: &Desk, dir: &Path, public_only: bool) -> Result<Answer, Failure> {
    let status = &desk.settings.status;
    let mut gatherer = gather::Gatherer::new(&desk.settings)?;
    gatherer.look().await;
    // Rates need two looks.
    tokio::time::sleep(status.refresh.get()).await;
    let snapshot = gatherer.look().await;
    let history = history::HistoryFile::open(&status.history_file);
    let incidents = incidents::read(&status.incidents_file)?;
    let facts = Facts { snapshot: &snapshot, history: history.history(), incidents: &incidents };
    let mut answer = Answer::default();
    let mut written = Vec::new();
    for (name, bytes) in files(&status.title, facts, public_only)? {
        if !desk.options.dry_run {
            write(&dir.join(&name), &bytes)?;
        }
        written.push(name);
    }
    if desk.options.dry_run {
        answer.note("Nothing is written: this was a dry run.");
    }
    // Whether the page was written is this command's answer; what is on it is the page's.
    answer.fact("page", snapshot.verdict().as_str()).fact("headline", snapshot.headline());
    answer.fact("directory", dir.display().to_string()).fact("files", written);
    Ok(answer)
}

/// Name and content of each file.
pub fn files(
    title: &str,
    facts: Facts<'_>,
    public_only: bool,
) -> Result<Vec<(String, Vec<u8>)>, Failure> {
    let rendered = Rendered::new(title, 0, facts)?;
    let copy = |audience, root| page::document(Frame { title, audience, root, live: None }, facts);
    let mut files: Vec<(String, Vec<u8>)> = Vec::new();
    let public = ["public/status.json", "public/incidents.atom"];
    let operators = ["status.json", "incidents.atom"];
    let (front, mut feeds) = (Audience::Operators, public.to_vec());
    if public_only {
        files.push(("index.html".to_owned(), copy(Audience::Everybody, "")?.into_bytes()));
    } else {
        files.push(("index.html".to_owned(), copy(front, "")?.into_bytes()));
        files.push(("public.html".to_owned(), copy(Audience::Everybody, "")?.into_bytes()));
        feeds.extend(operators);
    }
    for name in feeds {
        if let Some((_, bytes)) = rendered.find(name) {
            files.push((name.to_owned(), bytes.to_vec()));
        }
    }
    for asset in assets::of_a_copy() {
        files.push((format!("assets/{}", asset.name), asset.bytes.to_vec()));
    }
    Ok(files)
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), ExportError> {
    let failed = |cause| ExportError { path: path.to_owned(), cause };
    if let Some(dir) = path.parent() {
        std::fs::create_dir_all(dir).map_err(failed)?;
    }
    // A reader of the folder sees the old file or the new one.
    let beside = path.with_extension("new");
    std::fs::write(&beside, bytes).and_then(|()| std::fs::rename(&beside, path)).map_err(failed)
}
