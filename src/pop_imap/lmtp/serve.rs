//! LMTP sessions on their connections: directory and store answer what the session asks.
//!
//! Owns: reading, writing, timeouts, delivery, log lines. Called by: `pop_imap::serve`.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{Semaphore, SemaphorePermit};
use tracing::{debug, error, info, warn};

use super::repeat;
use super::session::{Limits, Outcome, Resolved, Session, Step, Target, Transaction};
use super::trace::Trace;
use crate::base::address::Address;
use crate::base::clock;
use crate::base::id::Id;
use crate::directory::{Account, DirectoryError, Recipient};
use crate::net::{Peer, Stream};
use crate::pop_imap::context::Context;
use crate::pop_imap::metrics::{
    DELIVERED_BYTES, DELIVERED_COPIES, DELIVERED_MESSAGES, DELIVERIES_REPEATED, DELIVERY_FAILURES, SESSIONS,
};
use crate::pop_imap::store::name::INBOX;
use crate::pop_imap::store::{AccountId, DELIVERIES_MAX, Delivery, DeliveryKey, StoreError};
use crate::pop_imap::wire::{OUT_LEN_MAX, Read, Wire};

/// How long a client may take to read a reply, at most; less when less silence is granted.
const WRITE_MAX: Duration = Duration::from_secs(60);
/// Octets to read at a time.
const READ_LEN: usize = 64 * 1024;
/// Octets of a message that is hashed where it is received.
const HASH_INLINE_LEN_MAX: usize = 1 << 20;
/// KiB of message text that all sessions together hold in memory; beyond, messages are refused for the time being.
const TEXT_KIB_MAX: u32 = 512 * 1024;

static TEXT_KIB: Semaphore = Semaphore::const_new(TEXT_KIB_MAX as usize);

/// One connection, to its end.
pub(in crate::pop_imap) async fn session(context: Arc<Context>, stream: Stream, peer: Peer) {
    SESSIONS.with_label_values(&["lmtp"]).inc();
    debug!("session begins");
    let mut connection = Connection::new(&context, stream, peer);
    let end = connection.run().await;
    debug!(end, messages = connection.messages, "session ends");
    connection.wire.close().await;
}

struct Connection<'a> {
    context: &'a Context,
    peer: Peer,
    wire: Wire,
    session: Session,
    out: Vec<u8>,
    messages: u64,
    /// For the text that the session holds.
    room: Option<SemaphorePermit<'static>>,
}

impl<'a> Connection<'a> {
    fn new(context: &'a Context, stream: Stream, peer: Peer) -> Self {
        let mut out = Vec::new();
        let message_size_max = usize::try_from(context.settings.message_size_max.get()).unwrap_or(usize::MAX);
        let session = Session::new(Limits { hostname: context.hostname.clone(), message_size_max }, &mut out);
        Self {
            context,
            peer,
            wire: Wire::new(stream, READ_LEN, context.shutdown.clone()),
            session,
            out,
            messages: 0,
            room: None,
        }
    }

    /// Gives why it ended.
    async fn run(&mut self) -> &'static str {
        let mut shutdown = self.context.shutdown.clone();
        loop {
            if !self.input_used().await {
                return if self.send().await.is_ok() { "closed by us" } else { "broken" };
            }
            if self.send().await.is_err() {
                return "client does not read";
            }
            self.make_room();
            // A transaction under way is finished first.
            let watch = (!self.session.is_in_transaction()).then_some(&mut shutdown);
            let amid = self.session.is_in_transaction() || !self.wire.input().is_empty();
            let deadline =
                self.wire.pace.deadline(amid, clock::monotonic(), self.context.settings.lmtp_idle_timeout.get());
            match self.wire.read(deadline, watch).await {
                Read::More => {}
                Read::Closed => return "closed by the client",
                Read::TimedOut => return "idle",
                Read::Stopping => {
                    self.session.stop(&mut self.out);
                    self.send().await.ok();
                    return "stopping";
                }
            }
        }
    }

    /// Sends the replies made so far.
    async fn send(&mut self) -> io::Result<()> {
        let patience = WRITE_MAX.min(self.context.settings.lmtp_idle_timeout.get());
        self.wire.write(&mut self.out, patience).await
    }

    /// Lets the session work until it wants more input; false when it has ended.
    async fn input_used(&mut self) -> bool {
        loop {
            let (used, step) = self.session.step(self.wire.input(), &mut self.out);
            self.wire.used(used);
            match step {
                Step::More => return true,
                Step::Close => return false,
                Step::Resolve(address) => {
                    let resolved = self.resolve(&address).await;
                    self.session.resolved(resolved, &mut self.out);
                }
                Step::Deliver(transaction) => {
                    let message = Id::new();
                    let outcomes = self.deliver(message, *transaction).await;
                    self.session.delivered(&outcomes, &message.to_string(), &mut self.out);
                    self.room = None;
                    self.wire.pace.done();
                }
            }
            if self.out.len() >= OUT_LEN_MAX && self.send().await.is_err() {
                return false;
            }
        }
    }

    /// Takes room for the text that the session holds; when there is none, the message will be refused (452).
    fn make_room(&mut self) {
        let held = self.session.held();
        if held == 0 {
            self.room = None;
            return;
        }
        let wanted = u32::try_from(held / 1024).unwrap_or(u32::MAX);
        let have = self.room.as_ref().map_or(0, |room| u32::try_from(room.num_permits()).unwrap_or(u32::MAX));
        if wanted <= have {
            return;
        }
        match (TEXT_KIB.try_acquire_many(wanted - have), &mut self.room) {
            (Ok(more), Some(room)) => room.merge(more),
            (Ok(more), room) => *room = Some(more),
            (Err(_), _) => {
                warn!("too much mail at once: a message is refused for now");
                self.session.give_up();
                self.room = None;
            }
        }
    }

    async fn resolve(&self, address: &Address) -> Resolved {
        match self.targets(address).await {
            Ok(resolved) => resolved,
            Err(error) => {
                warn!(recipient = %address, %error, "recipient not looked up");
                Resolved::Unavailable
            }
        }
    }

    async fn targets(&self, address: &Address) -> Result<Resolved, DirectoryError> {
        Ok(match self.context.directory.resolve(address).await? {
            Recipient::Account(account) if account.status.takes_mail() => Resolved::Targets(vec![target(&account)]),
            Recipient::Account(_) => Resolved::Suspended,
            Recipient::NoSuchUser => Resolved::NoSuchUser,
            Recipient::NotLocal => Resolved::NotLocal,
            // Aliases are followed by the smtp role, which can also send mail elsewhere; another server before us may
            // leave them to us as long as they stay here.
            Recipient::Alias(_) => {
                let expansion = self.context.directory.expand(address).await?;
                let taking = expansion.accounts.iter().filter(|account| account.status.takes_mail());
                let targets: Vec<Target> = taking.map(|account| target(account)).collect();
                if !expansion.remote.is_empty() {
                    Resolved::Elsewhere
                } else if targets.is_empty() {
                    Resolved::NoSuchUser
                } else {
                    Resolved::Targets(targets)
                }
            }
        })
    }

    /// Puts the message into the mailboxes: one outcome a recipient.
    async fn deliver(&mut self, message: Id, mut transaction: Transaction) -> Vec<Outcome> {
        let text = Bytes::from(std::mem::take(&mut transaction.text));
        let received = clock::wall();
        let identity = identity(&text).await;
        let trace = Trace { transaction: &transaction, message, hostname: &self.context.hostname, received };
        // A mailbox that several recipients lead to gets the message once.
        let mut deliveries: HashMap<AccountId, Delivery> = HashMap::new();
        for recipient in &transaction.recipients {
            for target in &recipient.targets {
                deliveries.entry(target.account).or_insert_with(|| Delivery {
                    account: target.account,
                    mailbox: INBOX.to_owned(),
                    trace: trace.header(&recipient.address, &target.address).into(),
                    flags: Vec::new(),
                    key: identity.map(|identity| DeliveryKey::new(&identity, &target.account)),
                });
            }
        }
        let deliveries: Vec<Delivery> = deliveries.into_values().collect();
        let mut outcomes: HashMap<AccountId, Outcome> = HashMap::new();
        let mut copies = 0;
        for part in deliveries.chunks(DELIVERIES_MAX) {
            let stored = self.context.store.deliver(text.clone(), part.to_vec(), received).await;
            copies += stored.as_ref().map_or(0, |delivered| delivered.iter().flatten().count());
            let outcome = outcome(stored.err(), message);
            outcomes.extend(part.iter().map(|delivery| (delivery.account, outcome)));
        }
        let outcomes: Vec<Outcome> = transaction
            .recipients
            .iter()
            .map(|recipient| together(recipient.targets.iter().filter_map(|target| outcomes.get(&target.account))))
            .collect();
        self.count(message, &transaction, &text, copies, &outcomes);
        outcomes
    }

    fn count(&mut self, message: Id, transaction: &Transaction, text: &Bytes, copies: usize, outcomes: &[Outcome]) {
        let bytes = text.len();
        let first = transaction.recipients.first().map(|recipient| &recipient.address);
        let recipient = first.map(ToString::to_string).unwrap_or_default();
        let recipients = outcomes.len();
        if outcomes.iter().all(|outcome| *outcome == Outcome::Delivered) {
            let sender = transaction.sender.as_ref().map(ToString::to_string).unwrap_or_default();
            self.messages += 1;
            if copies == 0 {
                DELIVERIES_REPEATED.inc();
                info!(%message, bytes, sender, recipient, recipients, "delivered before");
                return;
            }
            DELIVERED_MESSAGES.inc();
            DELIVERED_COPIES.inc_by(u64::try_from(copies).unwrap_or(u64::MAX));
            DELIVERED_BYTES.inc_by(u64::try_from(bytes).unwrap_or(u64::MAX));
            info!(%message, bytes, sender, recipient, recipients, "delivered");
        } else {
            DELIVERY_FAILURES.inc();
            warn!(%message, bytes, recipient, recipients, peer = %self.peer, "not delivered to everyone");
        }
    }
}

/// By what the message is known when it comes again. Hashing a large one takes its time, on a thread of its own.
async fn identity(text: &Bytes) -> Option<blake3::Hash> {
    if text.len() <= HASH_INLINE_LEN_MAX {
        return repeat::identity(text);
    }
    let text = text.clone();
    // Without an identity it is delivered all the same.
    tokio::task::spawn_blocking(move || repeat::identity(&text)).await.ok().flatten()
}

fn target(account: &Account) -> Target {
    Target { account: account.id, address: account.address.clone() }
}

/// What a recipient is told when it leads to several mailboxes: good only when all are.
fn together<'a>(outcomes: impl Iterator<Item = &'a Outcome>) -> Outcome {
    let mut all = None;
    for outcome in outcomes {
        if *outcome != Outcome::Delivered {
            return *outcome;
        }
        all = Some(*outcome);
    }
    all.unwrap_or(Outcome::FAILED)
}

fn outcome(error: Option<StoreError>, message: Id) -> Outcome {
    let Some(error) = error else { return Outcome::Delivered };
    let (code, status, text) = error.lmtp_reply();
    if matches!(error, StoreError::Full | StoreError::Limit(_)) {
        warn!(%message, %error, "not delivered");
    } else {
        error!(%message, %error, "not delivered");
    }
    Outcome::Refused(code, status, text)
}
