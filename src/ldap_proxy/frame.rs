//! What a request is before it is parsed.
//!
//! Owns: `Kind`, `Head`. Called by: `session`, before anything else reads the octets. Calls: `directory::frame`, which bounds them.
//! Spec: RFC 4511 section 4 (operations), section 4.1.1.1 (messageID).

use crate::directory::frame::{self, FrameError};

/// What kind of request, by the octet that tells (RFC 4511 section 4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Bind,
    Unbind,
    Search,
    Modify,
    Add,
    Delete,
    ModifyDn,
    Compare,
    Abandon,
    Extended,
}

impl Kind {
    fn from_tag(tag: u8) -> Option<Self> {
        Some(match tag {
            0x60 => Self::Bind,
            0x42 => Self::Unbind,
            0x63 => Self::Search,
            0x66 => Self::Modify,
            0x68 => Self::Add,
            0x4a => Self::Delete,
            0x6c => Self::ModifyDn,
            0x6e => Self::Compare,
            0x50 => Self::Abandon,
            0x77 => Self::Extended,
            _ => return None,
        })
    }
}

/// The head of a request.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Head {
    /// Octets of the whole message.
    pub(super) len: usize,
    /// messageID.
    pub(super) id: i32,
    pub(super) kind: Kind,
    /// Types of the controls that are marked critical.
    pub(super) critical: Vec<String>,
}

/// The head of the first request in `octets`; none when it is not whole yet.
pub(super) fn head(octets: &[u8], len_max: usize) -> Result<Option<Head>, FrameError> {
    let Some(frame) = frame::first(octets, len_max)? else {
        return Ok(None);
    };
    // 0 is for what the server says unasked (RFC 4511 section 4.1.1.1).
    if frame.id == 0 {
        return Err(FrameError::NotLdap("messageID"));
    }
    let kind = Kind::from_tag(frame.tag).ok_or(FrameError::NotLdap("no request that a client sends"))?;
    let critical = frame.critical.into_iter().map(str::to_owned).collect();
    Ok(Some(Head { len: frame.len, id: frame.id, kind, critical }))
}
