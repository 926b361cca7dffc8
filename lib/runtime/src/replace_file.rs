//! A file that programs read while somebody writes it: the new version takes the old one's place
//! in one step, and is on disk when that is done.

use std::fs::{File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

/// Puts `content` in place of the file at `path`, readable by whoever could read the old one: mode,
/// group and, where that is allowed, owner stay. A new file gets `new_mode` and its folder's group.
/// What a symbolic link leads to is replaced, not the link.
///
/// # Errors
/// Nothing is changed: the folder can't be written, or the group can't be kept, so that programs
/// of that group could no longer read the file.
pub fn replace(path: &Path, content: &[u8], new_mode: u32) -> io::Result<()> {
    let path = match path.canonicalize() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => path.to_owned(),
        found => found?,
    };
    let folder = folder_of(&path);
    let mut new = tempfile::NamedTempFile::new_in(&folder)?;
    new.write_all(content)?;
    let (owner, group, mode) = match std::fs::metadata(&path) {
        Ok(old) => (Some(old.uid()), old.gid(), old.mode()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            (None, std::fs::metadata(&folder)?.gid(), new_mode)
        }
        Err(error) => return Err(error),
    };
    let file = new.as_file();
    let given = file.metadata()?;
    if given.gid() != group {
        let kept = fchown(file, None, Some(group));
        // A folder's group is a guess of what a new file should have; an old file's is not.
        if owner.is_some() {
            kept.map_err(|error| io::Error::new(error.kind(), KeepsGroup { group, error }))?;
        }
    }
    if let Some(owner) = owner.filter(|owner| *owner != given.uid()) {
        // Only root may; whoever reads it by its group still does.
        drop(fchown(file, Some(owner), None));
    }
    // After the change of owner, which takes bits away.
    file.set_permissions(Permissions::from_mode(mode & 0o7777))?;
    file.sync_all()?;
    new.persist(&path).map_err(|error| error.error)?;
    File::open(&folder)?.sync_all()
}

#[derive(Debug, thiserror::Error)]
#[error("its group {group} can't be kept ({error}); write it as root or as one of that group")]
struct KeepsGroup {
    group: u32,
    error: io::Error,
}

fn folder_of(path: &Path) -> PathBuf {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder.to_owned(),
        _ => PathBuf::from("."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One that this process may give a file to: root any, others only their own.
    fn other_group() -> u32 {
        let own = tempfile::tempfile().unwrap().metadata().unwrap();
        if own.uid() == 0 { 4_242 } else { own.gid() }
    }

    #[test]
    fn who_could_read_the_old_version_can_read_the_new_one() {
        let dir = tempfile::tempdir().unwrap();
        let (path, link) = (dir.path().join("tokens.toml"), dir.path().join("link"));
        std::fs::write(&path, "old").unwrap();
        fchown(File::open(&path).unwrap(), None, Some(other_group())).unwrap();
        std::fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
        std::os::unix::fs::symlink(&path, &link).unwrap();
        for at in [&path, &link] {
            replace(at, b"new", 0o600).unwrap();
            let now = std::fs::metadata(&path).unwrap();
            assert_eq!((now.gid(), now.mode() & 0o7777), (other_group(), 0o640), "{at:?}");
        }
        assert!(link.is_symlink());
        assert_eq!(std::fs::read(&path).unwrap(), b"new");
    }

    #[test]
    fn a_new_file_has_its_folders_group_and_the_mode_that_was_asked_for() {
        let dir = tempfile::tempdir().unwrap();
        std::os::unix::fs::chown(dir.path(), None, Some(other_group())).unwrap();
        let path = dir.path().join("tokens.toml");
        replace(&path, b"first", 0o640).unwrap();
        let made = std::fs::metadata(&path).unwrap();
        assert_eq!((made.gid(), made.mode() & 0o7777), (other_group(), 0o640));
    }
}
