//! Trace headers that a delivery puts before the message, one block per recipient.
//!
//! Owns: Return-Path, Delivered-To, Received. Called by: `lmtp::serve`. Never: reads the clock, looks into the message.
//! Spec: RFC 5321 section 4.4, RFC 6531 section 3.7.3, RFC 3848 (the "with" words).

use std::time::SystemTime;

use chrono::{DateTime, Utc};

use super::session::Transaction;
use crate::base::address::Address;
use crate::base::id::Id;

/// Who received what, when: the same for every recipient of a transaction.
pub(super) struct Trace<'a> {
    pub(super) transaction: &'a Transaction,
    pub(super) message: Id,
    pub(super) hostname: &'a str,
    pub(super) received: SystemTime,
}

impl Trace<'_> {
    /// The header block for one mailbox: `recipient` is what RCPT said, `mailbox` where it led.
    ///
    /// Nothing in it can carry a line end: addresses are parsed, the client's name is checked, the rest is ours.
    pub(super) fn header(&self, recipient: &Address, mailbox: &Address) -> String {
        let sender = self.transaction.sender.as_ref().map(ToString::to_string).unwrap_or_default();
        let with = if self.transaction.utf8 { "UTF8LMTP" } else { "LMTP" };
        let date: DateTime<Utc> = self.received.into();
        format!(
            "Return-Path: <{sender}>\r\nDelivered-To: {mailbox}\r\nReceived: from {client}\r\n\tby {host} with {with} id {id}\r\n\tfor <{recipient}>; {date}\r\n",
            client = self.transaction.client,
            host = self.hostname,
            id = self.message,
            date = date.format("%a, %d %b %Y %H:%M:%S +0000"),
        )
    }
}
