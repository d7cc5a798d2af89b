//! Why an operation was not done, as the client is told.
//!
//! Owns: `Refusal`. Called by: every file of the role that can say no. Never: carries anything that the
//! client may not know (paths, other people's entries): that is logged where it happens.
//! Spec: RFC 4511 section 4.1.9 and appendix A (result codes).

use ldap3_proto::LdapResultCode;

/// A result other than success.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Refusal {
    pub(super) code: LdapResultCode,
    /// The lowest entry that is there, for noSuchObject.
    pub(super) matched: String,
    pub(super) text: String,
}

impl Refusal {
    pub(super) fn new(code: LdapResultCode, text: impl Into<String>) -> Self {
        Self { code, matched: String::new(), text: text.into() }
    }

    pub(super) fn no_such_object(matched: impl Into<String>) -> Self {
        Self { code: LdapResultCode::NoSuchObject, matched: matched.into(), text: String::new() }
    }

    /// The same answer to an unknown user and to a wrong password.
    pub(super) fn invalid_credentials() -> Self {
        Self::new(LdapResultCode::InvalidCredentials, "")
    }

    /// No password is looked at for a while. A code of its own (389 Directory Server answers the same): the roles' client
    /// must not take it for a wrong password.
    pub(super) fn too_many_failures() -> Self {
        Self::new(LdapResultCode::ConstraintViolation, "too many failed logins, try again later")
    }

    pub(super) fn insufficient_access() -> Self {
        Self::new(LdapResultCode::InsufficentAccessRights, "")
    }

    pub(super) fn invalid_dn(error: impl ToString) -> Self {
        Self::new(LdapResultCode::InvalidDNSyntax, error.to_string())
    }

    /// This machine's trouble; what it is stands in the log.
    pub(super) fn unavailable() -> Self {
        Self::new(LdapResultCode::Unavailable, "the directory cannot do this now")
    }

    pub(super) fn busy() -> Self {
        Self::new(LdapResultCode::Busy, "too many requests at a time")
    }
}
