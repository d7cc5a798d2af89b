//! What a role learns about an address.
//!
//! Owns: `Account`, `Forwarding`, `Recipient`, `Expansion`. Called by: everyone who asks the directory.

use std::sync::Arc;

use crate::base::address::Address;

/// Somebody who has a mailbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// entryUUID: stays the same when the account is renamed. Of a server that has none (before RFC 4530): derived from the address.
    pub id: [u8; 16],
    /// The primary address (`mail`).
    pub address: Address,
    /// The name for people (`cn`); empty when the directory has none.
    pub name: String,
    /// Bytes that the mailboxes may hold together (`mailQuotaSize`); none: no limit.
    pub quota_bytes: Option<u64>,
    /// What the account may do now; the strictest of its own status and its domain's.
    pub status: AccountStatus,
    /// Whether it may change the directory and the site.
    pub admin: bool,
}

/// Where mail for an account goes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Forwarding {
    /// Who gets it too, or instead (`mailForwardingAddress`).
    pub to: Vec<Address>,
    /// Whether the account's own mailbox gets it (`deliveryMode` is not `forwardonly`).
    pub keep: bool,
}

/// qmail-ldap's `accountStatus`, in order of strictness.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum AccountStatus {
    /// Mail comes in, logins work.
    Active,
    /// Mail comes in, logins are refused ("noaccess").
    NoAccess,
    /// Mail is refused, logins are refused ("disabled", "deleted").
    Disabled,
}

impl AccountStatus {
    /// Whether mail for the account is taken.
    #[must_use]
    pub fn takes_mail(self) -> bool {
        self != Self::Disabled
    }

    /// Whether the account may log in.
    #[must_use]
    pub fn may_log_in(self) -> bool {
        self == Self::Active
    }

    /// The attribute's value.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::NoAccess => "noaccess",
            Self::Disabled => "disabled",
        }
    }

    /// From the attribute's value. No value is "active" (qmail-ldap); one that we do not know is the strictest, for whoever set it wanted something away.
    pub(super) fn from_value(value: Option<&str>) -> Self {
        match value.map(str::to_ascii_lowercase).as_deref() {
            None | Some("" | "active") => Self::Active,
            Some("noaccess" | "nopop") => Self::NoAccess,
            Some(_) => Self::Disabled,
        }
    }
}

/// What an address is, one level deep.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Recipient {
    /// A mailbox.
    Account(Arc<Account>),
    /// Other addresses that get the mail instead, at least one.
    Alias(Vec<Address>),
    /// The domain is ours, the address is nobody's: permanent refusal (5.1.1).
    NoSuchUser,
    /// The domain is not ours.
    NotLocal,
}

/// What an address is, aliases and forwarding followed to the end. Each account and address once.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Expansion {
    /// Mailboxes that get the mail.
    pub accounts: Vec<Arc<Account>>,
    /// Addresses in domains that are not ours.
    pub remote: Vec<Address>,
    /// Addresses in our domains that are nobody's: the address asked for itself, or a stale alias target.
    pub missing: Vec<Address>,
}
