//! STORE, EXPUNGE, CLOSE, COPY, MOVE: what changes messages.
//!
//! Owns: the cutting of large sets into changes that the store takes, and what is told of them. Called by: `imap::run`.
//! Never: tells a change before it is durable.
//! Spec: RFC 3501 section 6.4.2 to 6.4.7, RFC 4315 (UIDPLUS), RFC 6851 (MOVE), RFC 7162 section 3.1.3 (UNCHANGEDSINCE).

use std::sync::Arc;

use tokio::io::AsyncWrite;

use super::fetch::row_now;
use super::{Done, RunError, Work, ok};
use crate::pop_imap::imap::command::{CopyRequest, StoreRequest};
use crate::pop_imap::imap::set::Set;
use crate::pop_imap::imap::{selected, write};
use crate::pop_imap::store::{CopyUid, Flags, UIDS_PER_CHANGE_MAX, View};

const GONE: &str = "[EXPUNGEISSUED] Some of the messages are gone";

impl<W: AsyncWrite + Unpin + Send> Work<'_, W> {
    pub(super) async fn store_flags(
        &mut self,
        request: &StoreRequest,
        known: &mut Vec<(u32, Flags)>,
    ) -> Result<Done, RunError> {
        self.session.condstore |= request.unchanged_since.is_some();
        let telling = self.session.telling(false, request.uid);
        let Some(selected) = self.session.selected() else { return Ok(Done::Bad("Select a mailbox first")) };
        if selected.read_only {
            return Ok(Done::No("[CANNOT] Mailbox is read-only".to_owned()));
        }
        selected.catch_up(&mut self.out.buffer, telling, &[]);
        let (open, view) = (Arc::clone(&selected.open), Arc::clone(&selected.view));
        let positions: Vec<usize> = request.set.positions(&view, request.uid).into_iter().flatten().collect();
        let uids: Vec<u32> =
            positions.iter().filter_map(|&index| view.messages.get(index)).map(|row| row.uid).collect();
        let mut modified: Vec<u32> = Vec::new();
        for chunk in uids.chunks(UIDS_PER_CHANGE_MAX) {
            let done =
                self.store.set_flags(&open, chunk, request.change, &request.flags, request.unchanged_since).await?;
            modified.extend(done.modified);
        }
        modified.sort_unstable();
        let now = open.view();
        if let Some(selected) = self.session.selected() {
            selected.tell_keywords(&mut self.out.buffer, &now);
        }
        let by = flag_bits(&now, request);
        let mut gone = false;
        let mut modified_numbers = Vec::with_capacity(modified.len());
        for &index in &positions {
            let (Some(before), Some(row)) = (view.messages.get(index), row_now(&view, &now, index)) else {
                gone = true;
                continue;
            };
            if modified.binary_search(&row.uid).is_ok() {
                modified_numbers.push(if request.uid { row.uid } else { u32::try_from(index + 1).unwrap_or(u32::MAX) });
                continue;
            }
            if !request.silent {
                selected::write_flags_fetch(&mut self.out.buffer, index, &row, &now, telling);
                self.out.relieve().await?;
                known.push((row.uid, row.flags));
            } else if row.flags == before.flags.changed(request.change, by) {
                // RFC 3501 section 6.4.6: what the client expects is not told; what another session did to it is.
                known.push((row.uid, row.flags));
                if telling.modseq {
                    // RFC 7162 section 3.1.3: the new modseq is told even so.
                    write_modseq_fetch(&mut self.out.buffer, index, row.uid, row.modseq);
                    self.out.relieve().await?;
                }
            }
        }
        // RFC 3501 section 6.4.8: UIDs that do not exist are no fault.
        Ok(store_done(&modified_numbers, gone && !request.uid))
    }

    /// Expunges what has `\Deleted` (RFC 3501 section 6.4.3), of these UIDs only (RFC 4315 section 2.1).
    pub(super) async fn expunge(&mut self, uids: Option<&Set>) -> Result<Done, RunError> {
        let Some(selected) = self.session.selected() else { return Ok(Done::Bad("Select a mailbox first")) };
        if selected.read_only {
            return Ok(Done::No("[CANNOT] Mailbox is read-only".to_owned()));
        }
        let open = Arc::clone(&selected.open);
        let now = open.view();
        let ranges = uids.map(|set| set.positions(&now, true));
        let deleted: Vec<u32> = now
            .messages
            .iter()
            .enumerate()
            .filter(|(index, row)| {
                row.flags.contains(Flags::DELETED) && ranges.as_ref().is_none_or(|ranges| Set::contains(ranges, *index))
            })
            .map(|(_, row)| row.uid)
            .collect();
        for chunk in deleted.chunks(UIDS_PER_CHANGE_MAX) {
            self.store.expunge(&open, chunk).await?;
        }
        Ok(ok("Expunge completed"))
    }

    /// CLOSE expunges without a word (RFC 3501 section 6.4.2); UNSELECT does not (RFC 3691).
    pub(super) async fn close(&mut self, expunge: bool) -> Result<Done, RunError> {
        if expunge && self.session.selected().is_some_and(|selected| !selected.read_only) {
            self.expunge(None).await?;
        }
        self.session.select(None);
        Ok(ok(if expunge { "Close completed" } else { "Unselect completed" }))
    }

    pub(super) async fn copy(&mut self, request: &CopyRequest) -> Result<Done, RunError> {
        let account = self.account();
        let Some(selected) = self.session.selected() else { return Ok(Done::Bad("Select a mailbox first")) };
        if request.moving && selected.read_only {
            return Ok(Done::No("[CANNOT] Mailbox is read-only".to_owned()));
        }
        let (open, view) = (Arc::clone(&selected.open), Arc::clone(&selected.view));
        let positions = request.set.positions(&view, request.uid).into_iter().flatten();
        let uids: Vec<u32> = positions.filter_map(|index| view.messages.get(index)).map(|row| row.uid).collect();
        let mut all = CopyUid::default();
        for chunk in uids.chunks(UIDS_PER_CHANGE_MAX) {
            let part = if request.moving {
                self.store.move_(&open, chunk, account, &request.mailbox).await?
            } else {
                self.store.copy(&open, chunk, account, &request.mailbox).await?
            };
            all.uid_validity = part.uid_validity;
            all.source.extend(part.source);
            all.target.extend(part.target);
        }
        let what = if request.moving { "Move completed" } else { "Copy completed" };
        if all.source.is_empty() {
            // Nothing to copy is no fault; messages that the client was not told to be gone are (RFC 2180 section 4.4.1).
            return Ok(if uids.is_empty() || request.uid { ok(what) } else { Done::No(GONE.to_owned()) });
        }
        let mut code = format!("[COPYUID {} ", all.uid_validity).into_bytes();
        write::set(&mut code, all.source);
        code.push(b' ');
        write::set(&mut code, all.target);
        code.push(b']');
        if !request.moving {
            code.push(b' ');
            code.extend_from_slice(what.as_bytes());
            return Ok(Done::Ok(String::from_utf8_lossy(&code).into_owned()));
        }
        // RFC 6851 section 4.3: before the EXPUNGEs, in an answer of its own.
        self.out.buffer.extend_from_slice(b"* OK ");
        self.out.buffer.extend_from_slice(&code);
        self.out.buffer.extend_from_slice(b" Moved\r\n");
        Ok(ok(what))
    }
}

fn store_done(modified: &[u32], gone: bool) -> Done {
    if !modified.is_empty() {
        let mut code = b"[MODIFIED ".to_vec();
        write::set(&mut code, modified.iter().copied());
        code.extend_from_slice(b"] Conditional store failed for some");
        return Done::Ok(String::from_utf8_lossy(&code).into_owned());
    }
    if gone { Done::No(GONE.to_owned()) } else { ok("Store completed") }
}

/// The flags of the request as bits of the mailbox.
fn flag_bits(view: &View, request: &StoreRequest) -> Flags {
    request.flags.iter().fold(Flags::NONE, |bits, flag| {
        let keyword = || view.keywords.iter().position(|keyword| keyword.eq_ignore_ascii_case(flag.name()));
        bits.with(flag.system_bit().or_else(|| keyword().map(Flags::keyword)).unwrap_or(Flags::NONE))
    })
}

fn write_modseq_fetch(out: &mut Vec<u8>, index: usize, uid: u32, modseq: u64) {
    write::text(out, format_args!("* {} FETCH (UID {uid} MODSEQ ({modseq}))\r\n", index + 1));
}
