//! `status.sock` in the state directory: whoever connects gets the page, and the connection ends.
//!
//! A socket in the agent's own directory asks for no port and no password: the directory's rights
//! say who may look. It works with the admin page switched off as well.

use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use spillway_runtime::deadline::within;
use tokio::io::AsyncWriteExt as _;
use tokio::net::UnixListener;
use tracing::{debug, warn};

const NAME: &str = "status.sock";
/// A reader that has not taken the page by then is cut off.
const DEADLINE: Duration = Duration::from_secs(5);
/// The page is a few KB; anything else is not it.
const PAGE_BYTES_MAX: u64 = 1 << 20;
/// After a failed accept (no file descriptors left), so that the loop does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_secs(1);
/// The agent's user and its group.
const MODE: u32 = 0o660;

fn path(state_dir: &Path) -> PathBuf {
    state_dir.join(NAME)
}

/// Serves `page` for as long as the task lives, one reader after the other. That it can't be
/// served is no reason not to measure.
pub async fn serve(state_dir: PathBuf, page: impl Fn() -> String) {
    let listener = match bind(&path(&state_dir)) {
        Ok(listener) => listener,
        Err(cause) => {
            let path = path(&state_dir);
            return warn!(%cause, path = %path.display(), "the status page can't be served");
        }
    };
    loop {
        let Ok((mut reader, _)) = listener.accept().await else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let text = page();
        let told = within(DEADLINE, reader.write_all(text.as_bytes())).await;
        if !matches!(told, Ok(Ok(()))) {
            debug!("a reader of the status page went away");
        }
    }
}

/// The state directory is locked by this agent, so what lies there is a dead one's.
fn bind(path: &Path) -> std::io::Result<UnixListener> {
    match std::fs::remove_file(path) {
        Err(cause) if cause.kind() != std::io::ErrorKind::NotFound => return Err(cause),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(MODE))?;
    Ok(listener)
}

/// The page of the agent that runs with `state_dir`.
///
/// # Errors
/// None runs, or it does not answer in time.
pub fn fetch(state_dir: &Path) -> std::io::Result<String> {
    let stream = UnixStream::connect(path(state_dir))?;
    stream.set_read_timeout(Some(DEADLINE))?;
    let mut page = String::new();
    stream.take(PAGE_BYTES_MAX).read_to_string(&mut page)?;
    Ok(page)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_page_is_fetched_from_the_running_agent_even_after_a_crash_left_the_socket() {
        let dir = tempfile::tempdir().unwrap();
        drop(std::os::unix::net::UnixListener::bind(path(dir.path())).unwrap());
        assert!(fetch(dir.path()).is_err(), "nobody serves yet");
        let serving = tokio::spawn(serve(dir.path().to_owned(), || "{}".to_owned()));
        let state_dir = dir.path().to_owned();
        let fetched = tokio::task::spawn_blocking(move || {
            loop {
                if let Ok(page) = fetch(&state_dir) {
                    return page;
                }
                std::thread::yield_now();
            }
        });
        assert_eq!(fetched.await.unwrap(), "{}");
        serving.abort();
    }
}
