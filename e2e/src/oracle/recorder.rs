//! The recorder: a process that keeps the ledger, apart from the system under test and from the
//! senders. A note is answered only when it is on disk; the sender acts only when it is answered.
//!
//! The wire: note lines one way ([`Note::to_line`]), one byte per durable note the other way, in
//! order. A sender whose connection broke sends again what was not answered: a note that lies
//! there twice says nothing new of a batch's fate.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::mpsc as thread_mpsc;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot};

use super::note::{Note, sound_bytes};

/// Notes that one fdatasync makes durable.
const GROUP_MAX: usize = 1_024;
/// Notes on their way, on either side; a sender waits beyond it.
const QUEUE: usize = 4_096;
/// Between attempts to reach the recorder; senders stand still meanwhile.
const RECONNECT_PAUSE: Duration = Duration::from_millis(50);
/// What stands for "durable" on the wire.
const DURABLE: u8 = b'.';

/// A line to be stored, and who waits for it.
struct Incoming {
    line: String,
    durable: mpsc::Sender<()>,
}

/// Keeps the ledger in `file` until the process is ended, by whatever signal.
///
/// # Errors
/// The address is taken, or the file is damaged or can't be written: no note is answered then.
pub async fn serve(listen: SocketAddr, file: &Path) -> io::Result<()> {
    let file = open(file)?;
    let listener = TcpListener::bind(listen).await?;
    let (notes, inbox) = thread_mpsc::sync_channel::<Incoming>(QUEUE);
    let (failed, mut failure) = mpsc::channel(1);
    std::thread::Builder::new().name("ledger".into()).spawn(move || {
        if let Err(error) = store(file, &inbox) {
            // Nobody listens any more only when the process ends anyway.
            failed.blocking_send(error).unwrap_or_default();
        }
    })?;
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let (connection, _) = accepted?;
                connection.set_nodelay(true)?;
                tokio::spawn(take_notes(connection, notes.clone()));
            }
            error = failure.recv() => {
                return Err(error.unwrap_or_else(|| io::Error::other("the ledger's thread ended")));
            }
        }
    }
}

/// Opens the file behind its last whole note.
fn open(path: &Path) -> io::Result<File> {
    let bytes = match std::fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        read => read?,
    };
    let whole = sound_bytes(&bytes)?;
    let file = OpenOptions::new().create(true).append(true).open(path)?;
    file.set_len(whole as u64)?;
    file.sync_all()?;
    if let Some(dir) = path.parent() {
        File::open(dir)?.sync_all()?;
    }
    Ok(file)
}

/// Appends in groups, one fdatasync each. A failed one ends the recorder: what the page cache holds
/// then is nobody's guess.
fn store(mut file: File, inbox: &thread_mpsc::Receiver<Incoming>) -> io::Result<()> {
    while let Ok(first) = inbox.recv() {
        let mut group = vec![first];
        while group.len() < GROUP_MAX
            && let Ok(next) = inbox.try_recv()
        {
            group.push(next);
        }
        let lines: String = group.iter().map(|incoming| incoming.line.as_str()).collect();
        file.write_all(lines.as_bytes())?;
        file.sync_data()?;
        for incoming in group {
            // A sender that is gone asks again on its next connection.
            incoming.durable.blocking_send(()).unwrap_or_default();
        }
    }
    Ok(())
}

async fn take_notes(connection: TcpStream, notes: thread_mpsc::SyncSender<Incoming>) {
    let (reader, mut writer) = connection.into_split();
    let (durable, mut answers) = mpsc::channel(QUEUE);
    let answering = tokio::spawn(async move {
        while answers.recv().await.is_some() {
            if writer.write_all(&[DURABLE]).await.is_err() {
                return;
            }
        }
    });
    let mut lines = BufReader::new(reader).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        // A line that is cut was never whole at its sender's end either.
        if Note::parse(&line).is_none() {
            break;
        }
        let incoming = Incoming { line: line + "\n", durable: durable.clone() };
        let notes = notes.clone();
        let sent = tokio::task::spawn_blocking(move || notes.send(incoming)).await;
        if !matches!(sent, Ok(Ok(()))) {
            break;
        }
    }
    answering.abort();
}

/// The sender's end. Clones share one connection.
#[derive(Clone, Debug)]
pub struct Recorder {
    notes: mpsc::Sender<Waiting>,
}

#[derive(Debug)]
struct Waiting {
    line: String,
    durable: oneshot::Sender<()>,
}

impl Recorder {
    /// Connects when there is something to note, and again whenever the connection breaks.
    #[must_use]
    pub fn at(address: SocketAddr) -> Self {
        let (notes, inbox) = mpsc::channel(QUEUE);
        tokio::spawn(keep_connected(address, inbox));
        Self { notes }
    }

    /// Returns when the note is durable, however long the recorder is away.
    pub async fn note(&self, note: &Note) {
        let (durable, answered) = oneshot::channel();
        let waiting = Waiting { line: note.to_line(), durable };
        self.notes.send(waiting).await.expect("the ledger's task lives as long as its senders");
        answered.await.expect("the ledger's task answers each note");
    }
}

async fn keep_connected(address: SocketAddr, mut inbox: mpsc::Receiver<Waiting>) {
    let mut open = VecDeque::new();
    loop {
        let Ok(connection) = TcpStream::connect(address).await else {
            tokio::time::sleep(RECONNECT_PAUSE).await;
            continue;
        };
        if converse(connection, &mut inbox, &mut open).await == Talk::Over {
            return;
        }
        tokio::time::sleep(RECONNECT_PAUSE).await;
    }
}

#[derive(PartialEq, Eq)]
enum Talk {
    Broken,
    Over,
}

/// Sends what is open and what comes, and answers in order, until the connection breaks.
async fn converse(
    connection: TcpStream,
    inbox: &mut mpsc::Receiver<Waiting>,
    open: &mut VecDeque<Waiting>,
) -> Talk {
    let (mut reader, mut writer) = connection.into_split();
    let again: String = open.iter().map(|waiting| waiting.line.as_str()).collect();
    if writer.write_all(again.as_bytes()).await.is_err() {
        return Talk::Broken;
    }
    let mut answers = [0; 1_024];
    loop {
        tokio::select! {
            read = reader.read(&mut answers) => {
                let Ok(count @ 1..) = read else { return Talk::Broken };
                for waiting in open.drain(..count.min(open.len())) {
                    // Who waited may have been cancelled.
                    waiting.durable.send(()).unwrap_or_default();
                }
            }
            next = inbox.recv(), if open.len() < QUEUE => {
                let Some(next) = next else { return Talk::Over };
                let written = writer.write_all(next.line.as_bytes()).await;
                open.push_back(next);
                if written.is_err() {
                    return Talk::Broken;
                }
            }
        }
    }
}
