//! How a stack tells what it is doing: one short line at a time, to whoever wants to show it.

use std::fmt;
use std::sync::Arc;

/// Takes finished sentences ("kafka-0 is ready after 3.2 s"). Cheap to clone.
#[derive(Clone)]
pub struct Progress(Arc<dyn Fn(&str) + Send + Sync>);

impl Progress {
    pub fn new(tell: impl Fn(&str) + Send + Sync + 'static) -> Self {
        Self(Arc::new(tell))
    }

    /// For tests: their output is read only when something fails, and then the logs say more.
    #[must_use]
    pub fn silent() -> Self {
        Self::new(|_| {})
    }

    pub fn tell(&self, line: &str) {
        (self.0)(line);
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
