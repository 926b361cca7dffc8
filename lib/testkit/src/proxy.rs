//! A bad network between two programs: a TCP proxy whose behaviour is switched while connections
//! are open. Bytes are never changed or reordered; they are passed, held, delayed or thrown away,
//! and what lost bytes is reset before it carries any again, as TCP would have it.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::error::StackError;
use crate::ports::Port;

const CONNECTIONS_MAX: usize = 4_096;
const CHUNK_BYTES: usize = 64 * 1024;
const CONNECT_DEADLINE: Duration = Duration::from_secs(5);
/// A limited line hands over this often.
const BANDWIDTH_TICKS_PER_SECOND: u64 = 50;

/// Which half of a connection a one-way fault hits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    ToServer,
    ToClient,
}

/// How the line behaves, on open and on new connections alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    Pass,
    /// Every chunk of up to 64 KiB waits this long.
    Delay(Duration),
    /// Nothing moves either way; nothing is lost, as packets that are sent again until the line
    /// heals.
    BlackHole,
    /// Open connections are reset, new ones too.
    Reset,
    /// One way is a black hole, the other works.
    HalfOpen(Way),
    /// Requests arrive and are worked on; the answers are thrown away.
    SwallowAnswers,
    /// The request that holds these bytes arrives and is worked on; its answer is thrown away once
    /// it comes, and the connection is reset. All else passes.
    LoseAnswerTo(&'static [u8]),
    /// The request that holds these bytes never arrives, and its connection is reset. All else
    /// passes.
    LoseRequest(&'static [u8]),
    /// Bytes per second and way, at least 50.
    Bandwidth(u64),
}

/// What passed so far.
#[derive(Debug, Default)]
pub struct Traffic {
    pub connections: AtomicU64,
    pub to_server_bytes: AtomicU64,
    pub to_client_bytes: AtomicU64,
    pub swallowed_bytes: AtomicU64,
    /// Requests that [`Mode::LoseAnswerTo`] or [`Mode::LoseRequest`] hit.
    pub lost: AtomicU64,
}

impl Traffic {
    fn count(&self, way: Way, bytes: usize) {
        let counter = match way {
            Way::ToServer => &self.to_server_bytes,
            Way::ToClient => &self.to_client_bytes,
        };
        counter.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

/// A proxy in front of one address; gone, with its connections, when dropped.
#[derive(Debug)]
pub struct Proxy {
    port: Arc<Port>,
    upstream: SocketAddr,
    mode: watch::Sender<Mode>,
    source: Arc<AtomicU32>,
    traffic: Arc<Traffic>,
    _stop: DropGuard,
}

impl Proxy {
    /// Listens on a free port at once; needs a tokio runtime.
    pub async fn start(upstream: SocketAddr) -> Result<Self, StackError> {
        Self::start_on(Arc::new(Port::take()?), upstream).await
    }

    /// The same on a port whose number was needed before.
    pub async fn start_on(port: Arc<Port>, upstream: SocketAddr) -> Result<Self, StackError> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port.number()));
        let listener =
            TcpListener::bind(address).await.map_err(StackError::io("listening as a proxy"))?;
        let (mode, seen) = watch::channel(Mode::Pass);
        let stop = CancellationToken::new();
        let traffic = Arc::new(Traffic::default());
        let source = Arc::new(AtomicU32::new(Ipv4Addr::LOCALHOST.to_bits()));
        let line = Line {
            upstream,
            mode: seen,
            source: Arc::clone(&source),
            traffic: Arc::clone(&traffic),
        };
        let ended = stop.clone();
        tokio::spawn(
            async move { ended.run_until_cancelled(accept(listener, line, &ended)).await },
        );
        Ok(Self { port, upstream, mode, source, traffic, _stop: stop.drop_guard() })
    }

    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.port.socket()
    }

    #[must_use]
    pub fn upstream(&self) -> SocketAddr {
        self.upstream
    }

    pub fn set(&self, mode: Mode) {
        self.mode.send_replace(mode);
    }

    /// From now on it calls the server from this address of the loopback network (127.0.0.0/8):
    /// a server that treats 127.0.0.1 as itself takes it for another machine.
    pub fn call_from(&self, address: Ipv4Addr) {
        self.source.store(address.to_bits(), Ordering::Relaxed);
    }

    #[must_use]
    pub fn mode(&self) -> Mode {
        *self.mode.borrow()
    }

    #[must_use]
    pub fn traffic(&self) -> &Traffic {
        &self.traffic
    }
}

/// What every connection of a proxy knows.
#[derive(Debug, Clone)]
struct Line {
    upstream: SocketAddr,
    mode: watch::Receiver<Mode>,
    source: Arc<AtomicU32>,
    traffic: Arc<Traffic>,
}

impl Line {
    async fn connect(&self) -> io::Result<TcpStream> {
        let source = Ipv4Addr::from_bits(self.source.load(Ordering::Relaxed));
        let socket = TcpSocket::new_v4()?;
        if source != Ipv4Addr::LOCALHOST {
            socket.bind(SocketAddr::from((source, 0)))?;
        }
        socket.connect(self.upstream).await
    }
}

async fn accept(listener: TcpListener, line: Line, stop: &CancellationToken) {
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(permit) = Arc::clone(&room).acquire_owned().await else { return };
        let Ok((client, _)) = listener.accept().await else { return };
        let (line, stop) = (line.clone(), stop.clone());
        line.traffic.connections.fetch_add(1, Ordering::Relaxed);
        tokio::spawn(async move {
            if let Some(Err(error)) = stop.run_until_cancelled(carry(client, line)).await {
                tracing::debug!(%error, "a proxied connection ended");
            }
            drop(permit);
        });
    }
}

/// One connection from its first byte to its end.
async fn carry(mut client: TcpStream, mut line: Line) -> io::Result<()> {
    // A black hole swallows the handshake too: the server sees nothing before the line heals.
    let opens = |mode: &Mode| !matches!(mode, Mode::BlackHole | Mode::HalfOpen(Way::ToServer));
    let mode = *line.mode.wait_for(opens).await.map_err(io::Error::other)?;
    if mode == Mode::Reset {
        return client.set_zero_linger();
    }
    let connect = tokio::time::timeout(CONNECT_DEADLINE, line.connect()).await;
    let mut server = match connect.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
        Ok(server) => server,
        Err(error) => {
            client.set_zero_linger()?;
            return Err(error);
        }
    };
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (from_client, to_client) = client.split();
    let (from_server, to_server) = server.split();
    let doomed = AtomicBool::new(false);
    let mut there = Half::new(from_client, to_server, Way::ToServer, line.clone(), &doomed);
    let mut back = Half::new(from_server, to_client, Way::ToClient, line, &doomed);
    let ended = tokio::try_join!(there.pump(), back.pump());
    if ended.is_err() {
        client.set_zero_linger()?;
        server.set_zero_linger()?;
    }
    ended.map(|_| ())
}

/// One way of one connection.
struct Half<'a> {
    from: ReadHalf<'a>,
    to: WriteHalf<'a>,
    way: Way,
    line: Line,
    /// Bytes were thrown away: nothing may follow them.
    torn: bool,
    /// The next answer on this connection is to be lost.
    doomed: &'a AtomicBool,
}

/// What a mode means for one way.
enum Act {
    Forward { after: Duration },
    Hold,
    Swallow,
    Reset,
    Trickle(u64),
}

impl<'a> Half<'a> {
    fn new(
        from: ReadHalf<'a>,
        to: WriteHalf<'a>,
        way: Way,
        line: Line,
        doomed: &'a AtomicBool,
    ) -> Self {
        Self { from, to, way, line, torn: false, doomed }
    }

    /// Until the sender closes its side (`Ok`), or the connection has to be reset (`Err`).
    async fn pump(&mut self) -> io::Result<()> {
        let mut chunk = vec![0u8; CHUNK_BYTES];
        loop {
            match self.act() {
                Act::Reset => return Err(io::ErrorKind::ConnectionReset.into()),
                Act::Hold => self.changed().await?,
                _ => {
                    let read = tokio::select! {
                        read = self.from.read(&mut chunk) => read?,
                        changed = self.line.mode.changed() => {
                            changed.map_err(io::Error::other)?;
                            continue;
                        }
                    };
                    if read == 0 {
                        return self.to.shutdown().await;
                    }
                    self.hand_over(chunk.get(..read).unwrap_or_default()).await?;
                }
            }
        }
    }

    /// By the mode at this moment: it may have changed while we were reading.
    async fn hand_over(&mut self, mut chunk: &[u8]) -> io::Result<()> {
        self.lose(chunk)?;
        while !chunk.is_empty() {
            match self.act() {
                Act::Reset => return Err(io::ErrorKind::ConnectionReset.into()),
                Act::Hold => self.changed().await?,
                Act::Swallow => {
                    self.torn = true;
                    let bytes = chunk.len() as u64;
                    self.line.traffic.swallowed_bytes.fetch_add(bytes, Ordering::Relaxed);
                    return Ok(());
                }
                Act::Forward { after } => {
                    tokio::time::sleep(after).await;
                    self.write(chunk).await?;
                    return Ok(());
                }
                Act::Trickle(bytes_per_second) => {
                    let tick = Duration::from_millis(1_000 / BANDWIDTH_TICKS_PER_SECOND);
                    let bytes = (bytes_per_second / BANDWIDTH_TICKS_PER_SECOND).max(1);
                    let bytes = chunk.len().min(usize::try_from(bytes).unwrap_or(CHUNK_BYTES));
                    let (now, later) = chunk.split_at(bytes);
                    self.write(now).await?;
                    chunk = later;
                    tokio::time::sleep(tick).await;
                }
            }
        }
        Ok(())
    }

    /// Resets a connection at the request or answer that is to be lost.
    fn lose(&self, chunk: &[u8]) -> io::Result<()> {
        let holds = |bytes: &[u8]| chunk.windows(bytes.len()).any(|window| window == bytes);
        let mode = *self.line.mode.borrow();
        let lost = match (self.way, mode) {
            (Way::ToClient, _) => self.doomed.load(Ordering::Relaxed),
            (Way::ToServer, Mode::LoseAnswerTo(bytes)) if holds(bytes) => {
                self.doomed.store(true, Ordering::Relaxed);
                false
            }
            (Way::ToServer, Mode::LoseRequest(bytes)) => holds(bytes),
            (Way::ToServer, _) => false,
        };
        if !lost {
            return Ok(());
        }
        self.line.traffic.lost.fetch_add(1, Ordering::Relaxed);
        Err(io::ErrorKind::ConnectionReset.into())
    }

    async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.to.write_all(bytes).await?;
        self.line.traffic.count(self.way, bytes.len());
        Ok(())
    }

    async fn changed(&mut self) -> io::Result<()> {
        self.line.mode.changed().await.map_err(io::Error::other)
    }

    fn act(&mut self) -> Act {
        let mode = *self.line.mode.borrow_and_update();
        match mode {
            Mode::Reset => Act::Reset,
            Mode::SwallowAnswers if self.way == Way::ToClient => Act::Swallow,
            _ if self.torn => Act::Reset,
            Mode::BlackHole => Act::Hold,
            Mode::HalfOpen(way) if way == self.way => Act::Hold,
            Mode::Delay(after) => Act::Forward { after },
            Mode::Bandwidth(bytes) => Act::Trickle(bytes),
            Mode::Pass
            | Mode::HalfOpen(_)
            | Mode::SwallowAnswers
            | Mode::LoseAnswerTo(_)
            | Mode::LoseRequest(_) => Act::Forward { after: Duration::ZERO },
        }
    }
}
