//! Which messages are to be read, noted in a file: there may be ten million, and memory is bounded.
//!
//! Owns: `Plan`, `Planned` and its form. Called by: `store::snapshot`. Never: outlives the process.

use std::fs::File;
use std::io::{self, BufReader, Read, Write};
use std::path::Path;

use bytes::{Buf, BufMut};

use crate::ledger::Position;
use crate::net::snapshot::Spool;
use crate::pop_imap::store::{Flags, MailboxId, MessageId, Row, TRACE_LEN_MAX};

/// Octets of a planned message before its trace.
const PLANNED_LEN: usize = 72;

/// A message of a mailbox that is to be read, and where it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Planned {
    pub(super) row: Row,
    pub(super) mailbox: MailboxId,
    pub(super) position: Position,
    /// Octets of the message, without the trace.
    pub(super) size: u32,
}

/// The messages to be read, in the order of their ids.
#[derive(Debug)]
pub(super) struct Plan(Spool);

/// The same, being read.
pub(super) struct PlanReader(BufReader<File>);

impl Plan {
    pub(super) fn new(dir: &Path) -> io::Result<Self> {
        Spool::new(dir).map(Self)
    }

    pub(super) fn push(&mut self, planned: &Planned, trace: &[u8]) -> io::Result<()> {
        let Planned { row, mailbox, position, size } = planned;
        let mut bytes = [0_u8; PLANNED_LEN];
        let mut out = bytes.as_mut_slice();
        out.put_u32_le(row.uid);
        out.put_u32_le(row.size);
        out.put_u64_le(row.flags.to_raw());
        out.put_u64_le(row.modseq);
        out.put_i64_le(row.internal_date);
        out.put_u64_le(row.message.0);
        out.put_u64_le(mailbox.0);
        out.put_u64_le(position.segment);
        out.put_u64_le(position.offset);
        out.put_u32_le(*size);
        out.put_u32_le(u32::try_from(trace.len()).unwrap_or(u32::MAX));
        self.0.write_all(&bytes)?;
        self.0.write_all(trace)
    }

    pub(super) fn finish(&mut self) -> io::Result<()> {
        self.0.flush()
    }

    pub(super) fn read(self) -> io::Result<PlanReader> {
        self.0.read().map(|(file, _)| PlanReader(file))
    }
}

impl PlanReader {
    /// The next one, and what goes before the message in that mailbox.
    pub(super) fn next(&mut self) -> io::Result<Option<(Planned, Vec<u8>)>> {
        let mut bytes = [0; PLANNED_LEN];
        match self.0.read_exact(&mut bytes) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            Err(error) => return Err(error),
        }
        let mut input = bytes.as_slice();
        let row = Row {
            uid: input.get_u32_le(),
            size: input.get_u32_le(),
            flags: Flags::from_raw(input.get_u64_le()),
            modseq: input.get_u64_le(),
            internal_date: input.get_i64_le(),
            message: MessageId(input.get_u64_le()),
        };
        let mailbox = MailboxId(input.get_u64_le());
        let position = Position { segment: input.get_u64_le(), offset: input.get_u64_le() };
        let (size, trace_len) = (input.get_u32_le(), input.get_u32_le());
        // No longer trace was ever taken in.
        let mut trace = vec![0; usize::try_from(trace_len).unwrap_or(0).min(TRACE_LEN_MAX)];
        self.0.read_exact(&mut trace)?;
        Ok(Some((Planned { row, mailbox, position, size }, trace)))
    }
}
