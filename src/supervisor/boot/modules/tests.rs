//! Modules by name and alias, and in which order.

use std::path::Path;

use super::{Modules, fits};

#[test]
fn patterns_fit_as_fnmatch_has_it() {
    let check = |pattern: &str, text: &str, expected: bool| {
        assert_eq!(fits(pattern.as_bytes(), text.as_bytes()), expected, "{pattern} {text}");
    };
    check("", "", true);
    check("", "a", false);
    check("*", "", true);
    check("a*", "a", true);
    check("a?", "a", false);
    check("a?c", "abc", true);
    check("*b*d", "abcbd", true);
    check("*b*d", "abcbdx", false);
    check("[0-3]x", "2x", true);
    check("[0-3]x", "4x", false);
    check("[a13-5]", "4", true);
    check("[a13-5]", "2", false);
    // Never closed: fits nothing.
    check("[a", "a", false);
    // virtio_pci, and the disk behind it.
    check("pci:v00001AF4d*sv*sd*bc*sc*i*", "pci:v00001AF4d00001042sv00001AF4sd00001100bc01sc80i00", true);
    check("virtio:d00000002v*", "virtio:d00000002v00001AF4", true);
    check("virtio:d00000002v*", "virtio:d00000001v00001AF4", false);
    check("usb:v0403p6001d*dc*dsc*dp*ic*isc*ip*in*", "usb:v0403p6001d0600dc00dsc00dp00icFFiscFFipFFin00", true);
    // Many stars and no end that fits: answered at once all the same.
    check("*a*a*a*a*a*a*a*a*a*b", &"a".repeat(2000), false);
}

#[test]
fn what_a_module_needs_is_loaded_before_it() {
    let dependencies = "kernel/fs/ext4/ext4.ko: kernel/fs/mbcache.ko kernel/fs/jbd2/jbd2.ko kernel/lib/crc16.ko\n\
                        kernel/fs/jbd2/jbd2.ko: kernel/lib/crc16.ko\nkernel/net/ip-vs.ko:\nnonsense\n";
    let aliases = "# Aliases\nalias fs-ext4 ext4\nalias fs-ext3 ext4\nalias pci:v00008086d*sv* ip-vs\n\
                   alias acpi*:LNXPWRBN:* ip_vs\nalias half\n";
    let modules = Modules::parse(Path::new("/m"), dependencies, aliases);
    let check = |wanted: &str, expected: &[&str]| {
        let files = modules.meant_by(wanted).flat_map(|module| module.before.iter().chain([&module.file]));
        let files: Vec<_> = files.map(|file| file.file_name().unwrap().to_str().unwrap()).collect();
        assert_eq!(files, expected, "{wanted}");
    };
    check("ext4", &["crc16.ko", "jbd2.ko", "mbcache.ko", "ext4.ko"]);
    check("fs-ext3", &["crc16.ko", "jbd2.ko", "mbcache.ko", "ext4.ko"]);
    check("ip-vs", &["ip-vs.ko"]);
    check("ip_vs", &["ip-vs.ko"]);
    check("pci:v00008086d00001234sv00000000", &["ip-vs.ko"]);
    // The bus is a pattern, too.
    check("acpi:LNXPWRBN:", &["ip-vs.ko"]);
    check("xfs", &[]);
    check("", &[]);
}
