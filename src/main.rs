//! The binary: commands are in `cli`.

fn main() {}
