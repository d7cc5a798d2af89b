//! The volume's format: what stands on a tape, octet by octet.
//!
//! Owns: the label, the cutting of a tar stream into frames, the frames, the lines of a catalogue, and how all of it is found again.
//! Called by: `feed` (writes), `restore` (reads). Never: opens anything, reads the clock; what comes from a volume is hostile.
//!
//! A volume is blocks of one size in files that are divided by file marks. File 0 is the label. Then each part of a backup takes two
//! files: `2k+1` the tar stream (POSIX.1-2001 pax, the source's very octets), `2k+2` its catalogue (JSON lines). Both are zstd frames
//! (RFC 8878) that are independent of each other; the last block is filled up by a skippable frame. So `dd`, `zstd -d` and `tar`
//! restore it without fife. A second file mark ends the data.
//!
//! Before each frame stands its head, a skippable frame that `zstd -d` passes over: part, number, place in the tar, lengths, where the
//! first member begins. With it a reader finds its way behind damage, and without any catalogue.
//!
//! - `label`: file 0, text for people and a line for machines;
//! - `pax`, `walk`: member boundaries of a tar stream, from the octets that pass;
//! - `cut`: the stream into frames;
//! - `frame`: heads, compression, padding, and frames out of blocks again;
//! - `line`: the lines of a catalogue.

pub mod cut;
pub mod frame;
pub mod label;
pub mod line;
mod pax;
pub mod walk;

#[cfg_attr(not(fuzzing), cfg(test))]
pub(crate) mod fuzz;
#[cfg(test)]
mod tests;

/// Sixteen octets that name a part or a volume, written as hexadecimal digits.
pub type Name = [u8; 16];
