//! Who may send, who is there to receive: the questions to the directory.
//!
//! Owns: what the directory's answers mean for a session. Called by: `smtp::serve`, `smtp::bounce`.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tracing::{debug, warn};

use super::command::ForwardPath;
use super::context::Context;
use super::envelope::{Personality, Way};
use super::metrics::{RECIPIENTS_REFUSED, SIGN_INS_FAILED};
use super::reply::{self, Reply};
use super::sasl::Credentials;
use super::session::Found;
use crate::base::address::Address;
use crate::directory::{Account, AuthError, DirectoryError, Expansion, Recipient};

const POSTMASTER: &str = "postmaster";
/// Local part of the administrator that every site begins with.
const ADMINISTRATOR: &str = "admin";
/// How long the answer to a wrong password is held back.
const WRONG_PASSWORD_DELAY: Duration = Duration::from_secs(2);

/// Whether a message may be begun: by whom, and is there room?
///
/// # Errors
/// The reply for the client.
pub(super) async fn sender(
    context: &Context,
    account: Option<&Account>,
    sender: Option<&Address>,
) -> Result<(), Reply> {
    if context.space.is_short() {
        return Err(reply::NO_ROOM);
    }
    // The null reverse-path is what a user's program puts into a read receipt (RFC 8098 section 2.1); and whoever did not sign in sends from elsewhere.
    let (Some(account), Some(sender)) = (account, sender) else { return Ok(()) };
    match context.directory.resolve(sender).await {
        Ok(Recipient::Account(owner)) if owner.id == account.id => Ok(()),
        Ok(Recipient::Account(_) | Recipient::Alias(_) | Recipient::NoSuchUser | Recipient::NotLocal) => {
            Err(reply::NOT_OWN_ADDRESS)
        }
        Err(error) => Err(away(&error)),
    }
}

/// The address as it is to be named, and where its mail goes.
///
/// # Errors
/// The reply for the client.
pub(super) async fn recipient(context: &Context, personality: Personality, path: ForwardPath) -> Result<Found, Reply> {
    let given = match path {
        ForwardPath::Mailbox(address) => address,
        ForwardPath::Postmaster => context.site_address(POSTMASTER).ok_or(reply::NO_SUCH_USER)?,
    };
    let mut expansion = context.directory.expand(&given).await.map_err(|error| away(&error))?;
    // RFC 5321 section 4.5.1: mail for postmaster is always taken; where nobody was made postmaster, it is the administrator's.
    if expansion.missing.contains(&given)
        && given.local().eq_ignore_ascii_case(POSTMASTER)
        && let Some(administrator) = context.site_address(ADMINISTRATOR)
    {
        expansion = context.directory.expand(&administrator).await.map_err(|error| away(&error))?;
    }
    match targets(&given, expansion, personality) {
        Ok(targets) => Ok(Found { given, targets }),
        Err(reply) => {
            RECIPIENTS_REFUSED.inc();
            debug!(recipient = %given, %reply, "recipient refused");
            Err(reply)
        }
    }
}

/// What an expansion means. Users send wherever they want; other servers only to us, and from there on to where our own aliases lead.
pub(super) fn targets(
    given: &Address,
    expansion: Expansion,
    personality: Personality,
) -> Result<Vec<(Address, Way)>, Reply> {
    if personality == Personality::Mx && expansion.remote.contains(given) {
        return Err(reply::RELAY_DENIED);
    }
    if expansion.accounts.is_empty() && expansion.remote.is_empty() {
        return Err(reply::NO_SUCH_USER);
    }
    let takes_mail = expansion.accounts.iter().filter(|account| account.status.takes_mail());
    let mailboxes = takes_mail.map(|account| (account.address.clone(), Way::Mailbox));
    let targets: Vec<_> = mailboxes.chain(expansion.remote.into_iter().map(|there| (there, Way::Elsewhere))).collect();
    if targets.is_empty() { Err(reply::MAILBOX_DISABLED) } else { Ok(targets) }
}

/// Whose credentials these are. A wrong password is answered late: guessing shall take its time.
///
/// # Errors
/// The reply for the client.
pub(super) async fn sign_in(
    context: &Context,
    credentials: &Credentials,
    client: Option<IpAddr>,
) -> Result<Arc<Account>, Reply> {
    match context.directory.authenticate(&credentials.login, &credentials.password, client).await {
        Ok(account) => Ok(account),
        Err(error @ (AuthError::Refused | AuthError::Suspended)) => {
            SIGN_INS_FAILED.inc();
            warn!(login = credentials.login, %error, "sign-in refused");
            tokio::time::sleep(WRONG_PASSWORD_DELAY).await;
            Err(reply::AUTH_REFUSED)
        }
        Err(error @ AuthError::TooManyFailures) => {
            SIGN_INS_FAILED.inc();
            warn!(login = credentials.login, %error, "sign-in refused");
            tokio::time::sleep(WRONG_PASSWORD_DELAY).await;
            Err(reply::AUTH_LATER)
        }
        Err(AuthError::Unavailable(error)) => {
            warn!(%error, "directory gives no answer");
            Err(reply::AUTH_AWAY)
        }
    }
}

fn away(error: &DirectoryError) -> Reply {
    warn!(%error, "directory gives no answer");
    reply::DIRECTORY_AWAY
}
