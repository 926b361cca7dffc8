//! The local S3: s3s over a folder, in a process of its own (`xtask s3-serve`), so that it can be
//! killed, frozen and started again like everything else. The main key may do everything; the
//! agents' key may only put objects under `spill/`, as the policy in deploy/ has it; without a key
//! nothing goes, unless unsigned puts under that prefix are switched on.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use s3s::access::{S3Access, S3AccessContext};
use s3s::auth::SimpleAuth;
use s3s::path::S3Path;
use s3s::service::{S3Service, S3ServiceBuilder};
use s3s::{S3Result, s3_error};
use s3s_fs::FileSystem;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::error::StackError;
use crate::ports::Port;
use crate::process::ProcessSpec;

pub const SPILL_PREFIX: &str = "spill/";
const HEADER_DEADLINE: Duration = Duration::from_secs(30);

/// What the serving process reads from its file; keys never stand on a command line.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct S3Config {
    pub listen: SocketAddr,
    pub root: PathBuf,
    pub bucket: String,
    pub access_key: String,
    pub secret_key: String,
    pub agent_access_key: String,
    pub agent_secret_key: String,
    pub unsigned_put: bool,
}

struct Policy {
    main: String,
    agent: String,
    unsigned_put: bool,
}

#[async_trait::async_trait]
impl S3Access for Policy {
    async fn check(&self, cx: &mut S3AccessContext<'_>) -> S3Result<()> {
        let spill_put = cx.s3_op().name() == "PutObject"
            && matches!(cx.s3_path(), S3Path::Object { key, .. } if key.starts_with(SPILL_PREFIX));
        let allowed = match cx.credentials() {
            Some(credentials) if credentials.access_key == self.main => true,
            Some(credentials) if credentials.access_key == self.agent => spill_put,
            Some(_) => false,
            None => spill_put && self.unsigned_put,
        };
        if allowed { Ok(()) } else { Err(s3_error!(AccessDenied, "the policy refuses this")) }
    }
}

/// Serves until the process is told to end. Prints nothing; errors end it.
pub async fn serve(config_file: &Path) -> Result<(), StackError> {
    let text = fs::read_to_string(config_file)
        .map_err(StackError::io(format!("reading {}", config_file.display())))?;
    let config: S3Config = serde_json::from_str(&text)
        .map_err(|e| StackError::Refused { what: format!("{}: {e}", config_file.display()) })?;
    fs::create_dir_all(config.root.join(&config.bucket))
        .map_err(StackError::io("making the bucket"))?;
    let service = service(&config)?;
    let listener = TcpListener::bind(config.listen)
        .await
        .map_err(StackError::io(format!("listening on {}", config.listen)))?;
    loop {
        let (socket, _) = listener.accept().await.map_err(StackError::io("accepting"))?;
        socket.set_nodelay(true).map_err(StackError::io("setting TCP_NODELAY"))?;
        let service = service.clone();
        tokio::spawn(async move {
            let mut builder = Builder::new(TokioExecutor::new());
            builder.http1().timer(TokioTimer::new()).header_read_timeout(HEADER_DEADLINE);
            if let Err(error) = builder.serve_connection(TokioIo::new(socket), service).await {
                tracing::debug!(error, "a connection ended");
            }
        });
    }
}

fn service(config: &S3Config) -> Result<S3Service, StackError> {
    let files = FileSystem::new(&config.root).map_err(|e| StackError::Refused {
        what: format!("opening {}: {e:?}", config.root.display()),
    })?;
    let mut auth = SimpleAuth::new();
    auth.register(config.access_key.clone(), config.secret_key.clone().into());
    auth.register(config.agent_access_key.clone(), config.agent_secret_key.clone().into());
    let mut builder = S3ServiceBuilder::new(files);
    builder.set_auth(auth);
    builder.set_access(Policy {
        main: config.access_key.clone(),
        agent: config.agent_access_key.clone(),
        unsigned_put: config.unsigned_put,
    });
    Ok(builder.build())
}

#[must_use]
pub fn spec(xtask: &Path, config_file: &Path, cwd: PathBuf, log: PathBuf) -> ProcessSpec {
    let args = vec!["s3-serve".to_owned(), config_file.display().to_string()];
    let (name, program) = ("s3".to_owned(), xtask.to_owned());
    ProcessSpec { name, program, args, env: Vec::new(), cwd, log }
}

/// Ready when an unsigned listing is refused as it should be.
pub async fn answers(port: &Port) -> Result<(), String> {
    let mut stream = TcpStream::connect(port.socket()).await.map_err(|e| e.to_string())?;
    let request =
        format!("GET / HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", port.address());
    stream.write_all(request.as_bytes()).await.map_err(|e| e.to_string())?;
    let mut answer = [0u8; 12];
    stream.read_exact(&mut answer).await.map_err(|e| e.to_string())?;
    if &answer == b"HTTP/1.1 403" {
        return Ok(());
    }
    Err(format!("answered {:?}", String::from_utf8_lossy(&answer)))
}
