//! The lock's file on this machine: for when no MySQL server can be asked.

use std::io::Write;
use std::path::Path;

use jiff::Timestamp;

use super::{Lock, LockFault};

/// The lock's place.
#[derive(Debug, Clone)]
pub struct Place<'a>(pub &'a Path);

impl Place<'_> {
    fn fault(&self, cause: std::io::Error) -> LockFault {
        LockFault::File { path: self.0.to_owned(), cause }
    }

    /// Whoever holds it now; one that is over counts as none.
    pub fn holder(&self, now: Timestamp) -> Result<Option<Lock>, LockFault> {
        let text = match std::fs::read(self.0) {
            Ok(text) => text,
            Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(cause) => return Err(self.fault(cause)),
        };
        let lock: Lock = serde_json::from_slice(&text)
            .map_err(|cause| LockFault::Damaged { path: self.0.to_owned(), cause })?;
        Ok(Some(lock).filter(|lock| lock.until > now))
    }

    /// Writes it whole beside its place and links it there: of two that do so at once, one fails.
    pub fn take(&self, lock: &Lock) -> Result<(), LockFault> {
        let dir = self.0.parent().unwrap_or(Path::new("."));
        let fault = |cause| self.fault(cause);
        std::fs::create_dir_all(dir).map_err(fault)?;
        let mut file = tempfile::NamedTempFile::new_in(dir).map_err(fault)?;
        let text = serde_json::to_vec(lock).unwrap_or_default();
        file.write_all(&text).and_then(|()| file.as_file().sync_all()).map_err(fault)?;
        match file.persist_noclobber(self.0) {
            Ok(_) => Ok(()),
            Err(error) if error.error.kind() == std::io::ErrorKind::AlreadyExists => {
                match self.holder(lock.since)? {
                    Some(holder) => Err(LockFault::Held(Box::new(holder))),
                    None => Err(fault(error.error)),
                }
            }
            Err(error) => Err(fault(error.error)),
        }
    }

    pub fn remove(&self) -> Result<(), LockFault> {
        match std::fs::remove_file(self.0) {
            Err(cause) if cause.kind() != std::io::ErrorKind::NotFound => Err(self.fault(cause)),
            _ => Ok(()),
        }
    }
}
