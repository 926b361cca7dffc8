//! A real Redis 7 that keeps nothing on disk, as in production: it is a write buffer and may be
//! lost.

use std::path::{Path, PathBuf};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::ports::Port;
use crate::process::ProcessSpec;

#[must_use]
pub fn spec(binary: &Path, port: &Port, cwd: PathBuf, log: PathBuf) -> ProcessSpec {
    let args = ["--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--port"];
    let mut args: Vec<String> = args.into_iter().map(str::to_owned).collect();
    args.push(port.number().to_string());
    let (name, program) = ("redis".to_owned(), binary.to_owned());
    ProcessSpec { name, program, args, env: Vec::new(), cwd, log }
}

/// PING, as any client would.
pub async fn answers(port: &Port) -> Result<(), String> {
    let mut stream = TcpStream::connect(port.socket()).await.map_err(|e| e.to_string())?;
    stream.write_all(b"PING\r\n").await.map_err(|e| e.to_string())?;
    let mut answer = [0u8; 7];
    stream.read_exact(&mut answer).await.map_err(|e| e.to_string())?;
    if &answer == b"+PONG\r\n" {
        return Ok(());
    }
    Err(format!("answered {:?} to PING", String::from_utf8_lossy(&answer)))
}
