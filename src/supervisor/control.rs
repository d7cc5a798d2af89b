//! The control socket: one line of JSON in, one line out.
//!
//! Owns: `Request`, `Reply`, the server in the supervisor and the client of the commands. Called by: the supervisor,
//! `fife status|reload|stop`. Never: lets in anybody but root and the user that fife runs as (peer credentials), and none of its roles,
//! which are that user when fife does not run as root.

use std::collections::BTreeSet;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::kill;
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tracing::{info, warn};

use super::status::Status;
use crate::net::{Listener, Peer, Stream, identity};

/// Bytes of a request, at most.
const REQUEST_BYTES_MAX: u64 = 4096;
/// Bytes of a reply, at most.
const REPLY_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// Time in which a request must have come.
const REQUEST_PATIENCE: Duration = Duration::from_secs(5);
/// Connections at a time; more wait.
const CONNECTIONS_MAX: usize = 16;
/// What a command waits for a reply: a reload waits until the roles serve again, a stop until they have ended.
const REPLY_PATIENCE: Duration = Duration::from_secs(90);
/// Wait after a failed accept, in place of spinning.
const PAUSE_AFTER_ERROR: Duration = Duration::from_millis(500);

/// What the supervisor is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", tag = "command")]
pub enum Request {
    Status,
    /// Read the file again; restart what changed.
    Reload,
    /// Stop the roles, then the supervisor. Answered at once; the connection is closed when all is over.
    Stop,
    /// The same, then the machine starts again. Of the appliance only.
    Reboot,
    /// Set the machine's clock. Seconds since 1970. Of the appliance only.
    SetTime {
        unix_secs: u64,
    },
}

/// What it answers.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "reply", content = "content")]
pub enum Reply {
    Status(Box<Status>),
    Reloaded(Reloaded),
    Stopping,
    /// It was done, and what came of it.
    Done(String),
    /// It cannot, and why.
    Refused(String),
}

/// What a reload did.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reloaded {
    pub restarted: Vec<String>,
    pub started: Vec<String>,
    pub stopped: Vec<String>,
    /// Of those restarted or started, the ones that do not serve yet.
    pub not_ready: Vec<String>,
}

/// A request on its way to the supervisor's loop.
pub(in crate::supervisor) type Asked = (Request, oneshot::Sender<Reply>);

/// The processes of the roles, from before they have read anything until they are waited for: none of them may ask.
#[derive(Debug, Clone, Default)]
pub(super) struct RolePids(Arc<Mutex<BTreeSet<u32>>>);

impl RolePids {
    pub(super) fn insert(&self, pid: u32) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(pid);
    }

    pub(super) fn remove(&self, pid: u32) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&pid);
    }

    fn contains(&self, pid: u32) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).contains(&pid)
    }

    /// Whether the peer may ask. One that has gone meanwhile may not: it could have been a role, whose pid is not known any more.
    /// Roles make no processes, so there is nobody who could ask for them.
    fn admit(&self, peer: &Peer) -> bool {
        let is_owner = peer.uid.is_some_and(|uid| uid == 0 || uid == identity::own_uid());
        // No pid: of a container's host, say. The roles are in our namespace.
        is_owner && peer.pid.is_none_or(|pid| is_there(pid) && !self.contains(pid))
    }
}

/// Whether the process is there, or a zombie that nobody has waited for.
fn is_there(pid: u32) -> bool {
    i32::try_from(pid).is_ok_and(|pid| kill(Pid::from_raw(pid), None) != Err(Errno::ESRCH))
}

/// Serves the socket until the process ends.
pub(super) async fn serve(listener: Listener, asked: mpsc::Sender<Asked>, roles: RolePids) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { return };
        match listener.accept().await {
            // Before it is listened to: a role must not keep others waiting either.
            Ok((_, peer)) if !roles.admit(&peer) => warn!(%peer, pid = peer.pid, "control connection refused"),
            Ok((stream, peer)) => {
                let asked = asked.clone();
                tokio::spawn(async move {
                    if let Err(error) = converse(stream, asked).await {
                        info!(%peer, %error, "control connection failed");
                    }
                    drop(slot);
                });
            }
            Err(error) => {
                warn!(%error, "cannot accept control connections");
                tokio::time::sleep(PAUSE_AFTER_ERROR).await;
            }
        }
    }
}

async fn converse(stream: Stream, asked: mpsc::Sender<Asked>) -> io::Result<()> {
    let mut stream = tokio::io::BufReader::new(stream);
    let mut line = Vec::new();
    let mut bounded = (&mut stream).take(REQUEST_BYTES_MAX);
    tokio::time::timeout(REQUEST_PATIENCE, bounded.read_until(b'\n', &mut line)).await??;
    let reply = match serde_json::from_slice(&line) {
        Ok(request) => {
            let (sender, receiver) = oneshot::channel();
            let gone = |_| io::Error::from(io::ErrorKind::BrokenPipe);
            asked.send((request, sender)).await.map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
            receiver.await.map_err(gone)?
        }
        Err(error) => Reply::Refused(format!("not a request: {error}")),
    };
    let mut text = serde_json::to_vec(&reply)?;
    text.push(b'\n');
    stream.write_all(&text).await?;
    stream.flush().await?;
    if matches!(reply, Reply::Stopping) {
        // The other end waits for the end of this process.
        std::future::pending::<()>().await;
    }
    Ok(())
}

/// Why a command got no reply.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    #[error("no running fife answers on {}: {source}", .path.display())]
    Unreachable { path: PathBuf, source: io::Error },
    #[error("the running fife gave no answer: {0}")]
    Io(#[from] io::Error),
    #[error("the running fife speaks otherwise than this command: {0}")]
    Reply(#[from] serde_json::Error),
}

/// Asks the supervisor of this state directory.
///
/// # Errors
/// None runs there, or it does not answer.
pub fn ask(state_dir: &Path, request: Request) -> Result<Reply, AskError> {
    let path = state_dir.join("run/control.sock");
    let mut stream =
        UnixStream::connect(&path).map_err(|source| AskError::Unreachable { path: path.clone(), source })?;
    stream.set_read_timeout(Some(REPLY_PATIENCE))?;
    let mut text = serde_json::to_vec(&request)?;
    text.push(b'\n');
    stream.write_all(&text)?;
    let mut line = Vec::new();
    let mut reader = BufReader::new(&stream).take(REPLY_BYTES_MAX);
    reader.read_until(b'\n', &mut line)?;
    let reply = serde_json::from_slice(&line)?;
    if matches!(reply, Reply::Stopping) {
        // Ends when the supervisor has.
        reader.read_to_end(&mut Vec::new())?;
    }
    Ok(reply)
}
