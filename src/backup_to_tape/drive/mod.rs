//! What writes and reads blocks and file marks.
//!
//! Owns: the seam between the volume's format and what a volume is kept on. Called by: `backup_to_tape`'s pipeline and restore, and
//! `fife backup drive`. Never: knows what is in a block.
