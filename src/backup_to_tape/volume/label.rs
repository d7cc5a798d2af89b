//! The label: the first file of a volume, for whoever finds it in twenty years.
//!
//! Owns: `Label`, `Foreign`. Called by: `feed` and `job` (write it, look what is there), `restore`. Never: decides whether a volume may be
//! overwritten.
//!
//! It is plain text in one block, filled up with line ends. One line is JSON, for programs; the next has its BLAKE3 hash.

use serde::{Deserialize, Serialize};

use super::walk::Walk;

/// The first line.
const TITLE: &str = "fife backup volume";
/// The only form of a volume so far.
const FORMAT: u32 = 1;
/// Characters of a volume's name, at most.
const VOLUME_LEN_MAX: usize = 64;
/// Octets of the line for programs, at most.
const LINE_LEN_MAX: usize = 8 * 1024;

/// What a volume says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Label {
    /// `FORMAT`.
    pub format: u32,
    /// Letters, digits, `-`, `_` and `.`: what is written on the cartridge.
    pub volume: String,
    /// 32 hexadecimal digits, new whenever a volume is labelled.
    pub id: String,
    pub site: String,
    /// The host that wrote it.
    pub host: String,
    /// Seconds since 1970.
    pub written: u64,
    pub block_bytes: u64,
    /// The part that goes on here from another volume: its name, and the piece that this volume begins with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub continues: Option<Continues>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Continues {
    pub part: String,
    pub piece: u32,
    /// The volume before.
    pub after: String,
}

/// What stands at the beginning of a volume that is not ours.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Foreign {
    #[error("a tar archive; its first member is {first:?}")]
    Tar { first: String },
    #[error("data compressed by {0}")]
    Compressed(&'static str),
    #[error("a label of fife that is damaged, or of a newer version: {0}")]
    Label(&'static str),
    #[error("something that fife did not write")]
    Unknown,
}

/// Why there is no label: the caller's fault.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LabelError {
    #[error("{0:?} is no name for a volume: 1 to 64 letters, digits, `-`, `_` or `.`, not a `.` first")]
    Volume(String),
    #[error("the label does not fit into a block of {0} bytes")]
    Block(usize),
}

impl Label {
    pub const FORMAT: u32 = FORMAT;

    /// Whether a volume may be called that.
    pub fn check_volume(name: &str) -> Result<(), LabelError> {
        let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        let good = !name.is_empty() && name.len() <= VOLUME_LEN_MAX && name.chars().all(fits) && !name.starts_with('.');
        if good { Ok(()) } else { Err(LabelError::Volume(name.to_owned())) }
    }

    /// The block.
    pub fn encode(&self, block_len: usize) -> Result<Vec<u8>, LabelError> {
        Self::check_volume(&self.volume)?;
        let mut text = self.text().into_bytes();
        if text.len() > block_len {
            return Err(LabelError::Block(block_len));
        }
        text.resize(block_len, b'\n');
        Ok(text)
    }

    fn text(&self) -> String {
        let Self { volume, site, host, block_bytes, .. } = self;
        let json = serde_json::to_string(self).unwrap_or_default();
        let hash = blake3::hash(json.as_bytes());
        let written = day(self.written);
        let continues = self.continues.as_ref().map_or(String::new(), |continues| {
            format!(
                "\nFile 1 goes on from volume {after}: it is piece {piece} of that part. To restore the\n\
                 part, decompress the pieces in order and hand them to one tar:\n\n\
                     \x20   (dd if=PIECE-1 bs={block_bytes} | zstd -dc; dd if=PIECE-2 bs={block_bytes} | zstd -dc) | tar -xpf -\n",
                after = continues.after,
                piece = continues.piece,
            )
        });
        format!(
            "{TITLE}\n\
             \n\
             Volume:   {volume}\n\
             Site:     {site}\n\
             Written:  {written} UTC by host {host}\n\
             Blocks:   {block_bytes} bytes each\n\
             \n\
             This is a backup. It can be restored without fife, by programs that every Unix has.\n\
             \n\
             What is on it: files, divided by file marks. File 0 is this text. After it each part\n\
             of a backup takes two files:\n\
             \x20   1, 3, 5, ...  a tar archive (POSIX pax), compressed by zstd\n\
             \x20   2, 4, 6, ...  the list of what is in it, as lines of JSON, compressed by zstd\n\
             \n\
             To restore the first part from a tape drive into an empty directory:\n\
             \n\
             \x20   mt -f /dev/nst0 setblk 0\n\
             \x20   mt -f /dev/nst0 rewind\n\
             \x20   mt -f /dev/nst0 fsf 1\n\
             \x20   dd if=/dev/nst0 bs={block_bytes} | zstd -dc | tar -xpf - -C DIRECTORY\n\
             \n\
             For the second part `fsf 3`, for the third `fsf 5`. The list of the first part:\n\
             \n\
             \x20   mt -f /dev/nst0 rewind\n\
             \x20   mt -f /dev/nst0 fsf 2\n\
             \x20   dd if=/dev/nst0 bs={block_bytes} | zstd -dc\n\
             {continues}\n\
             In the list, a line of kind \"frame\" says in which block of which file a piece of the\n\
             archive begins that can be decompressed alone; one of kind \"member\" has the BLAKE3\n\
             hash of a file.\n\
             \n\
             For programs, and the BLAKE3 hash of that line:\n\
             {json}\n\
             {hash}\n"
        )
    }

    /// What the first block of a volume says.
    pub fn decode(block: &[u8]) -> Result<Self, Foreign> {
        let Some(text) = block.strip_prefix(TITLE.as_bytes()).filter(|rest| rest.first() == Some(&b'\n')) else {
            return Err(foreign(block));
        };
        let mut lines = text.split(|octet| *octet == b'\n');
        let json = lines.find(|line| line.first() == Some(&b'{')).ok_or(Foreign::Label("a line is missing"))?;
        let hash = blake3::hash(json).to_hex();
        if lines.next() != Some(hash.as_bytes()) || json.len() > LINE_LEN_MAX {
            return Err(Foreign::Label("its hash is wrong"));
        }
        let label: Self = serde_json::from_slice(json).map_err(|_| Foreign::Label("its line is not understood"))?;
        if label.format != FORMAT {
            return Err(Foreign::Label("its format is not known"));
        }
        Self::check_volume(&label.volume).map_err(|_| Foreign::Label("its name"))?;
        Ok(label)
    }
}

/// What else it may be, so that nobody overwrites it unknowingly.
fn foreign(block: &[u8]) -> Foreign {
    for (magic, program) in [
        (&[0x28, 0xB5, 0x2F, 0xFD][..], "zstd"),
        (&[0x1F, 0x8B], "gzip"),
        (b"BZh", "bzip2"),
        (&[0xFD, b'7', b'z', b'X', b'Z', 0], "xz"),
    ] {
        if block.starts_with(magic) {
            return Foreign::Compressed(program);
        }
    }
    let mut walk = Walk::new(0);
    let mut rest = block;
    while let Ok((taken, _)) = walk.advance(rest) {
        if let Some(member) = walk.member() {
            return Foreign::Tar { first: String::from_utf8_lossy(&member.path).into_owned() };
        }
        rest = rest.get(taken..).unwrap_or_default();
        if rest.is_empty() {
            break;
        }
    }
    Foreign::Unknown
}

/// Date and time for people.
fn day(secs: u64) -> String {
    let time = i64::try_from(secs).ok().and_then(|secs| chrono::DateTime::from_timestamp(secs, 0));
    time.map_or_else(|| format!("{secs} seconds after 1970"), |time| time.format("%Y-%m-%d %H:%M:%S").to_string())
}
