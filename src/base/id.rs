//! Ids that can be followed through the logs of every role.
//!
//! Owns: `Id`, the id of a session or a message. Called by: everyone that logs.
//! Never: promises secrecy; an id is not a credential.

use std::fmt;
use std::str::FromStr;

use crate::base::clock;

/// Crockford's base 32, lower case: no i, l, o, u to be misread over a telephone.
const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
/// Characters of a printed id: 64 bits in groups of five.
const TEXT_LEN: usize = 13;

/// 64 bits: 42 of milliseconds since 1970, 22 random. Sorts by time of birth.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Id(u64);

impl Id {
    /// A new id, stamped with the present.
    #[must_use]
    pub fn new() -> Self {
        let random = rand::random::<u64>() >> 42;
        Self((clock::unix_millis() << 22) | random)
    }

    /// The id as a number, for storage.
    #[must_use]
    pub fn to_u64(self) -> u64 {
        self.0
    }

    /// The id back from storage.
    #[must_use]
    pub fn from_u64(raw: u64) -> Self {
        Self(raw)
    }
}

impl Default for Id {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for group in (0..TEXT_LEN).rev() {
            let index = usize::try_from((self.0 >> (group * 5)) & 31).unwrap_or(0);
            let byte = ALPHABET.get(index).copied().unwrap_or(b'0');
            write!(f, "{}", char::from(byte))?;
        }
        Ok(())
    }
}

impl fmt::Debug for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The text is not 13 characters of the id alphabet.
#[derive(Debug, thiserror::Error)]
#[error("not an id: 13 characters of 0-9 and a-z without i, l, o, u expected")]
pub struct IdError;

impl FromStr for Id {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        if text.len() != TEXT_LEN {
            return Err(IdError);
        }
        let mut raw: u64 = 0;
        for byte in text.bytes() {
            let digit = ALPHABET.iter().position(|&c| c == byte.to_ascii_lowercase()).ok_or(IdError)?;
            raw = (raw << 5) | u64::try_from(digit).map_err(|_| IdError)?;
        }
        Ok(Self(raw))
    }
}
