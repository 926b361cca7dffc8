//! How many files and sockets a program may have open. What a shell or a unit gives is often 1,024,
//! while the system would allow far more: a server raises it at its start.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises the soft limit to the hard one, and returns what holds now; `None` is no limit.
///
/// # Errors
/// The system's; the limit is as it was.
pub fn raise() -> Result<Option<u64>, rustix::io::Errno> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current != maximum {
        setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })?;
    }
    Ok(maximum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_soft_limit_is_raised_to_the_hard_one() {
        let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
        setrlimit(Resource::Nofile, Rlimit { current: Some(256), maximum }).unwrap();
        assert_eq!(raise(), Ok(maximum));
        assert_eq!(getrlimit(Resource::Nofile).current, maximum);
    }
}
