//! The agent's small files, on the same disk: replaced whole or not at all, written in place.

use std::io;

use spillway_agent::folder::Folder;

use super::{EIO, ENOSPC, Inode, Life};
use crate::chance;
use crate::weather::Fault;

/// A folder of small files on the same disk.
pub struct SimFolder {
    life: Life,
    prefix: &'static str,
}

impl SimFolder {
    pub fn new(life: &Life, prefix: &'static str) -> Self {
        Self { life: life.clone(), prefix }
    }

    fn path(&self, name: &str) -> String {
        format!("{}/{name}", self.prefix)
    }
}

impl Folder for SimFolder {
    fn names(&self) -> io::Result<Vec<String>> {
        self.life.operate(&[], |state, _| {
            let own = state.names.keys().filter_map(|path| path.strip_prefix(self.prefix));
            Ok(own.filter_map(|name| name.strip_prefix('/')).map(str::to_owned).collect())
        })
    }

    fn read(&self, name: &str, _: u64) -> io::Result<Vec<u8>> {
        let path = self.path(name);
        self.life.operate(&[], |state, _| {
            let inode = state.names.get(&path).copied().ok_or(io::ErrorKind::NotFound)?;
            Ok(state.inode(inode)?.seen.clone())
        })
    }

    fn replace(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let path = self.path(name);
        let faults = [(Fault::StateWrite, EIO), (Fault::DiskFull, ENOSPC)];
        self.life.operate(&faults, |state, failed| {
            state.state_failed |= failed;
            // Before the rename, or between the rename and the folder's sync.
            if failed && chance::percent(50) {
                return Ok(());
            }
            let (seen, durable) = (bytes.to_vec(), bytes.to_vec());
            let inode = state.add(Inode { seen, durable, ..Inode::default() });
            state.names.insert(path.clone(), inode);
            if !failed {
                state.durable_names.insert(path, inode);
            }
            Ok(())
        })
    }

    fn overwrite(&self, name: &str, bytes: &[u8], offset: u64) -> io::Result<()> {
        let path = self.path(name);
        self.life.operate(&[(Fault::StateWrite, EIO)], |state, failed| {
            state.state_failed |= failed;
            let inode = state.names.get(&path).copied().ok_or(io::ErrorKind::NotFound)?;
            let inode = state.inode(inode)?;
            let at = usize::try_from(offset).unwrap_or_default();
            let end = at + bytes.len();
            if inode.seen.len() < end {
                inode.seen.resize(end, 0);
                inode.durable.resize(end, 0);
            }
            if let Some(there) = inode.seen.get_mut(at..end) {
                there.copy_from_slice(bytes);
            }
            if failed {
                inode.unsynced.push((at, bytes.to_vec()));
            } else if let Some(there) = inode.durable.get_mut(at..end) {
                there.copy_from_slice(bytes);
            }
            Ok(())
        })
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let path = self.path(name);
        self.life.operate(&[(Fault::StateWrite, EIO)], |state, failed| {
            if !failed {
                state.names.remove(&path);
                state.durable_names.remove(&path);
            }
            Ok(())
        })
    }
}
