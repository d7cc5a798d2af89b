//! The pop-imap role: mailboxes.
