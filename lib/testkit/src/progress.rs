//! How a stack tells what it is doing: one short line at a time, to whoever wants to show it.

use std::fmt;
use std::sync::Arc;

/// Takes finished sentences ("kafka-0 is ready after 3.2 s"). Cheap to clone.
#[derive(Clone)]
pub struct Progress {
    tell: Arc<dyn Fn(&str) + Send + Sync>,
    shown: bool,
}

impl Progress {
    pub fn new(tell: impl Fn(&str) + Send + Sync + 'static) -> Self {
        Self { tell: Arc::new(tell), shown: true }
    }

    /// For tests: their output is read only when something fails, and then the logs say more.
    #[must_use]
    pub fn silent() -> Self {
        Self { tell: Arc::new(|_| {}), shown: false }
    }

    /// Whether somebody is watching: then cargo may show what it builds, too.
    #[must_use]
    pub fn is_shown(&self) -> bool {
        self.shown
    }

    pub fn tell(&self, line: &str) {
        (self.tell)(line);
    }
}

impl Default for Progress {
    fn default() -> Self {
        Self::silent()
    }
}

impl fmt::Debug for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Progress")
    }
}
