//! ENVELOPE: sender, recipients, subject as one parenthesized list.
//!
//! Owns: its writing. Called by: `imap::fetch`, `imap::structure` (embedded messages). Never: parses; the store has done that.
//! Spec: RFC 3501 section 7.4.2.

use super::write::nstring;
use crate::message::structure::{Addresses, Envelope};

/// Appends the envelope.
pub(super) fn write(out: &mut Vec<u8>, envelope: &Envelope) {
    let fields = envelope.fields();
    out.push(b'(');
    nstring(out, fields.date);
    out.push(b' ');
    nstring(out, fields.subject);
    for list in [fields.from, fields.sender, fields.reply_to, fields.to, fields.cc, fields.bcc] {
        out.push(b' ');
        write_list(out, list);
    }
    out.push(b' ');
    nstring(out, fields.in_reply_to);
    out.push(b' ');
    nstring(out, fields.message_id);
    out.push(b')');
}

fn write_list(out: &mut Vec<u8>, list: Addresses<'_>) {
    if list.is_empty() {
        nstring(out, None);
        return;
    }
    out.push(b'(');
    for address in list {
        out.push(b'(');
        nstring(out, address.name);
        out.push(b' ');
        nstring(out, address.route);
        out.push(b' ');
        nstring(out, address.mailbox);
        out.push(b' ');
        nstring(out, address.host);
        out.push(b')');
    }
    out.push(b')');
}
