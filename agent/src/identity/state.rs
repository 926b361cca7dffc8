//! `books` and `agent_id`: what must be known over restarts and changes rarely.
//!
//! `books` is JSON in a file whose space is there beforehand ([`super::slots`]): the name of what a
//! full disk costs must be saved on that same disk. One that can't be read costs what was owed,
//! never the start.

use std::collections::BTreeMap;
use std::io;

use serde::{Deserialize, Serialize};
use spillway_proto::{Declaration, PreviousEpoch};
use spillway_runtime::outside;
use tracing::{error, warn};
use uuid::Uuid;

use super::slots::{Form, Slots};
use super::{Binding, GivenUp, Ticket};
use crate::folder::Folder;

/// 64 KiB are the names of some 500 ranges that were given up apart; 4 MiB are more than all
/// epochs and declarations that are remembered take.
pub(super) const BOOKS: Form =
    Form { name: "books", slot_bytes_min: 64 * 1024, slot_bytes_max: 4 * 1024 * 1024 };
const AGENT_ID: &str = "agent_id";
/// An id has 36 characters; a longer file is none.
const AGENT_ID_BYTES_MAX: u64 = 1_024;
/// Epochs remembered. That many restarts, each with a batch made and none accepted, lose the
/// oldest's last seq.
const EPOCHS_MAX: usize = 64;
/// Declarations remembered until they arrive. Far more than a bounded spool can give up apart.
const DECLARATIONS_MAX: usize = 4_096;

/// What is kept.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub(super) struct State {
    /// Ascending; the newest is the current one.
    epochs: Vec<Epoch>,
    declarations: Vec<Owed>,
    /// All that was ever given up, by reason.
    #[serde(default)]
    ever: BTreeMap<String, Losses>,
    /// The newest epoch that lies on disk.
    #[serde(skip)]
    newest_saved: Option<Uuid>,
}

/// How much was given up.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Losses {
    pub batches: u64,
    pub points: u64,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
struct Epoch {
    epoch: Uuid,
    #[serde(flatten)]
    binding: Binding,
    /// Known once the epoch ended.
    last_seq: Option<u64>,
    /// The seq of the current epoch that carried it first.
    #[serde(skip)]
    carried_by: Option<u64>,
    /// A carrier was accepted, or there is nothing to tell.
    told: bool,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
struct Owed {
    epoch: Uuid,
    first_seq: u64,
    last_seq: u64,
    reason: String,
    #[serde(skip)]
    carried_by: Option<u64>,
}

impl State {
    /// What `books` held, if it held anything.
    pub(super) fn read(content: Option<&[u8]>) -> Self {
        let Some(content) = content else { return Self::default() };
        serde_json::from_slice(content).unwrap_or_else(|cause| {
            error!(%cause, "the books can't be read: what was owed is not known any more");
            Self::default()
        })
    }

    pub(super) fn save(&mut self, books: &mut Slots) -> io::Result<()> {
        books.write(&serde_json::to_vec(self)?)?;
        self.newest_saved = self.newest();
        Ok(())
    }

    pub(super) fn newest_saved(&self) -> Option<Uuid> {
        self.newest_saved
    }

    pub(super) fn newest(&self) -> Option<Uuid> {
        self.epochs.last().map(|epoch| epoch.epoch)
    }

    /// The newest epoch gives no more seqs. If it gave none, there is nothing to tell.
    pub(super) fn end_newest(&mut self, last_seq: u64) {
        if let Some(newest) = self.epochs.last_mut() {
            newest.last_seq = Some(last_seq);
            newest.told = last_seq == 0;
        }
    }

    pub(super) fn begin(&mut self, epoch: Uuid, binding: &Binding) {
        let binding = binding.clone();
        self.epochs.push(Epoch { epoch, binding, last_seq: None, carried_by: None, told: false });
        for epoch in &mut self.epochs {
            epoch.carried_by = None;
        }
        for owed in &mut self.declarations {
            owed.carried_by = None;
        }
        self.forget_epochs();
    }

    /// Those that nobody needs to be told of go first: an agent that starts over and over gives
    /// no seqs, and must not forget those that it once gave.
    fn forget_epochs(&mut self) {
        let over = self.epochs.len().saturating_sub(EPOCHS_MAX);
        let needless = self.epochs.iter().filter(|epoch| epoch.told).take(over);
        let needless: Vec<Uuid> = needless.map(|epoch| epoch.epoch).collect();
        self.epochs.retain(|epoch| !needless.contains(&epoch.epoch));
        let over = self.epochs.len().saturating_sub(EPOCHS_MAX);
        self.epochs.drain(..over);
    }

    /// The oldest epoch of this binding whose end nobody confirmed to know.
    pub(super) fn previous(&self, binding: &Binding) -> Option<PreviousEpoch> {
        let owed = self.epochs.iter().find(|epoch| !epoch.told && epoch.binding == *binding)?;
        owed.last_seq.map(|last_seq| PreviousEpoch { epoch: owed.epoch, last_seq })
    }

    /// The first `most` declarations that belong to this binding, oldest first.
    pub(super) fn declarations(&self, binding: &Binding, most: usize) -> Vec<Declaration> {
        let belongs = |owed: &&Owed| {
            // An epoch that is not remembered any more is told where the agent is now.
            let of = self.epochs.iter().find(|epoch| epoch.epoch == owed.epoch);
            of.is_none_or(|epoch| epoch.binding == *binding)
        };
        let told = self.declarations.iter().filter(belongs).take(most).map(|owed| Declaration {
            epoch: owed.epoch,
            first_seq: owed.first_seq,
            last_seq: owed.last_seq,
            reason: owed.reason.clone(),
        });
        told.collect()
    }

    /// `ticket` carries what it carries from its seq on.
    pub(super) fn carried(&mut self, ticket: &Ticket) {
        let seq = ticket.seq;
        if let Some(previous) = ticket.previous {
            let owed = self.epochs.iter_mut().find(|epoch| epoch.epoch == previous.epoch);
            owed.into_iter().for_each(|epoch| epoch.carried_by = epoch.carried_by.or(Some(seq)));
        }
        for owed in &mut self.declarations {
            let same = |told: &Declaration| {
                told.epoch == owed.epoch
                    && told.first_seq == owed.first_seq
                    && told.last_seq == owed.last_seq
            };
            if owed.carried_by.is_none() && ticket.declarations.iter().any(same) {
                owed.carried_by = Some(seq);
            }
        }
    }

    /// The current epoch's batch `seq` was accepted. Whether that settled anything.
    pub(super) fn arrived(&mut self, seq: u64) -> bool {
        let settled = |carried_by: Option<u64>| carried_by.is_some_and(|first| first <= seq);
        let before = self.declarations.len();
        self.declarations.retain(|owed| !settled(owed.carried_by));
        let mut changed = self.declarations.len() < before;
        for epoch in self.epochs.iter_mut().filter(|epoch| !epoch.told) {
            if settled(epoch.carried_by) {
                epoch.told = true;
                changed = true;
            }
        }
        changed
    }

    pub(super) fn ever(&self) -> &BTreeMap<String, Losses> {
        &self.ever
    }

    /// Notes what was given up. False if that is known already.
    pub(super) fn declare(&mut self, given_up: &GivenUp) -> bool {
        let reason = given_up.reason.as_str();
        let known = self.declarations.iter().any(|owed| {
            owed.epoch == given_up.epoch
                && owed.first_seq <= given_up.first_seq
                && given_up.last_seq <= owed.last_seq
        });
        if known {
            return false;
        }
        let batches = given_up.last_seq.saturating_sub(given_up.first_seq).saturating_add(1);
        let ever = self.ever.entry(reason.to_owned()).or_default();
        ever.batches = ever.batches.saturating_add(batches);
        ever.points = ever.points.saturating_add(given_up.points);
        // Neighbours grow together as long as nobody was told of them.
        let neighbour = self.declarations.last_mut().filter(|owed| {
            owed.epoch == given_up.epoch
                && owed.reason == reason
                && owed.last_seq.checked_add(1) == Some(given_up.first_seq)
                && owed.carried_by.is_none()
        });
        if let Some(owed) = neighbour {
            owed.last_seq = given_up.last_seq;
            return true;
        }
        if self.declarations.len() >= DECLARATIONS_MAX {
            warn!("too many declarations wait; the oldest will show as lost instead");
            self.declarations.remove(0);
        }
        self.declarations.push(Owed {
            epoch: given_up.epoch,
            first_seq: given_up.first_seq,
            last_seq: given_up.last_seq,
            reason: reason.to_owned(),
            carried_by: None,
        });
        true
    }
}

/// The agent's id, and whether it was made just now.
pub(super) fn agent_id(folder: &dyn Folder) -> io::Result<(Uuid, bool)> {
    match folder.read(AGENT_ID, AGENT_ID_BYTES_MAX) {
        Ok(text) => match Uuid::try_parse_ascii(text.trim_ascii()) {
            Ok(id) => return Ok((id, false)),
            Err(cause) => error!(%cause, "{AGENT_ID} holds no id: this agent begins anew"),
        },
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(cause) => return Err(cause),
    }
    let id = outside::uuid_v4();
    folder.replace(AGENT_ID, format!("{id}\n").as_bytes())?;
    Ok((id, true))
}
