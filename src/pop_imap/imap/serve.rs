//! One IMAP connection: the socket, its timeouts, TLS, logins, IDLE.
//!
//! Owns: the loop around `Session`. Called by: `pop_imap::serve`, in a task of its own for every connection. Never: decides what a command means.
//! Spec: RFC 3501 section 5.4 (autologout), RFC 2177 (IDLE).

use std::future::poll_fn;
use std::io;
use std::mem::MaybeUninit;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWriteExt, ReadBuf};
use tokio::time::{Instant, timeout, timeout_at};
use tracing::{debug, info, warn};

use super::command::Command;
use super::out::Out;
use super::run::{self, Work};
use super::session::{Policy, Session, Step, User, answer};
use crate::base::clock;
use crate::config::secret::SecretText;
use crate::directory::AuthError;
use crate::net::{Pace, Peer, Stream};
use crate::pop_imap::context::{Context, Protocol};
use crate::pop_imap::metrics::SESSIONS;
use crate::pop_imap::room::Room;

/// Bytes of one read; they lie on the stack while there are any, so that a waiting session owns no buffer.
const READ_BYTES: usize = 16 * 1024;
/// Time for a command from its first octet to its last (`Pace`).
const COMMAND_TIMEOUT: Duration = Duration::from_secs(300);
/// Time for the peer to take the last words.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// Speaks IMAP with one client until it has gone. The caller has put `session` and `peer` into the log's span.
pub(in crate::pop_imap) async fn session(context: Arc<Context>, stream: Stream, peer: Peer) {
    SESSIONS.with_label_values(&["imap"]).inc();
    let policy = Policy {
        starttls: context.tls.is_some(),
        encrypted: stream.is_tls(),
        cleartext_login: context.may_log_in(&stream, &peer),
        append_bytes_max: context.settings.message_size_max.as_len(),
    };
    let mut session = Session::new(policy);
    let ended = talk(&context, &mut session, stream, peer.ip()).await;
    let user = session.user().map(|user| user.address.to_string());
    match ended {
        Ok(why) => info!(user, why, "IMAP session ended"),
        Err(error) => info!(user, %error, "IMAP session broken off"),
    }
}

/// The loop; says why it ended.
async fn talk(
    context: &Context,
    session: &mut Session,
    stream: Stream,
    client: Option<IpAddr>,
) -> io::Result<&'static str> {
    let born = Instant::now();
    let mut pace = Pace::default();
    let patience = context.settings.imap_idle_timeout.get();
    let mut out = Out::new(stream, patience, Some(context.shutdown.clone()));
    let mut room = None;
    session.greet(&mut out.buffer);
    loop {
        // What a waiting session holds stays small: everything but the wait is in a box for its time.
        match session.next(&mut out.buffer) {
            Step::Read => {
                if session.is_idling() {
                    tell_changes(session, &mut out.buffer);
                }
                out.flush().await?;
                match woken(context, session, &mut out.writer, born, &mut pace).await? {
                    Woken::Received => make_room(context, session, &mut room),
                    Woken::Changed => {}
                    Woken::Gone => return Ok("closed by client"),
                    Woken::TimedOut => session.bye(&mut out.buffer, "[UNAVAILABLE] Idle for too long"),
                    Woken::Stopping => session.bye(&mut out.buffer, "[UNAVAILABLE] Server is shutting down"),
                }
            }
            Step::Run { tag, command: Command::Login { user, password } } => {
                Box::pin(log_in(context, session, &mut out.buffer, &tag, &user, &password, client)).await;
            }
            Step::Run { tag, command } => {
                pace.done();
                let mut work = Work { store: &context.store, session, out: &mut out, tag };
                Box::pin(run::run(&mut work, command)).await?;
                room = None;
            }
            Step::StartTls => {
                out.flush().await?;
                // The session offers STARTTLS only when there is a certificate.
                let stream = Box::pin(context.start_tls(out.writer)).await?;
                out = Out::new(stream, patience, Some(context.shutdown.clone()));
                session.encrypted();
            }
            Step::Close => {
                Box::pin(close(out)).await;
                return Ok("closed by server");
            }
        }
    }
}

/// Takes room for the message that is coming in; when there is none, it is refused for now.
fn make_room<'a>(context: &'a Context, session: &mut Session, room: &mut Option<Room<'a>>) {
    let (held, Some(user)) = (session.held(), session.user()) else { return };
    if held == 0 {
        *room = None;
    } else if !room.get_or_insert_with(|| context.rooms.room(user.account)).hold(held) {
        warn!(user = %user.address, "too much is appended at once: a message is refused for now");
        session.give_up();
        *room = None;
    }
}

/// Why a wait for the client ended.
enum Woken {
    Received,
    Gone,
    Changed,
    TimedOut,
    Stopping,
}

/// Waits for the client; in IDLE also for changes of its mailbox.
async fn woken(
    context: &Context,
    session: &mut Session,
    stream: &mut Stream,
    born: Instant,
    pace: &mut Pace,
) -> io::Result<Woken> {
    let deadline = deadline(context, session, born, pace);
    let mut shutdown = context.shutdown.clone();
    let idling = session.is_idling();
    let mut changes = session.selected().filter(|_| idling).map(|selected| selected.changes.clone());
    let changed = async {
        match &mut changes {
            // The session holds the mailbox, and with it the sender: an error cannot come.
            Some(changes) => drop(changes.changed().await),
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        received = timeout_at(deadline, receive(stream, session)) => match received {
            Ok(received) => {
                let octets = received?;
                pace.received(octets);
                Ok(if octets == 0 { Woken::Gone } else { Woken::Received })
            }
            Err(_) => Ok(Woken::TimedOut),
        },
        () = changed => Ok(Woken::Changed),
        () = shutdown.stopping() => Ok(Woken::Stopping),
    }
}

/// Until when the client may be silent. Before login the time runs from the beginning, so that dripping bytes gain nothing.
fn deadline(context: &Context, session: &Session, born: Instant, pace: &mut Pace) -> Instant {
    if session.user().is_none() {
        born + context.settings.login_timeout.get()
    } else if session.is_mid_command() {
        let patience = COMMAND_TIMEOUT.min(context.settings.imap_idle_timeout.get());
        pace.deadline(true, clock::monotonic(), patience).into()
    } else {
        pace.done();
        Instant::now() + context.settings.imap_idle_timeout.get()
    }
}

/// Reads once into the session; 0 at the end.
async fn receive(stream: &mut Stream, session: &mut Session) -> io::Result<usize> {
    poll_fn(|cx| {
        let mut bytes = [const { MaybeUninit::uninit() }; READ_BYTES];
        let mut read = ReadBuf::uninit(&mut bytes);
        ready!(Pin::new(&mut *stream).poll_read(cx, &mut read))?;
        session.receive(read.filled());
        Poll::Ready(Ok(read.filled().len()))
    })
    .await
}

/// IDLE: what has changed in the mailbox (RFC 2177).
pub(super) fn tell_changes(session: &mut Session, out: &mut Vec<u8>) {
    let telling = session.telling(true, false);
    let Some(selected) = session.selected() else { return };
    selected.catch_up(out, telling, &[]);
    if selected.open.is_deleted() {
        session.bye(out, "Selected mailbox was deleted");
    }
}

async fn log_in(
    context: &Context,
    session: &mut Session,
    out: &mut Vec<u8>,
    tag: &[u8],
    user: &str,
    password: &SecretText,
    client: Option<IpAddr>,
) {
    match context.log_in(Protocol::Imap, user, password, client).await {
        Ok(account) => {
            session.logged_in(out, tag, User { account: account.id, address: account.address.clone() });
        }
        // RFC 5530 section 3.
        Err(AuthError::Refused) => {
            session.login_refused(out, tag, "[AUTHENTICATIONFAILED] User name or password is wrong")
        }
        Err(AuthError::Suspended) => session.login_refused(out, tag, "[CONTACTADMIN] The account is suspended"),
        Err(AuthError::TooManyFailures) => {
            session.login_refused(out, tag, "[UNAVAILABLE] Too many failed logins lately, try again later")
        }
        Err(AuthError::Unavailable(_)) => {
            answer(out, tag, "NO", "[UNAVAILABLE] Cannot check logins now, try again later")
        }
    }
}

/// The last words, as far as the peer takes them.
async fn close(mut out: Out<Stream>) {
    let closing = async {
        out.flush().await?;
        out.writer.shutdown().await
    };
    match timeout(CLOSE_TIMEOUT, closing).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => debug!(%error, "the peer did not wait for the end"),
        Err(_) => debug!("the peer did not take the last words"),
    }
}
