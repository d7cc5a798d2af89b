//! The binary. Commands are in `cli`; the map of the rooms is in `lib.rs`.

use std::process::ExitCode;

use fife::supervisor::boot;

fn main() -> ExitCode {
    // As the appliance's first process, when the kernel asks for a module, and to mount something, there is no command line to read.
    if boot::is_init() {
        boot::boot();
    }
    if boot::modules::is_modprobe() {
        return boot::modules::modprobe();
    }
    if boot::disks::is_child() {
        return boot::disks::child();
    }
    fife::cli::main()
}
