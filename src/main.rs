//! The binary. Commands are in `cli`; the map of the rooms is in `lib.rs`.

use std::process::ExitCode;

use fife::supervisor::boot;

fn main() -> ExitCode {
    // As the appliance's first process, and when the kernel asks for a module, there is no command line to read.
    if boot::is_init() {
        boot::boot();
    }
    if boot::modules::is_modprobe() {
        return boot::modules::modprobe();
    }
    fife::cli::main()
}
