//! A scrape target whose every answer is another number.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// Series of the target.
pub const SERIES: u64 = 200;
const REQUEST_BYTES_MAX: usize = 16 * 1024;

pub struct Target {
    pub address: SocketAddr,
    served: Arc<AtomicU64>,
    serving: JoinHandle<()>,
}

impl Drop for Target {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Target {
    /// Listens, and answers the n-th scrape with n for `drill_series{n="0"}`, and more for others.
    pub async fn listen() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let served = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&served);
        let serving = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                answer(stream, &count).await;
            }
        });
        Self { address, served, serving }
    }

    /// Scrapes that were answered.
    pub fn served(&self) -> u64 {
        self.served.load(Ordering::Acquire)
    }
}

async fn answer(mut stream: TcpStream, served: &AtomicU64) {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") && request.len() < REQUEST_BYTES_MAX {
        match stream.read_buf(&mut request).await {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
    }
    let scrape = served.fetch_add(1, Ordering::AcqRel) + 1;
    let mut body = String::from("# TYPE drill_series gauge\n");
    for n in 0..SERIES {
        writeln!(body, "drill_series{{n=\"{n}\"}} {}", scrape + n).expect("a string takes it");
    }
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n",
        body.len()
    );
    let whole = [head.as_bytes(), body.as_bytes()].concat();
    if stream.write_all(&whole).await.is_ok() && stream.shutdown().await.is_err() {
        eprintln!("the scraper went away");
    }
}
