//! Cuts a tar stream into frames: where a member can be read without those before it.
//!
//! Owns: `Cutter`, `Raw`. Called by: `feed`. Never: compresses; the octets of all frames in order are the stream.
//!
//! A frame begins at a member; when it has `FRAME_LEN` octets it ends before the next one, so that small members are never cut. A member
//! that has more than that to come is cut.

use super::frame::{FRAME_LEN, FRAME_LEN_MAX};
use super::walk::{Member, Step, TarError, Walk};

/// A frame that is not compressed yet.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Raw {
    /// From 0, in the order of the stream.
    pub number: u64,
    /// Offset in the stream of its first octet.
    pub at: u64,
    pub content: Vec<u8>,
    /// Where in the content the first member begins, if one does.
    pub first: Option<u32>,
    /// Members that end in it.
    pub members: Vec<Member>,
}

/// See the room.
#[derive(Debug)]
pub struct Cutter {
    walk: Walk,
    raw: Raw,
}

impl Default for Cutter {
    /// At the beginning of a stream.
    fn default() -> Self {
        Self { walk: Walk::new(0), raw: Raw::default() }
    }
}

impl Cutter {
    /// Octets of the stream so far.
    pub fn at(&self) -> u64 {
        self.walk.at()
    }

    /// Takes octets from the start of `input`: how many, and the frame that is full by then.
    pub fn push(&mut self, input: &[u8]) -> Result<(usize, Option<Raw>), TarError> {
        let mut taken = 0;
        loop {
            if self.is_full() {
                return Ok((taken, Some(self.cut())));
            }
            let rest = input.get(taken..).unwrap_or_default();
            if rest.is_empty() {
                return Ok((taken, None));
            }
            if self.walk.is_between() && self.raw.first.is_none() {
                self.raw.first = u32::try_from(self.raw.content.len()).ok();
            }
            let bound = if self.raw.content.len() < FRAME_LEN { FRAME_LEN } else { FRAME_LEN_MAX };
            let (offered, _) = rest.split_at(rest.len().min(bound - self.raw.content.len()));
            let (count, step) = self.walk.advance(offered)?;
            self.raw.content.extend_from_slice(offered.get(..count).unwrap_or_default());
            taken += count;
            if let Step::Ended(member) = step {
                self.raw.members.push(*member);
            }
        }
    }

    /// The last frame, when the stream is over and was whole.
    pub fn finish(mut self) -> Result<Option<Raw>, TarError> {
        self.walk.finish()?;
        Ok((!self.raw.content.is_empty()).then(|| self.cut()))
    }

    fn is_full(&self) -> bool {
        let len = self.raw.content.len();
        let rest_is_long = self.walk.content_left() > (FRAME_LEN_MAX - FRAME_LEN - super::walk::BLOCK) as u64;
        len >= FRAME_LEN_MAX || len >= FRAME_LEN && (self.walk.is_between() || rest_is_long)
    }

    fn cut(&mut self) -> Raw {
        let next = Raw { number: self.raw.number + 1, at: self.walk.at(), ..Raw::default() };
        std::mem::replace(&mut self.raw, next)
    }
}
