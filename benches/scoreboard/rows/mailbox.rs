//! Reading a large mailbox, appending, POP3.
//!
//! Owns: these rows. Called by: `main`, `growth`. Every figure is the median of several runs after one that is not counted.

use std::cell::Cell;

use futures_util::future::try_join_all;

use super::{Board, block_on, median, millis, rate};
use crate::client::{Imap, Pop3};
use crate::mail::{self, Mail};
use crate::server::{Server, Service};
use crate::{Failure, PASSWORD, clock};

const RUNS: u32 = 3;
/// Sessions that append at a time, each to its own mailbox.
const APPENDERS: u64 = 20;

/// APPEND of messages of 10 KB.
pub(crate) fn append(board: &mut Board, server: &Server, messages: u64, octets: usize) -> Result<(), Failure> {
    let value = block_on(async {
        let mut sessions = Vec::new();
        for account in 0..APPENDERS {
            sessions.push(login(server, account).await?);
        }
        let next = Cell::new(0);
        let appender = |mut session: Imap| {
            let next = &next;
            async move {
                let mut templates = Mail::templates(8, octets);
                while next.get() < messages {
                    let number = next.get();
                    next.set(number + 1);
                    session.append(mail::pick(&mut templates, number)?).await?;
                }
                Ok::<(), Failure>(())
            }
        };
        let start = clock::monotonic();
        try_join_all(sessions.into_iter().map(appender)).await?;
        Ok(rate(messages, start.elapsed()))
    })?;
    board.put(server.kind, "APPEND, 20 sessions", value);
    Ok(())
}

/// SELECT, FETCH and SEARCH in the mailbox of `account`, which holds `messages`.
pub(crate) fn read(
    board: &mut Board,
    server: &mut Server,
    account: u64,
    messages: u64,
    drop_caches: bool,
) -> Result<(), Failure> {
    let kind = server.kind;
    // One found in the middle: in the subject, and so in its header and in what TEXT looks through.
    let search = format!("SEARCH TEXT {}", mail::stamp_text(messages / 2));
    let commands = [
        ("FETCH 1:* (UID FLAGS)", "FETCH 1:* (UID FLAGS)", messages),
        ("FETCH 1:* (ENVELOPE)", "FETCH 1:* (ENVELOPE)", messages),
        ("SEARCH TEXT", search.as_str(), 1),
    ];
    let (cold, warm) = select(server, account, drop_caches)?;
    board.put(kind, "SELECT, cold", cold);
    board.put(kind, "SELECT, warm", warm);
    block_on(async {
        let mut session = login(server, account).await?;
        session.run("SELECT INBOX").await?;
        for (title, command, responses) in commands {
            let brought = session.run(command).await?;
            if brought.responses < responses {
                return Err(format!("{command}: {} responses", brought.responses).into());
            }
            let mut values = Vec::new();
            for _ in 0..RUNS {
                values.push(timed(&mut session, command).await?);
            }
            board.put(kind, title, median(values));
        }
        Ok(())
    })
}

/// SELECT in milliseconds: the first after a restart, and one in a mailbox that others have open.
pub(crate) fn select(server: &mut Server, account: u64, drop_caches: bool) -> Result<(f64, f64), Failure> {
    // Whatever a first look at new mail makes the server do is not counted.
    block_on(async {
        let mut session = login(server, account).await?;
        timed(&mut session, "SELECT INBOX").await?;
        timed(&mut session, "FETCH 1:* (UID FLAGS)").await
    })?;
    let (mut cold, mut warm) = (Vec::new(), Vec::new());
    for _ in 0..RUNS {
        server.restart(drop_caches)?;
        block_on(async {
            let mut session = login(server, account).await?;
            cold.push(timed(&mut session, "SELECT INBOX").await?);
            let mut session = login(server, account).await?;
            for _ in 0..RUNS {
                warm.push(timed(&mut session, "SELECT INBOX").await?);
            }
            Ok(())
        })?;
    }
    Ok((median(cold), median(warm)))
}

/// RETR of all messages in the mailbox of `account`, pipelined on one connection.
pub(crate) fn pop3(board: &mut Board, server: &Server, account: u64) -> Result<(), Failure> {
    let value = block_on(async {
        let mut session = Pop3::login(server.addr(Service::Pop3), &mail::address(account), PASSWORD).await?;
        let count = session.count().await?;
        session.retrieve(count).await?;
        let mut values = Vec::new();
        for _ in 0..RUNS {
            let start = clock::monotonic();
            session.retrieve(count).await?;
            values.push(rate(count, start.elapsed()));
        }
        session.quit().await?;
        Ok(median(values))
    })?;
    board.put(server.kind, "POP3 RETR, pipelined", value);
    Ok(())
}

async fn login(server: &Server, account: u64) -> Result<Imap, Failure> {
    Imap::login(server.addr(Service::Imap), &mail::address(account), PASSWORD).await
}

async fn timed(session: &mut Imap, command: &str) -> Result<f64, Failure> {
    let start = clock::monotonic();
    session.run(command).await?;
    Ok(millis(start.elapsed()))
}
