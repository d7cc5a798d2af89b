//! The binary. Commands are in `cli`; the map of the rooms is in `lib.rs`.

use std::process::ExitCode;

fn main() -> ExitCode {
    fife::cli::main()
}
