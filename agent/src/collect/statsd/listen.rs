//! Listens for StatsD datagrams on UDP and on a unix socket.
//!
//! A socket that can't be bound (the port is taken) is tried again; everything else goes on
//! meanwhile. The kernel drops what comes faster than it is read: its own count of that is
//! passed on, so that missing lines are not a mystery.

use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::net::{UdpSocket, UnixDatagram};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use super::Aggregator;
use super::aggregate::Dropped;
use crate::collect::Reading;
use crate::metrics::{Input, Metrics};
use crate::settings::StatsdSettings;

/// The largest datagram UDP can carry.
const DATAGRAM_BYTES_MAX: usize = 65_535;
/// Datagrams taken before other tasks get their turn.
const BURST_MAX: usize = 128;
/// Pause before a socket that could not be bound, or failed, is tried again.
const RETRY: Duration = Duration::from_secs(10);
/// Whoever runs on this host may send.
const SOCKET_MODE: u32 = 0o722;

/// The listening sockets and what they gathered.
#[derive(Clone)]
pub struct Listener {
    aggregator: Arc<Mutex<Aggregator>>,
    metrics: Metrics,
}

impl Listener {
    #[must_use]
    pub fn new(settings: &StatsdSettings, metrics: Metrics) -> Self {
        let aggregator = Arc::new(Mutex::new(Aggregator::new(settings, metrics.clone())));
        Self { aggregator, metrics }
    }

    /// Starts listening where `settings` says, until `stop`.
    pub fn start(&self, settings: &StatsdSettings, tasks: &TaskTracker, stop: &CancellationToken) {
        if !settings.enabled {
            return;
        }
        if !settings.listen.is_empty() {
            let (this, listen, stop) = (self.clone(), settings.listen.clone(), stop.clone());
            tasks.spawn(async move {
                let work = this.keep_listening("statsd_udp", || this.udp(&listen));
                stop.run_until_cancelled(work).await
            });
        }
        if let Some(path) = settings.socket.clone() {
            let (this, stop) = (self.clone(), stop.clone());
            tasks.spawn(async move {
                let work = this.keep_listening("statsd_unix", || this.unix(&path));
                stop.run_until_cancelled(work).await
            });
        }
    }

    /// Ends a window: what was said in it.
    #[must_use]
    pub fn flush(&self) -> Vec<Reading> {
        self.aggregator().flush(Instant::now())
    }

    /// What the last window with drops could not keep.
    #[must_use]
    pub fn last_dropped(&self) -> Option<Dropped> {
        self.aggregator().last_dropped()
    }

    /// Takes lines that came another way.
    pub fn take(&self, lines: &[u8]) {
        self.aggregator().take(lines, Instant::now());
    }

    #[cfg(test)]
    pub fn take_for_tests(&self, datagram: &[u8]) {
        self.aggregator().take(datagram, Instant::now());
    }

    fn aggregator(&self) -> std::sync::MutexGuard<'_, Aggregator> {
        // A panic under the lock would leave sums half added at worst; the next flush ends that.
        self.aggregator.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn keep_listening<F>(&self, input: &'static str, listen: impl Fn() -> F)
    where
        F: Future<Output = std::io::Result<()>>,
    {
        let mut told = false;
        loop {
            let started = Instant::now();
            if let Err(cause) = listen().await {
                self.metrics.inputs_failed.get_or_create(&Input { input }).inc();
                // It worked for a while: that this ended is news.
                if !told || started.elapsed() > RETRY {
                    warn!(input, %cause, "can't listen; tried again every {RETRY:?}");
                    told = true;
                }
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    async fn udp(&self, listen: &str) -> std::io::Result<()> {
        let socket = UdpSocket::bind(listen).await?;
        info!(address = %socket.local_addr()?, "listening for StatsD");
        let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
        loop {
            socket.readable().await?;
            self.burst(&mut buffer, |buffer| socket.try_recv(buffer))?;
            tokio::task::yield_now().await;
        }
    }

    async fn unix(&self, path: &Path) -> std::io::Result<()> {
        let socket = bind_unix(path)?;
        info!(path = %path.display(), "listening for StatsD");
        let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
        loop {
            socket.readable().await?;
            self.burst(&mut buffer, |buffer| socket.try_recv(buffer))?;
            tokio::task::yield_now().await;
        }
    }

    /// Takes what lies ready, up to a limit.
    fn burst(
        &self,
        buffer: &mut [u8],
        receive: impl Fn(&mut [u8]) -> std::io::Result<usize>,
    ) -> std::io::Result<()> {
        let now = Instant::now();
        let mut aggregator = self.aggregator();
        for _ in 0..BURST_MAX {
            match receive(buffer) {
                Ok(bytes) => aggregator.take(buffer.get(..bytes).unwrap_or_default(), now),
                Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => break,
                Err(cause) => return Err(cause),
            }
        }
        Ok(())
    }
}

/// Binds, taking the place of a socket that nobody listens on any more.
fn bind_unix(path: &Path) -> std::io::Result<UnixDatagram> {
    let stale = std::fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_socket())
        && std::os::unix::net::UnixDatagram::unbound()?.connect(path).is_err();
    if stale {
        std::fs::remove_file(path)?;
    }
    let socket = UnixDatagram::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(SOCKET_MODE))?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn until_lines(metrics: &Metrics, lines: u64) {
        while metrics.statsd_lines.get() < lines {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn lines_sent_to_the_unix_socket_are_counted_even_after_a_crash_left_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("statsd.sock");
        drop(std::os::unix::net::UnixDatagram::bind(&path).unwrap());
        let settings = StatsdSettings {
            listen: String::new(),
            socket: Some(path.clone()),
            ..StatsdSettings::default()
        };
        let metrics = Metrics::for_tests();
        let listener = Listener::new(&settings, metrics.clone());
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        listener.start(&settings, &tasks, &stop);
        let client = UnixDatagram::unbound().unwrap();
        while client.send_to(b"a:1|c\nb:2|g", &path).await.is_err() {
            tokio::task::yield_now().await;
        }
        until_lines(&metrics, 2).await;
        assert_eq!(listener.flush().len(), 2);
        stop.cancel();
        tasks.close();
        tasks.wait().await;
    }

    #[tokio::test]
    async fn a_taken_port_is_counted_and_harms_nothing_else() {
        let taken = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let listen = taken.local_addr().unwrap().to_string();
        let settings = StatsdSettings { listen, ..StatsdSettings::default() };
        let metrics = Metrics::for_tests();
        let listener = Listener::new(&settings, metrics.clone());
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        listener.start(&settings, &tasks, &stop);
        let failed = metrics.inputs_failed.get_or_create(&Input { input: "statsd_udp" }).clone();
        while failed.get() == 0 {
            tokio::task::yield_now().await;
        }
        assert!(listener.flush().is_empty());
        stop.cancel();
    }
}
