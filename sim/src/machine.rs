//! A machine with one disk: what was not synced is there, not there, or half there after a power
//! cut. Both of the agent's views of a disk (segments and small files) are views of it.
//!
//! Every process on it is a *life*. A life that was ended may still have tasks that run; nothing
//! they do has an effect any more: their disk fails, their network is silent.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use spillway_agent::folder::Folder;
use spillway_agent::spool::{Disk, DiskFile};
use tokio::sync::Notify;

use crate::chance;
use crate::mutant::Mutant;
use crate::weather::Fault;
use crate::world::World;

mod folder;

use self::folder::SimFolder;

/// A machine; clones are the same one.
#[derive(Clone)]
pub struct Machine {
    world: Arc<World>,
    state: Arc<Mutex<State>>,
    /// A life was ended.
    ended: Arc<Notify>,
    number: usize,
}

#[derive(Default)]
struct State {
    inodes: Vec<Inode>,
    names: BTreeMap<String, usize>,
    durable_names: BTreeMap<String, usize>,
    life: u64,
    /// The power goes in the middle of this many operations from now.
    cut_after: Option<u64>,
    /// A small file could not be written, ever.
    state_failed: bool,
}

#[derive(Default)]
struct Inode {
    seen: Vec<u8>,
    durable: Vec<u8>,
    unsynced: Vec<(usize, Vec<u8>)>,
    /// A sync failed once: syncing again would lie.
    sync_failed: bool,
}

/// A process's hold on its machine.
#[derive(Clone)]
pub struct Life {
    machine: Machine,
    number: u64,
}

impl Machine {
    #[must_use]
    pub fn new(world: &Arc<World>, number: usize) -> Self {
        Self {
            world: Arc::clone(world),
            state: Arc::default(),
            ended: Arc::new(Notify::new()),
            number,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A new process; there is one at a time.
    #[must_use]
    pub fn begin(&self) -> Life {
        let mut state = self.state();
        state.life += 1;
        state.cut_after = None;
        Life { machine: self.clone(), number: state.life }
    }

    /// `kill -9`: what the process wrote stays, synced or not.
    pub fn kill(&self) {
        self.state().life += 1;
        self.ended.notify_waiters();
    }

    /// The power goes in the middle of the operation after so many.
    pub fn cut_power_after(&self, operations: u64) {
        self.state().cut_after = Some(operations);
    }

    /// Whether a small file could not be written, ever: what it says may be old then.
    #[must_use]
    pub fn state_failed(&self) -> bool {
        self.state().state_failed
    }

    /// Bytes of the spool's files.
    #[must_use]
    pub fn spool_bytes(&self) -> u64 {
        let state = self.state();
        let spooled = state.names.iter().filter(|(name, _)| !name.contains('/'));
        spooled
            .filter_map(|(_, inode)| state.inodes.get(*inode))
            .map(|inode| inode.seen.len() as u64)
            .sum()
    }
}

impl State {
    fn cut_power(&mut self) {
        for inode in &mut self.inodes {
            for (at, bytes) in std::mem::take(&mut inode.unsynced) {
                let kept = match chance::below(3) {
                    0 => 0,
                    1 => bytes.len(),
                    _ => usize::try_from(chance::below(bytes.len() as u64 + 1)).unwrap_or_default(),
                };
                let kept = bytes.get(..kept).unwrap_or_default();
                if let Some(there) = inode.durable.get_mut(at..at + kept.len()) {
                    there.copy_from_slice(kept);
                }
            }
            inode.seen = inode.durable.clone();
        }
        let mut names = self.durable_names.clone();
        for (name, inode) in self.names.iter().chain(&self.durable_names) {
            let settled = self.names.get(name) == self.durable_names.get(name);
            if settled || chance::percent(50) {
                names.insert(name.clone(), *inode);
            } else if !self.durable_names.contains_key(name) || !self.names.contains_key(name) {
                names.remove(name);
            }
        }
        self.durable_names = names.clone();
        self.names = names;
        self.life += 1;
        self.cut_after = None;
    }

    fn inode(&mut self, number: usize) -> io::Result<&mut Inode> {
        self.inodes.get_mut(number).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn add(&mut self, inode: Inode) -> usize {
        self.inodes.push(inode);
        self.inodes.len() - 1
    }
}

impl Life {
    /// Whether its process still runs.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.machine.state().life == self.number
    }

    /// Returns once it is ended.
    pub async fn ended(&self) {
        loop {
            let ended = self.machine.ended.notified();
            if !self.is_on() {
                return;
            }
            ended.await;
        }
    }

    #[must_use]
    pub fn folder(&self, name: &'static str) -> Arc<dyn Folder> {
        Arc::new(SimFolder::new(self, name))
    }

    #[must_use]
    pub fn disk(&self) -> SimDisk {
        SimDisk(self.clone())
    }

    /// One operation: it may be the one in which the power goes.
    fn operate<T>(
        &self,
        faults: &[(Fault, io::ErrorKind)],
        work: impl FnOnce(&mut State, bool) -> io::Result<T>,
    ) -> io::Result<T> {
        let machine = &self.machine;
        let mut state = machine.state();
        if state.life != self.number {
            return Err(io::ErrorKind::Other.into());
        }
        let cut = match &mut state.cut_after {
            Some(0) => true,
            Some(left) => {
                *left -= 1;
                false
            }
            None => false,
        };
        if cut {
            // The operation itself is under way: it may leave traces.
            let _whatever = work(&mut state, true).is_ok();
            state.cut_power();
            drop(state);
            crate::note!(machine.world.history, "machine {}: the power is cut", machine.number);
            machine.ended.notify_waiters();
            return Err(io::ErrorKind::Other.into());
        }
        let weather = &machine.world.weather;
        let struck = faults.iter().find(|(fault, _)| weather.strikes(*fault));
        let worked = work(&mut state, struck.is_some());
        match struck {
            Some((_, kind)) => Err((*kind).into()),
            None => worked,
        }
    }
}

const EIO: io::ErrorKind = io::ErrorKind::Other;
const ENOSPC: io::ErrorKind = io::ErrorKind::StorageFull;

/// The spool's disk.
#[derive(Clone)]
pub struct SimDisk(Life);

/// One of its files.
pub struct SimFile {
    life: Life,
    inode: usize,
}

impl Disk for SimDisk {
    type File = SimFile;

    fn list(&self) -> io::Result<Vec<String>> {
        self.0.operate(&[], |state, _| {
            Ok(state.names.keys().filter(|name| !name.contains('/')).cloned().collect())
        })
    }

    fn create(&self, name: &str, bytes: u64) -> io::Result<SimFile> {
        let faults = [(Fault::DiskFull, ENOSPC), (Fault::DiskWrite, EIO)];
        let inode = self.0.operate(&faults, |state, _| {
            let zeros = vec![0; usize::try_from(bytes).unwrap_or_default()];
            let inode =
                state.add(Inode { seen: zeros.clone(), durable: zeros, ..Inode::default() });
            state.names.insert(name.to_owned(), inode);
            Ok(inode)
        })?;
        Ok(SimFile { life: self.0.clone(), inode })
    }

    fn open(&self, name: &str) -> io::Result<SimFile> {
        let found = self.0.operate(&[], |state, _| Ok(state.names.get(name).copied()))?;
        let inode = found.ok_or(io::ErrorKind::NotFound)?;
        Ok(SimFile { life: self.0.clone(), inode })
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.0.operate(&[(Fault::DiskWrite, EIO)], |state, failed| {
            if !failed {
                state.names.remove(name);
            }
            Ok(())
        })
    }

    fn sync_dir(&self) -> io::Result<()> {
        self.0.operate(&[(Fault::DiskSync, EIO)], |state, failed| {
            if !failed {
                state.durable_names.retain(|name, _| name.contains('/'));
                let seen = state.names.iter().filter(|(name, _)| !name.contains('/'));
                state.durable_names.extend(seen.map(|(name, inode)| (name.clone(), *inode)));
            }
            Ok(())
        })
    }

    fn free_bytes(&self) -> io::Result<u64> {
        let full = self.0.machine.world.weather.is_on(Fault::DiskFull);
        Ok(if full { 0 } else { u64::MAX / 2 })
    }
}

impl DiskFile for SimFile {
    fn bytes(&self) -> io::Result<u64> {
        self.life.operate(&[], |state, _| Ok(state.inode(self.inode)?.seen.len() as u64))
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.life.operate(&[(Fault::DiskRead, EIO)], |state, _| {
            let from = usize::try_from(offset).unwrap_or(usize::MAX);
            let rest = state.inode(self.inode)?.seen.get(from..).unwrap_or_default();
            let count = rest.len().min(buf.len());
            buf.iter_mut().zip(rest).for_each(|(to, from)| *to = *from);
            Ok(count)
        })
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        self.life.operate(&[(Fault::DiskWrite, EIO)], |state, failed| {
            // A failed write may have written some of it.
            let count = if failed { bytes.len() / 2 } else { bytes.len() };
            let (at, written) =
                (usize::try_from(offset).unwrap_or_default(), bytes.get(..count).unwrap_or(bytes));
            let inode = state.inode(self.inode)?;
            let there = inode.seen.get_mut(at..at + count).ok_or(io::ErrorKind::StorageFull)?;
            there.copy_from_slice(written);
            inode.unsynced.push((at, written.to_vec()));
            Ok(count)
        })
    }

    fn sync_data(&self) -> io::Result<()> {
        let world = &self.life.machine.world;
        if world.mutant == Some(Mutant::SyncLies) {
            return Ok(());
        }
        let again = self.life.operate(&[(Fault::DiskSync, EIO)], |state, failed| {
            let inode = state.inode(self.inode)?;
            let again = inode.sync_failed;
            let unsynced = std::mem::take(&mut inode.unsynced);
            if failed {
                // The kernel marks the pages clean: what they held is gone with the cache.
                inode.sync_failed = true;
                return Ok(again);
            }
            for (at, bytes) in unsynced {
                if let Some(there) = inode.durable.get_mut(at..at + bytes.len()) {
                    there.copy_from_slice(&bytes);
                }
            }
            Ok(again)
        })?;
        if again {
            world.violate("a file was synced again after a failed sync".to_owned());
        }
        Ok(())
    }

    fn shrink(&self, bytes: u64) -> io::Result<()> {
        self.life.operate(&[], |state, _| {
            let inode = state.inode(self.inode)?;
            let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
            inode.seen.truncate(bytes);
            inode.durable.truncate(bytes);
            Ok(())
        })
    }
}
