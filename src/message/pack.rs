//! Compact coding of small facts: variable-length numbers, length-prefixed bytes.
//!
//! Owns: `Packer`, `Unpacker`. Called by: the structure of a message, the records
//! of the mailbox store. Never: trusts a length that it reads.

/// What was read is not what a `Packer` wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("malformed packed bytes")]
pub struct Malformed;

/// Writes numbers and bytes one after the other.
#[derive(Debug, Default)]
pub struct Packer(Vec<u8>);

impl Packer {
    /// An empty one with room for so many bytes.
    #[must_use]
    pub fn with_capacity(bytes: usize) -> Self {
        Self(Vec::with_capacity(bytes))
    }

    /// What was written.
    #[must_use]
    pub fn finish(self) -> Vec<u8> {
        self.0
    }

    /// One byte.
    pub fn byte(&mut self, byte: u8) {
        self.0.push(byte);
    }

    /// A number: seven bits a byte, lowest first, the top bit says that more follow.
    pub fn number(&mut self, number: u64) {
        let mut rest = number;
        while rest >= 0x80 {
            self.0.push(low_byte(rest) | 0x80);
            rest >>= 7;
        }
        self.0.push(low_byte(rest));
    }

    /// A number that may be negative (zigzag).
    pub fn signed(&mut self, number: i64) {
        self.number((number.wrapping_shl(1) ^ (number >> 63)).cast_unsigned());
    }

    /// A number of things or bytes.
    pub fn count(&mut self, count: usize) {
        self.number(u64::try_from(count).unwrap_or(u64::MAX));
    }

    /// Bytes with their length before them.
    pub fn bytes(&mut self, bytes: &[u8]) {
        self.count(bytes.len());
        self.0.extend_from_slice(bytes);
    }

    /// Bytes as they are: the reader must know how many.
    pub fn raw(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    /// Bytes that may be absent.
    pub fn optional(&mut self, bytes: Option<&[u8]>) {
        match bytes {
            None => self.byte(0),
            Some(bytes) => {
                self.count(bytes.len().saturating_add(1));
                self.0.extend_from_slice(bytes);
            }
        }
    }
}

/// The lowest seven bits.
fn low_byte(number: u64) -> u8 {
    u8::try_from(number & 0x7f).unwrap_or(0)
}

/// Reads what a `Packer` wrote.
#[derive(Debug, Clone, Copy)]
pub struct Unpacker<'a>(&'a [u8]);

impl<'a> Unpacker<'a> {
    /// Reads from the start of `bytes`.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// Whether all has been read.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What has not been read yet.
    #[must_use]
    pub fn rest(&self) -> &'a [u8] {
        self.0
    }

    /// # Errors
    /// When nothing is left.
    pub fn byte(&mut self) -> Result<u8, Malformed> {
        let (first, rest) = self.0.split_first().ok_or(Malformed)?;
        self.0 = rest;
        Ok(*first)
    }

    /// # Errors
    /// When the number is cut off or longer than 64 bits.
    pub fn number(&mut self) -> Result<u64, Malformed> {
        let mut number: u64 = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                return Err(Malformed);
            }
            number |= bits << shift;
            if byte < 0x80 {
                return Ok(number);
            }
        }
        Err(Malformed)
    }

    /// # Errors
    /// When the number is cut off or longer than 64 bits.
    pub fn signed(&mut self) -> Result<i64, Malformed> {
        let raw = self.number()?;
        Ok((raw >> 1).cast_signed() ^ -(raw & 1).cast_signed())
    }

    /// A number that must fit 32 bits.
    ///
    /// # Errors
    /// When it does not, or is cut off.
    pub fn number32(&mut self) -> Result<u32, Malformed> {
        u32::try_from(self.number()?).map_err(|_| Malformed)
    }

    /// A count of things of which each takes at least one byte: never more than bytes are left,
    /// so that a hostile count cannot make the reader reserve memory.
    ///
    /// # Errors
    /// When it is more, or cut off.
    pub fn count(&mut self) -> Result<usize, Malformed> {
        let count = usize::try_from(self.number()?).map_err(|_| Malformed)?;
        if count > self.0.len() { Err(Malformed) } else { Ok(count) }
    }

    /// # Errors
    /// When fewer bytes are left than the length says.
    pub fn bytes(&mut self) -> Result<&'a [u8], Malformed> {
        let length = self.count()?;
        self.raw(length)
    }

    /// So many bytes as they are.
    ///
    /// # Errors
    /// When fewer are left.
    pub fn raw(&mut self, length: usize) -> Result<&'a [u8], Malformed> {
        let (bytes, rest) = self.0.split_at_checked(length).ok_or(Malformed)?;
        self.0 = rest;
        Ok(bytes)
    }

    /// # Errors
    /// When fewer bytes are left than the length says.
    pub fn optional(&mut self) -> Result<Option<&'a [u8]>, Malformed> {
        let length = usize::try_from(self.number()?).map_err(|_| Malformed)?;
        match length.checked_sub(1) {
            None => Ok(None),
            Some(length) => self.raw(length).map(Some),
        }
    }

    /// Text with its length before it.
    ///
    /// # Errors
    /// When it is cut off or not UTF-8.
    pub fn text(&mut self) -> Result<&'a str, Malformed> {
        std::str::from_utf8(self.bytes()?).map_err(|_| Malformed)
    }
}
