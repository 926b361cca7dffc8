//! The token, as it is at this moment: one that lies in `agent.token_file` may be replaced while
//! the agent runs, so that a new token needs no restart and no gap. A file that holds none leaves
//! the last good one in force.

use std::path::PathBuf;
use std::sync::Arc;

use http::HeaderValue;
use spillway_runtime::settings::Secret;
use spillway_runtime::watched_file::WatchedFile;
use tokio::sync::watch;

/// Whoever sends asks it anew each time; clones are one.
#[derive(Clone, Debug)]
pub struct Credential {
    first: Secret,
    file: Option<WatchedFile<Secret>>,
}

/// Why a text is no token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoToken {
    #[error("the file is empty")]
    Empty,
    #[error("the token can't be put into a header")]
    NoHeader,
}

impl Credential {
    /// One token for ever.
    #[must_use]
    pub fn fixed(token: Secret) -> Self {
        Self { first: token, file: None }
    }

    /// `first` until `file` holds another; looked at every second, and when `reload` says so.
    /// Needs a runtime.
    #[must_use]
    pub fn in_file(first: Secret, file: PathBuf, reload: watch::Receiver<u64>) -> Self {
        let file = WatchedFile::start(file, reload, |text, _: Option<&Secret>| parse(text));
        Self { first, file: Some(file) }
    }

    #[must_use]
    pub fn token(&self) -> Secret {
        let in_file = self.file.as_ref().and_then(WatchedFile::current);
        in_file.map_or_else(|| self.first.clone(), |token| (*token).clone())
    }

    /// Tells when the file holds another token; `None` if there is no file.
    #[must_use]
    pub fn changes(&self) -> Option<watch::Receiver<Option<Arc<Secret>>>> {
        self.file.as_ref().map(WatchedFile::subscribe)
    }

    /// As a request carries it.
    ///
    /// # Errors
    /// The token holds what no header can.
    pub fn authorization(&self) -> Result<HeaderValue, NoToken> {
        bearer(&self.token())
    }
}

fn parse(text: &str) -> Result<Secret, NoToken> {
    let text = text.trim_end_matches(['\r', '\n']);
    if text.is_empty() {
        return Err(NoToken::Empty);
    }
    let token = Secret::new(text.to_owned());
    bearer(&token).map(|_| token)
}

fn bearer(token: &Secret) -> Result<HeaderValue, NoToken> {
    let bearer = HeaderValue::try_from(format!("Bearer {}", token.reveal()));
    let mut bearer = bearer.map_err(|_| NoToken::NoHeader)?;
    bearer.set_sensitive(true);
    Ok(bearer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_token_that_is_replaced_counts_at_once_and_a_bad_one_never() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        std::fs::write(&path, "spw_a_1\n").unwrap();
        let (told, reload) = watch::channel(0);
        let credential =
            Credential::in_file(Secret::new("spw_a_0".to_owned()), path.clone(), reload);
        assert_eq!(credential.token().reveal(), "spw_a_1");
        let mut versions = credential.file.as_ref().unwrap().subscribe();
        versions.mark_unchanged();
        std::fs::write(&path, "spw_b_2").unwrap();
        told.send(1).unwrap();
        versions.changed().await.unwrap();
        assert_eq!(credential.authorization().unwrap(), "Bearer spw_b_2");
        for (text, why) in [("\n", "the file is empty"), ("two\nlines", "can't be put")] {
            std::fs::write(&path, text).unwrap();
            told.send(2).unwrap();
            while !credential.file.as_ref().unwrap().last_error().is_some_and(|e| e.contains(why)) {
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
            assert_eq!(credential.token().reveal(), "spw_b_2");
        }
    }
}
