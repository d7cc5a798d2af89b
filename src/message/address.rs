//! Addresses as an IMAP envelope has them: raw name, route, mailbox, host, group marks.
//!
//! Owns: `EnvelopeAddress`, splitting an address list field. Called by: `structure`.
//! Never: decodes encoded words (the client does), refuses a list: it gives what it can make out.
//! Spec: RFC 5322 section 3.4, section 4.4 (obsolete routes); RFC 9051 section 7.5.2 (address structure, groups).

/// One address; or the start of a group (`mailbox` is its name, `host` absent); or its end (both absent).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EnvelopeAddress {
    /// Display name, or the comment that old messages have instead; not decoded.
    pub name: Option<Vec<u8>>,
    /// At-domain-list, the obsolete source route.
    pub route: Option<Vec<u8>>,
    /// Local part, unquoted.
    pub mailbox: Option<Vec<u8>>,
    pub host: Option<Vec<u8>>,
}
