//! Tests of the IMAP rooms, from the wire inwards.

mod commands;
mod framing;
mod names;
mod searches;
