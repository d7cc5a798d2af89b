//! Which disk is meant, what the kernel is told, what is left at the end.

use std::net::IpAddr;

use nix::mount::MsFlags;

use super::super::mounts::Line;
use super::find::{FindError, Volume, choose};
use super::{leave, options};
use crate::appliance::superblock::{Condition, Superblock, System};
use crate::config::mounts::{Device, FileSystem, MountOption};

const EXT4: System = System::Ext { condition: Condition::Clean, blocks: 1, block: 4096 };

fn volume(device: &str, guid: Option<&str>, found: Option<(&str, &str)>) -> Volume {
    let superblock = |(label, uuid): (&str, &str)| Superblock { system: EXT4, label: label.into(), uuid: uuid.into() };
    Volume { device: device.into(), part_guid: guid.map(str::to_owned), superblock: found.map(superblock) }
}

#[test]
fn a_disk_is_meant_by_what_is_on_it_and_never_guessed() {
    let volumes = [
        volume("/dev/null", None, None),
        volume("/dev/sda1", Some("0fc6-01"), Some(("archive", "1-a"))),
        volume("/dev/sdb", None, Some(("photos", "1-b"))),
        volume("/dev/sdc", None, Some(("photos", "1-c"))),
        volume("/dev/sdd", None, Some(("", "1-d"))),
    ];
    let check = |wanted: &str, expected: Result<&str, &str>| {
        let wanted: Device = wanted.parse().unwrap();
        let found = choose(&wanted, &volumes).map(|volume| volume.device.to_str().unwrap().to_owned());
        assert_eq!(found.map_err(|error| error.to_string()), expected.map(str::to_owned).map_err(str::to_owned));
    };
    check("LABEL=archive", Ok("/dev/sda1"));
    check("LABEL=Archive", Err("LABEL=Archive is not there; it is mounted when it turns up"));
    check("UUID=1-B", Ok("/dev/sdb"));
    check("PARTUUID=0FC6-01", Ok("/dev/sda1"));
    check("PARTUUID=0fc6-02", Err("PARTUUID=0fc6-02 is not there; it is mounted when it turns up"));
    // There is such a file, and such a disk.
    check("/dev/null", Ok("/dev/null"));
    check("/dev/sdz9", Err("/dev/sdz9 is not there; it is mounted when it turns up"));
    let several = "LABEL=photos is on /dev/sdb and /dev/sdc: name the one that is meant by UUID= or PARTUUID=";
    check("LABEL=photos", Err(several));
    assert!(matches!(choose(&Device::Label("x".into()), &[]), Err(FindError::Absent(_))));
}

fn given(words: &[&str]) -> Vec<MountOption> {
    words.iter().map(|word| word.parse().unwrap()).collect()
}

#[test]
fn the_kernel_gets_flags_as_flags_and_the_rest_as_text() {
    let check = |system: FileSystem, words: &[&str], protected: bool, flags: MsFlags, data: &str| {
        let told = options::of_disk(system, &given(words), protected);
        assert_eq!(told, (flags | MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC, data.to_owned()));
    };
    let nothing = MsFlags::empty();
    check(FileSystem::Ext4, &[], false, nothing, "errors=remount-ro");
    // The last of two counts: what the administrator wrote.
    check(FileSystem::Ext4, &["errors=panic"], false, nothing, "errors=remount-ro,errors=panic");
    let both = MsFlags::MS_RDONLY | MsFlags::MS_NOATIME;
    check(FileSystem::Xfs, &["ro", "noatime", "inode64"], false, both, "inode64");
    check(FileSystem::Xfs, &["rw", "nosuid"], false, nothing, "");
    check(FileSystem::Vfat, &["umask=0022"], false, nothing, "umask=0077,utf8=1,umask=0022");
    // A journal cannot be replayed there.
    check(FileSystem::Ext4, &[], true, MsFlags::MS_RDONLY, "errors=remount-ro,noload");
    check(FileSystem::Xfs, &[], true, MsFlags::MS_RDONLY, "norecovery");
}

#[test]
fn a_file_server_is_told_by_address_and_versions_are_tried_from_the_highest() {
    let check = |words: &[&str], address: &str, expected: &[&str]| {
        let (words, address) = (given(words), address.parse::<IpAddr>().unwrap());
        let told = options::versions(&words).into_iter().map(|version| options::of_export(&words, address, version).1);
        assert_eq!(told.collect::<Vec<_>>(), expected);
    };
    let all = [
        "vers=4.2,addr=192.0.2.9,softerr,timeo=150,retrans=2",
        "vers=4.1,addr=192.0.2.9,softerr,timeo=150,retrans=2",
        "vers=4.0,addr=192.0.2.9,softerr,timeo=150,retrans=2",
        "vers=3,addr=192.0.2.9,softerr,timeo=150,retrans=2,nolock",
    ];
    check(&[], "192.0.2.9", &all);
    check(
        &["vers=3", "mountport=20048", "ro"],
        "2001:db8::9",
        &["vers=3,addr=2001:db8::9,softerr,timeo=150,retrans=2,nolock,mountport=20048"],
    );
    // The administrator's word stands last, and counts.
    check(
        &["nfsvers=4.1", "hard", "timeo=600"],
        "192.0.2.9",
        &["vers=4.1,addr=192.0.2.9,softerr,timeo=150,retrans=2,hard,timeo=600"],
    );
    assert!(options::of_export(&given(&["ro"]), "192.0.2.9".parse().unwrap(), "3").0.contains(MsFlags::MS_RDONLY));
}

#[test]
fn at_the_end_all_is_left_in_reverse_order_but_the_systems_own() {
    let line = |at: &str| Line { at: at.into(), device: "0:1".into(), read_only: false };
    let table = ["/proc", "/boot", "/data", "/mnt/a", "/srv/b/c", "/media/d", "/mnt"].map(line);
    assert_eq!(leave::ours(&table), ["/mnt", "/media/d", "/srv/b/c", "/mnt/a"].map(line));
    // One that only begins with the same letters.
    assert_eq!(leave::ours(&[line("/mntx")]), []);
}
