//! Trace: the header lines that this server puts before a message.
//!
//! Owns: the wording of `Received`, and of the fields that submission adds. Called by: `smtp::session`.
//! Never: lets a client's words end a line or a comment early.
//! Spec: RFC 5321 section 4.4 (trace), RFC 3848 and RFC 6531 section 4.3 (protocol names), RFC 6409 sections 8.2 and 8.3.

use std::fmt::Write as _;
use std::net::IpAddr;

use chrono::DateTime;

use crate::base::address::Address;
use crate::base::id::Id;

/// What `Received` tells.
#[derive(Debug)]
pub struct Received<'a> {
    /// The name that the client gave in EHLO or HELO.
    pub client_name: &'a str,
    /// None: a unix socket.
    pub client_address: Option<IpAddr>,
    pub server_name: &'a str,
    pub extended: bool,
    /// Version and cipher suite.
    pub tls: Option<&'a str>,
    pub signed_in: bool,
    pub smtputf8: bool,
    pub session: Id,
    pub message: Id,
    /// Named only when it is the only one: the others are nobody's business (RFC 5321 section 7.6).
    pub recipient: Option<&'a Address>,
    pub unix_secs: u64,
}

impl Received<'_> {
    /// The field, folded, `<CR><LF>` at its end.
    #[must_use]
    pub fn field(&self) -> String {
        let mut field = String::with_capacity(400);
        let name = self.sanitized_name();
        let address = match self.client_address {
            // RFC 5321 section 4.1.3: IPv6 literals carry a tag.
            Some(IpAddr::V6(address)) => format!("[IPv6:{address}]"),
            Some(IpAddr::V4(address)) => format!("[{address}]"),
            None => "local".to_owned(),
        };
        let tls = self.tls.map(|tls| format!(" ({tls})")).unwrap_or_default();
        let protocol = self.protocol();
        // Writing to a String cannot fail.
        _ = write!(
            field,
            "Received: from {name} ({address})\r\n\tby {} with {protocol}{tls}\r\n\t(session {}) id {}",
            self.server_name, self.session, self.message
        );
        if let Some(recipient) = self.recipient.filter(|address| self.smtputf8 || address.is_ascii()) {
            _ = write!(field, "\r\n\tfor <{recipient}>");
        }
        _ = write!(field, ";\r\n\t{}\r\n", date(self.unix_secs));
        field
    }

    /// RFC 3848 and RFC 6531 section 4.3.
    fn protocol(&self) -> String {
        if !self.extended {
            return "SMTP".to_owned();
        }
        let base = if self.smtputf8 { "UTF8SMTP" } else { "ESMTP" };
        let tls = if self.tls.is_some() { "S" } else { "" };
        let auth = if self.signed_in { "A" } else { "" };
        format!("{base}{tls}{auth}")
    }

    /// The name that the client gave, without what cannot be in a domain or an address literal.
    fn sanitized_name(&self) -> String {
        let good = |c: char| {
            c.is_ascii_alphanumeric() || ".-_:[]".contains(c) || (self.smtputf8 && !c.is_ascii() && c.is_alphanumeric())
        };
        self.client_name.chars().map(|c| if good(c) { c } else { '?' }).collect()
    }
}

/// `Date` for a message that has none (RFC 6409 section 8.2).
#[must_use]
pub fn date_field(unix_secs: u64) -> String {
    format!("Date: {}\r\n", date(unix_secs))
}

/// `Message-ID` for a message that has none (RFC 6409 section 8.3).
#[must_use]
pub fn message_id_field(message: Id, server_name: &str) -> String {
    format!("Message-ID: <{message}@{server_name}>\r\n")
}

/// RFC 5322 section 3.3, in UTC.
#[must_use]
pub fn date(unix_secs: u64) -> String {
    let time = i64::try_from(unix_secs).ok().and_then(|secs| DateTime::from_timestamp(secs, 0)).unwrap_or_default();
    time.format("%a, %d %b %Y %H:%M:%S +0000").to_string()
}
