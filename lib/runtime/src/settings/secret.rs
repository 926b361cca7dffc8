//! A value that never shows itself: not in logs, not in `Debug`, not in `config show`.

use std::fmt;
use std::io::Read;
use std::path::{Path, PathBuf};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use zeroize::Zeroizing;

/// What stands in a secret's place wherever settings are shown.
pub const MASK: &str = "********";

/// The longest secret file read; longer is surely the wrong file.
const SECRET_FILE_BYTES_MAX: u64 = 64 << 10;

/// A password, token or key; empty means "not set".
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    pub fn new(value: impl Into<String>) -> Self {
        Self(Zeroizing::new(value.into()))
    }

    /// The secret itself; the name makes each use easy to find.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    pub fn is_set(&self) -> bool {
        !self.0.is_empty()
    }

    /// The value, or if it is not set the content of `file` without its last line end.
    pub fn resolve(&self, file: Option<&Path>) -> Result<Secret, SecretFileError> {
        match file {
            Some(path) if !self.is_set() => Self::from_file(path),
            _ => Ok(self.clone()),
        }
    }

    fn from_file(path: &Path) -> Result<Secret, SecretFileError> {
        if path.as_os_str().is_empty() {
            return Err(SecretFileError::Unnamed);
        }
        let unreadable = |cause| SecretFileError::Unreadable { path: path.to_owned(), cause };
        let file = std::fs::File::open(path).map_err(unreadable)?;
        let mut text = Zeroizing::new(String::new());
        let limit = SECRET_FILE_BYTES_MAX + 1;
        let length = file.take(limit).read_to_string(&mut text);
        if length.map_err(unreadable)? as u64 == limit {
            return Err(SecretFileError::TooLong(path.to_owned()));
        }
        let value = text.trim_end_matches(['\r', '\n']);
        if value.is_empty() {
            return Err(SecretFileError::Empty(path.to_owned()));
        }
        Ok(Self::new(value))
    }
}

/// Why a `*_file` option gave no secret.
#[derive(Debug, thiserror::Error)]
pub enum SecretFileError {
    #[error("names no file: give it a path, or leave it out")]
    Unnamed,
    #[error("the secret file {} cannot be read: {cause}", path.display())]
    Unreadable { path: PathBuf, cause: std::io::Error },
    #[error("the secret file {} is empty", .0.display())]
    Empty(PathBuf),
    #[error("the secret file {} is longer than 64 KiB: is it the right file?", .0.display())]
    TooLong(PathBuf),
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_set() { MASK } else { "(not set)" })
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(if self.is_set() { MASK } else { "" })
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self::new)
    }
}

impl JsonSchema for Secret {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Secret".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "format": "secret" })
    }
}

/// `scheme://user:password@host` with the password masked; any other text unchanged.
pub fn mask_url(text: &str) -> String {
    let masked = text.split_once("://").and_then(|(scheme, rest)| {
        let authority = rest.split(['/', '?', '#']).next()?;
        let (userinfo, _) = authority.rsplit_once('@')?;
        let (user, _) = userinfo.split_once(':')?;
        let after = rest.get(userinfo.len()..)?;
        Some(format!("{scheme}://{user}:{MASK}{after}"))
    });
    masked.unwrap_or_else(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_shows_itself_neither_in_debug_nor_serialized() {
        let secret = Secret::new("hunter2");
        assert!(!format!("{secret:?}").contains("hunter2"));
        assert!(!serde_json::to_string(&secret).unwrap().contains("hunter2"));
        assert_eq!(secret.reveal(), "hunter2");
    }

    #[test]
    fn a_secret_file_is_read_without_its_line_end_and_an_empty_one_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("password");
        std::fs::write(&path, "hunter2\n").unwrap();
        let secret = Secret::default().resolve(Some(&path)).unwrap();
        assert_eq!(secret.reveal(), "hunter2");
        std::fs::write(&path, "\n").unwrap();
        let error = Secret::default().resolve(Some(&path)).unwrap_err();
        assert!(matches!(error, SecretFileError::Empty(_)));
        let error = Secret::default().resolve(Some(Path::new(""))).unwrap_err();
        assert!(matches!(error, SecretFileError::Unnamed));
        let inline = Secret::new("x").resolve(Some(Path::new("/nowhere")));
        assert_eq!(inline.unwrap().reveal(), "x");
    }

    #[test]
    fn passwords_in_urls_are_masked() {
        assert_eq!(
            mask_url("mysql://root:s@cret@db:3306/x?a=b"),
            "mysql://root:********@db:3306/x?a=b"
        );
        assert_eq!(mask_url("http://host/a:b@c"), "http://host/a:b@c");
        assert_eq!(mask_url("redis://host:1"), "redis://host:1");
    }
}
