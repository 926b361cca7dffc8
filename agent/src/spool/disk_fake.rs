//! A disk that fails on demand and forgets in a crash what was not synced.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::disk::{Disk, DiskFile};

/// Longer than a test waits for anything.
const HANGS_AT_MOST: Duration = Duration::from_secs(60);

/// What can be made to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Op {
    Create,
    Remove,
    Read,
    Write,
    SyncData,
    SyncDir,
    FreeBytes,
}

impl Op {
    pub const ALL: [Self; 7] = [
        Self::Create,
        Self::Remove,
        Self::Read,
        Self::Write,
        Self::SyncData,
        Self::SyncDir,
        Self::FreeBytes,
    ];
}

#[derive(Debug, Default)]
struct Inode {
    seen: Vec<u8>,
    durable: Vec<u8>,
    unsynced: Vec<(usize, Vec<u8>)>,
    /// A sync failed once: syncing again would lie.
    sync_failed: bool,
}

#[derive(Debug, Default)]
struct World {
    inodes: Vec<Inode>,
    names: BTreeMap<String, usize>,
    durable_names: BTreeMap<String, usize>,
    /// Calls to let through, then the error, once (`false`) or for ever (`true`).
    faults: HashMap<Op, (u64, io::ErrorKind, bool)>,
    short_writes: bool,
    free_bytes: Option<u64>,
    random: u64,
    /// Calls of whatever kind, and what comes at which of them.
    calls: u64,
    strike: Option<(u64, Strike)>,
    struck: bool,
    /// The power is gone: nothing works, nothing changes.
    dark: bool,
    /// A test looks: its calls are not the store's.
    looked_at: bool,
    /// Syncs do not end; how many are at it.
    hangs: bool,
    hanging: u32,
}

/// What the nth of all calls meets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strike {
    /// This call fails.
    Error(io::ErrorKind),
    /// It may be half done, and no call after it is done at all. To be followed by
    /// [`FakeDisk::crash`].
    PowerCut,
}

impl World {
    /// Every call comes by here, those of [`Op`] by [`Self::meet`].
    fn count(&mut self) -> io::Result<()> {
        if self.looked_at {
            return Ok(());
        }
        self.calls += 1;
        if self.dark {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        match self.strike {
            Some((nth, strike)) if nth == self.calls => {
                self.struck = true;
                self.dark = strike == Strike::PowerCut;
                match strike {
                    Strike::Error(kind) => Err(kind.into()),
                    Strike::PowerCut => Err(io::ErrorKind::BrokenPipe.into()),
                }
            }
            _ => Ok(()),
        }
    }

    fn meet(&mut self, op: Op) -> io::Result<()> {
        self.count()?;
        let Some((calls, kind, for_ever)) = self.faults.get_mut(&op) else { return Ok(()) };
        if *calls > 0 {
            *calls -= 1;
            return Ok(());
        }
        let error = io::Error::from(*kind);
        if !*for_ever {
            self.faults.remove(&op);
        }
        Err(error)
    }

    /// xorshift64: the seed reproduces the crash.
    fn random(&mut self, below: usize) -> usize {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random % below.max(1) as u64) as usize
    }
}

/// Clones are the same disk, so that a test can go on with it after a crash.
#[derive(Clone, Debug, Default)]
pub struct FakeDisk(Arc<(Mutex<World>, Condvar)>);

pub struct FakeFile {
    disk: FakeDisk,
    inode: usize,
}

impl FakeDisk {
    fn world(&self) -> MutexGuard<'_, World> {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on, or no more, syncs do not end.
    pub fn hang(&self, hangs: bool) {
        self.world().hangs = hangs;
        self.0.1.notify_all();
    }

    /// Waits until somebody's sync hangs. Blocks.
    pub fn until_hanging(&self) {
        self.wait(|world| world.hanging == 0);
    }

    fn sync_hangs(&self) {
        self.world().hanging += 1;
        self.0.1.notify_all();
        self.wait(|world| world.hangs);
        self.world().hanging -= 1;
    }

    fn wait(&self, condition: impl Fn(&World) -> bool) {
        let waiting = |world: &mut World| condition(world);
        let waited = self.0.1.wait_timeout_while(self.world(), HANGS_AT_MOST, waiting);
        let (world, waited) = waited.unwrap_or_else(PoisonError::into_inner);
        drop(world);
        assert!(!waited.timed_out(), "it hangs, or does not, for ever");
    }

    /// After `calls` more calls, one fails.
    pub fn fail_once(&self, op: Op, calls: u64, kind: io::ErrorKind) {
        self.world().faults.insert(op, (calls, kind, false));
    }

    /// From now on, every call fails.
    pub fn fail_for_ever(&self, op: Op, kind: io::ErrorKind) {
        self.world().faults.insert(op, (0, kind, true));
    }

    pub fn heal(&self) {
        self.world().faults.clear();
    }

    /// No strike comes any more.
    pub fn spare(&self) {
        self.world().strike = None;
    }

    /// Calls until the next `false` are neither counted nor struck.
    pub fn look(&self, looking: bool) {
        self.world().looked_at = looking;
    }

    /// The `nth` call from now on, counted from 1, meets `strike`.
    pub fn strike(&self, nth: u64, strike: Strike) {
        let mut world = self.world();
        (world.calls, world.struck) = (0, false);
        world.strike = Some((nth, strike));
    }

    /// Whether the strike has come.
    pub fn is_struck(&self) -> bool {
        self.world().struck
    }

    pub fn is_dark(&self) -> bool {
        self.world().dark
    }

    pub fn short_writes(&self) {
        self.world().short_writes = true;
    }

    pub fn set_free_bytes(&self, bytes: u64) {
        self.world().free_bytes = Some(bytes);
    }

    pub fn file_count(&self) -> usize {
        self.world().names.len()
    }

    pub fn bytes(&self) -> u64 {
        let world = self.world();
        world.names.values().map(|inode| world.inodes[*inode].seen.len() as u64).sum()
    }

    /// The machine loses power: what was not synced is there, not there, or half there.
    pub fn crash(&self, seed: u64) {
        let mut world = self.world();
        world.random = seed | 1;
        world.faults.clear();
        world.strike = None;
        world.dark = false;
        for number in 0..world.inodes.len() {
            for (at, bytes) in std::mem::take(&mut world.inodes[number].unsynced) {
                let kept = match world.random(3) {
                    0 => 0,
                    1 => bytes.len(),
                    _ => world.random(bytes.len() + 1),
                };
                let durable = &mut world.inodes[number].durable;
                if durable.len() >= at + kept {
                    durable[at..at + kept].copy_from_slice(&bytes[..kept]);
                }
            }
            world.inodes[number].seen = world.inodes[number].durable.clone();
        }
        let (seen, durable) = (world.names.clone(), world.durable_names.clone());
        for (name, inode) in seen.iter().chain(&durable) {
            let settled = seen.contains_key(name) && durable.contains_key(name);
            if !settled && world.random(2) == 0 {
                world.durable_names.remove(name);
            } else {
                world.durable_names.insert(name.clone(), *inode);
            }
        }
        world.names = world.durable_names.clone();
    }

    /// The contents of all files, to be damaged and put back.
    pub fn contents(&self) -> BTreeMap<String, Vec<u8>> {
        let world = self.world();
        let content = |inode: &usize| world.inodes[*inode].seen.clone();
        world.names.iter().map(|(name, inode)| (name.clone(), content(inode))).collect()
    }

    pub fn with_contents(contents: BTreeMap<String, Vec<u8>>) -> Self {
        let disk = Self::default();
        let mut world = disk.world();
        for (name, bytes) in contents {
            let inode = world.inodes.len();
            world.inodes.push(Inode { durable: bytes.clone(), seen: bytes, ..Inode::default() });
            world.names.insert(name.clone(), inode);
            world.durable_names.insert(name, inode);
        }
        drop(world);
        disk
    }
}

impl Disk for FakeDisk {
    type File = FakeFile;

    fn list(&self) -> io::Result<Vec<String>> {
        let mut world = self.world();
        world.count()?;
        Ok(world.names.keys().cloned().collect())
    }

    fn create(&self, name: &str, bytes: u64) -> io::Result<FakeFile> {
        let mut world = self.world();
        let zeros = vec![0; bytes as usize];
        let was_dark = world.dark;
        let met = world.meet(Op::Create);
        assert!(was_dark || !world.names.contains_key(name), "{name} was made twice");
        if !was_dark {
            let inode = world.inodes.len();
            // The power went before its length was synced.
            let durable = if world.dark { Vec::new() } else { zeros.clone() };
            world.inodes.push(Inode { seen: zeros, durable, ..Inode::default() });
            world.names.insert(name.to_owned(), inode);
        }
        met?;
        let inode = world.inodes.len() - 1;
        drop(world);
        Ok(FakeFile { disk: self.clone(), inode })
    }

    fn open(&self, name: &str) -> io::Result<FakeFile> {
        let mut world = self.world();
        world.count()?;
        let found = world.names.get(name).copied();
        drop(world);
        let inode = found.ok_or(io::ErrorKind::NotFound)?;
        Ok(FakeFile { disk: self.clone(), inode })
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut world = self.world();
        world.meet(Op::Remove)?;
        world.names.remove(name);
        Ok(())
    }

    fn sync_dir(&self) -> io::Result<()> {
        let mut world = self.world();
        world.meet(Op::SyncDir)?;
        world.durable_names = world.names.clone();
        Ok(())
    }

    fn free_bytes(&self) -> io::Result<u64> {
        let mut world = self.world();
        world.meet(Op::FreeBytes)?;
        Ok(world.free_bytes.unwrap_or(u64::MAX / 2))
    }
}

impl DiskFile for FakeFile {
    fn bytes(&self) -> io::Result<u64> {
        let mut world = self.disk.world();
        world.count()?;
        Ok(world.inodes[self.inode].seen.len() as u64)
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut world = self.disk.world();
        world.meet(Op::Read)?;
        let rest = world.inodes[self.inode].seen.get(offset as usize..).unwrap_or_default();
        let count = rest.len().min(buf.len());
        buf[..count].copy_from_slice(&rest[..count]);
        Ok(count)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        let mut world = self.disk.world();
        let count = if world.short_writes { bytes.len().min(7) } else { bytes.len() };
        if world.dark {
            return world.meet(Op::Write).map(|()| 0);
        }
        let met = world.meet(Op::Write);
        // A failed write may have written some of it.
        let count = if met.is_err() { count / 2 } else { count };
        let (at, bytes) = (offset as usize, &bytes[..count]);
        let inode = &mut world.inodes[self.inode];
        inode.seen[at..at + count].copy_from_slice(bytes);
        inode.unsynced.push((at, bytes.to_vec()));
        met.map(|()| count)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.disk.sync_hangs();
        let mut world = self.disk.world();
        let met = world.meet(Op::SyncData);
        if world.dark {
            // What was on its way may be there, or not.
            return met;
        }
        let inode = &mut world.inodes[self.inode];
        assert!(!inode.sync_failed, "synced again after a failed sync");
        if met.is_err() {
            // The kernel marks the pages clean: what they held is gone with the cache.
            inode.unsynced.clear();
            inode.sync_failed = true;
            return met;
        }
        for (at, bytes) in std::mem::take(&mut inode.unsynced) {
            inode.durable[at..at + bytes.len()].copy_from_slice(&bytes);
        }
        Ok(())
    }

    fn shrink(&self, bytes: u64) -> io::Result<()> {
        let mut world = self.disk.world();
        world.count()?;
        let inode = &mut world.inodes[self.inode];
        inode.seen.truncate(bytes as usize);
        inode.durable.truncate(bytes as usize);
        Ok(())
    }
}
