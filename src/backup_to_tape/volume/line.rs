//! The lines of a catalogue: what is on a volume, readable by people and by any program that reads JSON.
//!
//! Owns: `Line` and its kinds. Called by: `feed` (writes them), `catalogue` (takes them in). Never: trusts them; a catalogue is read from a
//! volume, and what it says about places is checked against the frames there.
//! Spec: RFC 8259 (JSON), one object a line.

use serde::{Deserialize, Serialize};

use super::walk::Member;

/// Octets of a line, at most: a name of a mebibyte, each octet escaped.
pub const LINE_LEN_MAX: usize = 7 * 1024 * 1024;

/// One line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Line {
    /// The first: whose catalogue this is.
    Part(PartLine),
    Member(MemberLine),
    Frame(FrameLine),
    /// The last: nothing is missing.
    End(EndLine),
}

/// The part that a catalogue is of: one source at one time. Where it was cut by the end of a volume, each piece has a catalogue of its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct PartLine {
    /// 32 hexadecimal digits, the same in all pieces.
    pub part: String,
    /// From 1.
    pub piece: u32,
    pub job: String,
    pub source: String,
    pub host: String,
    /// Seconds since 1970.
    pub time: u64,
    /// What the source was asked to go on from; none: everything is here.
    pub since: Option<String>,
    /// What to ask it for next time.
    pub next: Option<String>,
}

/// A member of the tar stream that ends in this piece.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct MemberLine {
    /// Where it is not UTF-8, with replacements; `path-hex` has its octets then.
    pub path: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path_hex: Option<String>,
    /// The type flag of tar: "0" file, "1" hard link, "2" symbolic link, "5" directory.
    #[serde(rename = "type")]
    pub flag: char,
    pub size: u64,
    /// Seconds since 1970, and nanoseconds.
    pub mtime: i64,
    #[serde(default, skip_serializing_if = "is_zero")]
    pub mtime_ns: u32,
    /// Octal digits.
    pub mode: String,
    /// Of the content, hexadecimal digits.
    pub blake3: String,
    /// Offset in the tar stream of its first header.
    pub at: u64,
    /// Octets from there to the next member.
    pub len: u64,
}

/// Where a frame stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct FrameLine {
    /// Offset in the tar stream of its content.
    pub at: u64,
    /// Octets of its content.
    pub len: u64,
    pub volume: String,
    pub file: u32,
    pub block: u32,
    /// In the block: where its head begins.
    pub offset: u32,
    /// Octets on the volume, with the head.
    pub bytes: u64,
}

/// See `Line::End`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct EndLine {
    /// Member lines before this one.
    pub members: u64,
    /// Frame lines before this one.
    pub frames: u64,
    /// Octets of the tar stream up to here, pieces before included.
    pub tar_len: u64,
    /// Whether the part goes on on another volume.
    pub goes_on: bool,
}

fn is_zero(number: &u32) -> bool {
    *number == 0
}

impl MemberLine {
    pub fn of(member: &Member) -> Self {
        let path = String::from_utf8(member.path.clone());
        let path_hex = path.as_ref().err().map(|_| hex::encode(&member.path));
        Self {
            path: path.unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned()),
            path_hex,
            flag: char::from(member.flag),
            size: member.sparse.unwrap_or(member.size),
            mtime: member.mtime.0,
            mtime_ns: member.mtime.1,
            mode: format!("{:04o}", member.mode),
            blake3: hex::encode(member.blake3),
            at: member.at,
            len: member.len,
        }
    }

    /// The path's octets; `None` where its digits are none.
    pub fn path_octets(&self) -> Option<Vec<u8>> {
        match &self.path_hex {
            Some(digits) => hex::decode(digits).ok(),
            None => Some(self.path.clone().into_bytes()),
        }
    }
}

impl Line {
    /// With its line end.
    pub fn encode(&self) -> Vec<u8> {
        // Nothing in a line can fail to be JSON: no map has keys that are not text.
        let mut octets = serde_json::to_vec(self).unwrap_or_default();
        octets.push(b'\n');
        octets
    }

    /// `None`: no line of a catalogue that this version knows. Fields that it does not know are passed over.
    pub fn decode(line: &[u8]) -> Option<Self> {
        (line.len() <= LINE_LEN_MAX).then(|| serde_json::from_slice(line).ok())?
    }
}
