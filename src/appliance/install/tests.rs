//! From an image to a disk, both files; mtools, fsck and sgdisk look at what came of it.

use std::fs;
use std::os::unix::fs::{FileExt, symlink};
use std::process::Command;

use gpt::mbr::ProtectiveMBR;
use gpt::partition_types;

use super::*;

const MIB: u64 = 1 << 20;
const DISK_LEN: u64 = 64 * MIB + 300 * SECTOR;

fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).env("MTOOLS_SKIP_CHECK", "1").output().expect(program);
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{program} {arguments:?}: {said}");
    said
}

/// An image as the builder makes it, but small; and the compressed data filesystem.
struct World {
    dir: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        let world = Self { dir: tempfile::tempdir().unwrap() };
        let image = File::options().read(true).write(true).create_new(true).open(world.path("image")).unwrap();
        image.set_len(44 * MIB).unwrap();
        let config = GptConfig::new().writable(true).logical_block_size(BLOCK);
        let mut table = config.create_from_device(image.try_clone().unwrap(), None).unwrap();
        table.add_partition_at("bios-boot", 1, 2048, 2048, partition_types::BIOS, 0).unwrap();
        table.add_partition_at("esp", 2, 4096, 34 * 2048, partition_types::EFI, 4).unwrap();
        table.add_partition_at("fife-data", 3, 36 * 2048, 6 * 2048, partition_types::LINUX_FS, 0).unwrap();
        table.write().unwrap();
        let mut mbr = ProtectiveMBR::with_lb_size(u32::try_from(44 * 2048 - 1).unwrap());
        mbr.set_bootcode([0xeb; 440]);
        mbr.overwrite_lba0(&mut image.try_clone().unwrap()).unwrap();
        image.write_all_at(b"core image", MIB).unwrap();
        run(
            "mkfs.vfat",
            &["-F", "32", "-s", "1", "-i", "12345678", "-C", &world.text("esp"), &(34 * 1024).to_string()],
        );
        fs::write(world.path("fife.toml"), "[site]\n").unwrap();
        run("mcopy", &["-i", &world.text("esp"), &world.text("fife.toml"), "::fife.toml"]);
        image.write_all_at(&fs::read(world.path("esp")).unwrap(), 2 * MIB).unwrap();
        File::create(world.path("data")).unwrap().set_len(6 * MIB).unwrap();
        run("/sbin/mke2fs", &["-q", "-t", "ext4", "-b", "4096", &world.text("data")]);
        let data = zstd::encode_all(File::open(world.path("data")).unwrap(), 1).unwrap();
        fs::write(world.path("data.zst"), data).unwrap();
        world
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    /// A disk full of something else, with a partition table.
    fn disk(&self) -> File {
        fs::write(self.path("disk"), vec![0x5a; usize::try_from(DISK_LEN).unwrap()]).unwrap();
        run("sgdisk", &["--clear", "--new=1:2048:+1M", &self.text("disk")]);
        File::options().read(true).write(true).open(self.path("disk")).unwrap()
    }

    fn pieces(&self, booted: &Booted) -> Vec<Piece> {
        pieces(booted, &self.path("data.zst")).unwrap()
    }

    /// A volume of the disk, in a file of its own.
    fn volume(&self, at: u64, len: u64) -> String {
        let disk = fs::read(self.path("disk")).unwrap();
        let (at, len) = (usize::try_from(at).unwrap(), usize::try_from(len).unwrap());
        fs::write(self.path("volume"), &disk[at..at + len]).unwrap();
        self.text("volume")
    }
}

#[test]
fn the_disk_gets_the_system_and_identities_of_its_own() {
    let world = World::new();
    let (booted, disk) = (Booted::read(&world.path("image")).unwrap(), world.disk());
    erase(&disk, DISK_LEN).unwrap();
    world.pieces(&booted).into_iter().for_each(|piece| piece.write(&disk).unwrap());
    // Up to here the power may go as it likes: there is nothing that could be taken for a system.
    assert!(GptConfig::new().open(world.path("disk")).is_err());
    assert_eq!(fs::read(world.path("disk")).unwrap()[..512], [0; 512]);
    let table = table(&booted, &disk).unwrap();
    finish(&disk, &table).unwrap();

    let verified = run("sgdisk", &["--verify", &world.text("disk")]);
    assert!(verified.contains("No problems found"), "{verified}");
    let (old, new) =
        (run("sgdisk", &["--info=3", &world.text("image")]), run("sgdisk", &["--info=3", &world.text("disk")]));
    let unique = |info: &str| info.lines().find(|line| line.contains("unique GUID")).unwrap().to_owned();
    assert_ne!(unique(&old), unique(&new));
    assert!(
        new.contains("Partition name: 'fife-data'") && new.contains(&format!("Last sector: {}", 64 * 2048 - 1)),
        "{new}"
    );
    let written = fs::read(world.path("disk")).unwrap();
    assert_eq!(written[..440], [0xeb; 440]);
    assert!(written[usize::try_from(MIB).unwrap()..].starts_with(b"core image"));
    let esp = world.volume(2 * MIB, 34 * MIB);
    run("fsck.vfat", &["-n", &esp]);
    assert_eq!(run("mtype", &["-i", &esp, "::fife.toml"]), "[site]\n");
    assert!(!run("mdir", &["-i", &esp]).contains("1234-5678"), "the volume id is a new one");
    run("/sbin/e2fsck", &["-fn", &world.volume(36 * MIB, 6 * MIB)]);
}

#[test]
fn a_disk_without_room_and_a_foreign_layout_are_refused() {
    let world = World::new();
    let booted = Booted::read(&world.path("image")).unwrap();
    assert_eq!(booted.octets_min(), 37 * MIB + DATA_LEN_MIN);
    assert!(matches!(Booted::read(&world.path("esp")), Err(InstallError::Source(_))));
    world.disk();
    assert!(matches!(Booted::read(&world.path("disk")), Err(InstallError::Layout)));
}

/// A disk below a false /sys.
fn false_disk(dir: &Path, facts: &[(&str, &str)]) -> PathBuf {
    let sys = dir.join("vdb");
    fs::create_dir_all(sys.join("device")).unwrap();
    let usual = [
        ("size", "4194304"),
        ("ro", "0"),
        ("dev", "254:16"),
        ("queue/logical_block_size", "512"),
        ("device/model", "DISK\x1b[2J 9000  "),
        ("serial", "S1"),
        ("vdb1/partition", "1"),
        ("vdb1/size", "2048"),
        ("vdb1/dev", "254:17"),
        ("vdb1/uevent", "DEVNAME=vdb1\n"),
    ];
    for (path, text) in usual.iter().chain(facts) {
        let path = sys.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    sys
}

#[test]
fn what_is_no_disk_is_refused() {
    let check = |facts: &[(&str, &str)], expected: &str| {
        let dir = tempfile::tempdir().unwrap();
        let looked = Target::from_sys(Path::new("/dev/vdb"), &false_disk(dir.path(), facts));
        let said = looked.map_or_else(|refusal| refusal.to_string(), |target| format!("{target:?}"));
        assert!(said.contains(expected), "{said}");
    };
    check(&[], "model: \"DISK?[2J 9000\", serial: \"S1\"");
    check(&[("partition", "1")], "name the whole disk");
    check(&[("ro", "1")], "cannot be written");
    check(&[("device/type", "5")], "CD-ROM");
    check(&[("device/type", "0")], "model");
    check(&[("queue/logical_block_size", "4096")], "sectors of 4096 octets");
    let refused = |path: &str| Target::look(Path::new(path)).unwrap_err().to_string();
    assert!(refused("/dev/null").contains("no block device"));
    assert!(refused("/etc/passwd").contains("no block device"));
    assert!(refused("/dev/no-such-disk").contains("No such file"));
}

#[test]
fn a_disk_in_use_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let sys = false_disk(dir.path(), &[]);
    let target = Target::from_sys(Path::new("/dev/vdb"), &sys).unwrap();
    let mounts = "30 21 254:17 / /srv rw - ext4 /dev/vdb1 rw\n";
    let swaps = "Filename Type Size\n/dev/vdb1 partition 1\n";
    assert_eq!(target.used_by("", "Filename\n"), None);
    assert_eq!(target.used_by(mounts, "").as_deref(), Some("/dev/vdb1 is mounted at /srv"));
    assert_eq!(target.used_by("", swaps).as_deref(), Some("/dev/vdb1 is swap space"));
    fs::create_dir_all(sys.join("vdb1/holders/dm-0")).unwrap();
    assert_eq!(target.used_by("", "").as_deref(), Some("dm-0 is made of it"));
    // Under another name it is still the disk that runs.
    let (device, other) = (dir.path().join("a"), dir.path().join("b"));
    fs::write(&device, "").unwrap();
    symlink(&device, &other).unwrap();
    let running = Target { device: other, ..target };
    assert!(matches!(running.may_be_overwritten(&device, 0), Err(Refusal::Running(_))));
}

#[test]
fn what_lies_on_a_volume_is_recognised() {
    let world = World::new();
    let check = |name: &str, kind: &str, label: &str| {
        let found = super::super::filesystem::look(&world.path(name)).unwrap();
        assert_eq!((found.kind, found.label.as_str()), (kind, label));
    };
    check("data", "ext4", "");
    check("esp", "FAT32", "NO NAME");
    assert_eq!(super::super::filesystem::look(&world.path("data.zst")), None);
}
