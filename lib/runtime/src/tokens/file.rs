//! Changing tokens.toml: a new file beside it, synced, then renamed over it, so that a reader sees
//! the old version or the new one and a crash leaves one of them.

use std::path::{Path, PathBuf};

use super::{Rows, Token, Tokens, TokensError};
use crate::replace_file::replace;

/// For the programs that read tokens, which run as other users of the folder's group.
const NEW_MODE: u32 = 0o640;

/// Why the file was not changed.
#[derive(Debug, thiserror::Error)]
pub enum TokenFileError {
    #[error(transparent)]
    Unsound(#[from] TokensError),
    #[error("{} cannot be written: {cause}", path.display())]
    Unwritable { path: PathBuf, cause: std::io::Error },
    #[error("the tokens cannot be written as TOML: {0}")]
    Unprintable(#[from] toml::ser::Error),
}

/// Adds one row; makes the file if there is none.
pub fn append(path: &Path, row: Token) -> Result<(), TokenFileError> {
    let mut rows = match Tokens::load(path) {
        Ok(tokens) => tokens.rows,
        Err(TokensError::Empty) => Vec::new(),
        Err(TokensError::Unreadable { cause, .. })
            if cause.kind() == std::io::ErrorKind::NotFound =>
        {
            Vec::new()
        }
        Err(error) => return Err(error.into()),
    };
    rows.push(row);
    rewrite(path, rows)
}

/// Replaces all rows, after the same checks that reading makes.
pub fn rewrite(path: &Path, rows: Vec<Token>) -> Result<(), TokenFileError> {
    let tokens = Tokens::from_rows(rows)?;
    let text = toml::to_string(&Rows { token: tokens.rows })?;
    let text =
        format!("# Written by `spillway token`; holds no secrets, only their SHA-256.\n\n{text}");
    replace(path, text.as_bytes(), NEW_MODE)
        .map_err(|cause| TokenFileError::Unwritable { path: path.to_owned(), cause })
}
