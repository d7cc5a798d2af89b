//! Memory of sessions that wait.
//!
//! Owns: this row. Called by: `main`.

use futures_util::{StreamExt, TryStreamExt};

use super::{Board, block_on, float};
use crate::client::Imap;
use crate::gauge;
use crate::server::{Server, Service};
use crate::{Failure, PASSWORD, mail};

/// Logins under way at a time.
const LOGINS: usize = 32;

/// Opens so many sessions, spread over the accounts, each with INBOX selected and in IDLE, on a server that has done
/// nothing else since its start: memory that it had before and would use again is not to be had for free.
pub(crate) fn row(board: &mut Board, server: &mut Server, sessions: u64, accounts: u64) -> Result<(), Failure> {
    server.restart(false)?;
    let server = &*server;
    let value = block_on(async {
        // The first of each account pays for what they share.
        let shared = open(server, accounts, accounts).await?;
        let before = gauge::memory_kib(&server.roots());
        let idle = open(server, sessions, accounts).await?;
        let after = gauge::memory_kib(&server.roots());
        drop((shared, idle));
        Ok(float(after.saturating_sub(before)) / float(sessions))
    })?;
    board.put(server.kind, "memory of an idle IMAP session", value);
    Ok(())
}

async fn open(server: &Server, sessions: u64, accounts: u64) -> Result<Vec<Imap>, Failure> {
    futures_util::stream::iter(0..sessions)
        .map(|number| async move {
            let user = mail::address(number % accounts);
            let mut session = Imap::login(server.addr(Service::Imap), &user, PASSWORD).await?;
            session.run("SELECT INBOX").await?;
            session.idle().await?;
            Ok::<Imap, Failure>(session)
        })
        .buffer_unordered(LOGINS)
        .try_collect()
        .await
}
