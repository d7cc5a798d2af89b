//! APPEND: a message comes in over IMAP.
//!
//! Owns: nothing but the call. Called by: `imap::run`. Never: answers OK before the store says that the message is durable.
//! Spec: RFC 3501 section 6.3.11, RFC 4315 section 3 (APPENDUID).

use tokio::io::AsyncWrite;

use super::{Done, RunError, Work};
use crate::base::clock;
use crate::pop_imap::imap::command::AppendRequest;

impl<W: AsyncWrite + Unpin + Send> Work<'_, W> {
    pub(super) async fn append(&mut self, request: AppendRequest) -> Result<Done, RunError> {
        if request.message.is_empty() {
            return Ok(Done::No("[CANNOT] Message is empty".to_owned()));
        }
        let date = request.date.unwrap_or_else(|| i64::try_from(clock::unix_secs()).unwrap_or(0));
        let AppendRequest { mailbox, flags, message, .. } = request;
        let appended = self.store.append(self.account(), &mailbox, message, &flags, date).await?;
        Ok(Done::Ok(format!("[APPENDUID {} {}] Append completed", appended.uid_validity, appended.uid)))
    }
}
