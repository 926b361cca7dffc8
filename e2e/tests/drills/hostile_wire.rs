//! Hostile bytes, made by hand: requests that no client library would write, frames that are true
//! around a body that is not, and compressed bodies that lie.

use std::time::Duration;

use spillway_proto::frame::{MAGIC, VERSION};
use spillway_proto::limits::{FRAME_BYTES_MAX, FRAME_RAW_BYTES_MAX};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Longer than any deadline of the server's.
const PATIENCE: Duration = Duration::from_secs(60);
/// What zstd calls a block that is one byte, often.
const RLE: u32 = 1;
/// …and one that is as it is.
const RAW: u32 = 0;
/// The largest block.
const BLOCK_BYTES: usize = 128 * 1024;
/// Window descriptors: 128 KiB, and the largest that can be written, 2^41 bytes with no mantissa.
pub const WINDOW_LOG_17: u8 = 7 << 3;
pub const WINDOW_LOG_31: u8 = 21 << 3;
const ZSTD_MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// A connection's end without an answer.
pub const CLOSED: u16 = 0;

/// Sends `bytes`, as many as are taken, and reads the status of the answer.
pub async fn send(address: &str, bytes: &[u8]) -> u16 {
    let Ok(mut stream) = TcpStream::connect(address).await else { return CLOSED };
    // A server that refuses stops reading; its answer may be there all the same.
    let _refused = timeout(PATIENCE, stream.write_all(bytes)).await.is_err();
    answer(&mut stream).await
}

/// Sends `whole`, then a byte a second of `rest`, until an answer comes or the connection ends.
pub async fn drip(address: &str, whole: &[u8], rest: &[u8]) -> u16 {
    let Ok(mut stream) = TcpStream::connect(address).await else { return CLOSED };
    stream.write_all(whole).await.expect("the beginning is taken");
    let (mut read, mut write) = stream.into_split();
    let dripping = async {
        for byte in rest {
            if write.write_all(&[*byte]).await.is_err() {
                break;
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        std::future::pending::<()>().await;
    };
    tokio::select! {
        status = answer(&mut read) => status,
        () = dripping => CLOSED,
    }
}

/// The status of the answer that comes, and its whole head taken off.
pub async fn answer(stream: &mut (impl tokio::io::AsyncRead + Unpin)) -> u16 {
    let mut head = Vec::new();
    let mut buffer = [0; 4_096];
    while !head.windows(4).any(|window| window == b"\r\n\r\n") {
        match timeout(PATIENCE, stream.read(&mut buffer)).await {
            Ok(Ok(count)) if count > 0 => head.extend_from_slice(&buffer[..count]),
            Ok(_) => return CLOSED,
            Err(_) => panic!("neither an answer nor an end within {PATIENCE:?}"),
        }
    }
    let text = String::from_utf8_lossy(&head);
    text.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(CLOSED)
}

/// `POST /v1/batches` with exactly these header lines.
pub fn post(headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    post_to("/v1/batches", headers, body)
}

/// The same, to another route.
pub fn post_to(path: &str, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let mut bytes = format!("POST {path} HTTP/1.1\r\nHost: drill\r\n").into_bytes();
    for (name, value) in headers {
        bytes.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
    }
    bytes.extend_from_slice(b"\r\n");
    bytes.extend_from_slice(body);
    bytes
}

/// A whole and honest request, but for its body and these header lines beside.
pub fn post_as(token: &str, more: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let bearer = format!("Bearer {token}");
    let length = body.len().to_string();
    let own = [("Authorization", bearer.as_str()), ("Content-Length", length.as_str())];
    post(&[&own, more].concat(), body)
}

/// A frame whose header and checksum are true for `body` as it is.
pub fn frame(series: u32, points: u32, raw_bytes: u32, body: &[u8]) -> Vec<u8> {
    let mut rest = vec![VERSION, 0, 0, 0];
    let length = u32::try_from(body.len()).expect("a small body");
    for word in [length, raw_bytes, series, points, 1_700_000_000] {
        rest.extend_from_slice(&word.to_le_bytes());
    }
    rest.extend_from_slice(&[7; 40]);
    rest.extend_from_slice(body);
    let crc = crc32c::crc32c(&rest).to_le_bytes();
    [MAGIC.as_slice(), &crc, &rest].concat()
}

/// A protobuf field that is a message or a text.
pub fn field(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut out = vec![tag << 3 | 2];
    let mut length = content.len();
    while length > 0x7f {
        out.push((length & 0x7f) as u8 | 0x80);
        length >>= 7;
    }
    out.push(length as u8);
    out.extend_from_slice(content);
    out
}

/// A frame around a protobuf message that is nonsense.
pub fn frame_of_message(message: &[u8]) -> Vec<u8> {
    let raw_bytes = u32::try_from(message.len()).expect("a small message");
    frame(1, 1, raw_bytes, &zstd_raw(message))
}

/// A frame that claims as much as it may, around zeros; a kilobyte on the wire.
pub fn frame_of_zeros() -> Vec<u8> {
    let raw_bytes = FRAME_RAW_BYTES_MAX as u32;
    frame(1, 1, raw_bytes, &zstd_zeros(FRAME_RAW_BYTES_MAX, WINDOW_LOG_17))
}

/// The largest frame there may be, around ten gigabytes of zeros.
pub fn frame_of_ten_gigabytes() -> Vec<u8> {
    let body = zstd_zeros(10_000_000_000, WINDOW_LOG_17);
    assert!(body.len() < FRAME_BYTES_MAX, "it fits a frame");
    frame(1, 1, FRAME_RAW_BYTES_MAX as u32, &body)
}

/// Zeros, compressed as a stream of unknown length (RFC 8878, section 3.1.1).
pub fn zstd_zeros(bytes: usize, window: u8) -> Vec<u8> {
    let mut out = [ZSTD_MAGIC.as_slice(), &[0, window]].concat();
    let mut left = bytes;
    while left > 0 {
        let block = left.min(BLOCK_BYTES);
        left -= block;
        out.extend_from_slice(&block_header(left == 0, RLE, block));
        out.push(0);
    }
    out
}

fn zstd_raw(content: &[u8]) -> Vec<u8> {
    let mut out = [ZSTD_MAGIC.as_slice(), &[0, WINDOW_LOG_17]].concat();
    let mut blocks = content.chunks(BLOCK_BYTES).peekable();
    while let Some(block) = blocks.next() {
        out.extend_from_slice(&block_header(blocks.peek().is_none(), RAW, block.len()));
        out.extend_from_slice(block);
    }
    out
}

fn block_header(last: bool, kind: u32, bytes: usize) -> [u8; 3] {
    let size = u32::try_from(bytes).expect("a block");
    let [a, b, c, _] = (u32::from(last) | kind << 1 | size << 3).to_le_bytes();
    [a, b, c]
}
