//! Tests of the IMAP rooms, from the wire inwards.

mod commands;
mod dialogues;
mod framing;
mod mailboxes;
mod messages;
mod names;
mod searches;
