//! Disks as files: growth against sgdisk, and with the power cut at each step.

use std::fs::File;
use std::io::Cursor;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;

use gpt::{GptConfig, partition_types};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use super::*;

const MIB: u64 = 1 << 20;

/// A small disk laid out as the image is; its last partition ends 1 MiB before its end.
fn image(path: &Path, octets: u64) -> File {
    let file = File::options().read(true).write(true).create_new(true).open(path).unwrap();
    file.set_len(octets).unwrap();
    let config = GptConfig::new().writable(true).logical_block_size(BLOCK);
    let mut table = config.create_from_device(file.try_clone().unwrap(), None).unwrap();
    table.add_partition_at("bios-boot", 1, 2048, 2048, partition_types::BIOS, 0).unwrap();
    table.add_partition_at("esp", 2, 4096, 2048, partition_types::EFI, 4).unwrap();
    let data = octets / SECTOR - 2048 - 6144;
    table.add_partition_at("fife-data", 3, 6144, data, partition_types::LINUX_FS, 0).unwrap();
    table.write().unwrap();
    let mut mbr = ProtectiveMBR::with_lb_size(u32::try_from(octets / SECTOR - 1).unwrap());
    mbr.set_bootcode([0xeb; 440]);
    mbr.overwrite_lba0(&mut file.try_clone().unwrap()).unwrap();
    file
}

fn sgdisk(path: &Path, option: &str) -> String {
    let output = Command::new("sgdisk").arg(option).arg(path).output().expect("sgdisk (package gdisk)");
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[test]
fn the_last_partition_grows_to_the_disks_end_and_sgdisk_finds_nothing_wrong() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("disk");
    let file = image(&path, 8 * MIB);
    let guids = sgdisk(&path, "--info=3");
    file.set_len(40 * MIB + 700 * SECTOR).unwrap();
    let growth = plan(&file, 3).unwrap();
    carry_out(&file, &growth.steps).unwrap();
    assert_eq!((growth.first_lba, growth.last_lba), (6144, 40 * 2048 - 1));
    let verified = sgdisk(&path, "--verify");
    assert!(verified.contains("No problems found"), "{verified}");
    let info = sgdisk(&path, "--info=3");
    assert!(info.contains(&format!("Last sector: {}", growth.last_lba)), "{info}");
    let unique = |info: &str| info.lines().find(|line| line.contains("unique GUID")).unwrap().to_owned();
    assert_eq!(unique(&info), unique(&guids));
    let mbr = ProtectiveMBR::from_disk(&mut file.try_clone().unwrap(), BLOCK).unwrap();
    assert_eq!(mbr.bootcode(), &[0xeb; 440]);
    // All is done: the next start writes nothing.
    assert_eq!(plan(&file, 3).unwrap().steps, []);
}

#[test]
fn only_the_last_partition_grows_and_a_garbled_table_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let file = image(&dir.path().join("disk"), 8 * MIB);
    assert!(matches!(plan(&file, 2), Err(DiskError::NotLast(2))));
    assert!(matches!(plan(&file, 4), Err(DiskError::NotLast(4))));
    file.write_all_at(&[0xff; 64], SECTOR).unwrap();
    // The backup is read, but the kernel did not boot from it: something else is wrong here.
    assert!(matches!(plan(&file, 3), Err(DiskError::Table(_))));
}

/// Whether the kernel takes this disk's table: the primary header and the entries that it has the checksum of. Returns the end of the
/// last partition.
fn kernels_view(disk: &[u8]) -> Option<u64> {
    let table = GptConfig::new().logical_block_size(BLOCK).open_from_device(Cursor::new(disk.to_vec())).ok()?;
    let header = table.primary_header().ok()?.clone();
    let mut again = header.clone();
    again.write_primary(&mut Cursor::new(disk.to_vec()), BLOCK).ok()?;
    (again.crc32_parts == header.crc32_parts && again.crc32 == header.crc32).then_some(())?;
    table.partitions().get(&3).map(|partition| partition.last_lba)
}

#[test]
fn whenever_the_power_goes_the_kernel_reads_the_old_table_or_the_new_one() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("disk");
    let file = image(&path, 5 * MIB);
    file.set_len(7 * MIB).unwrap();
    let before = std::fs::read(&path).unwrap();
    let growth = plan(&file, 3).unwrap();
    let (old, new) = (kernels_view(&before).unwrap(), growth.last_lba);
    let mut random = SmallRng::seed_from_u64(1);
    for cut in 0..=growth.steps.len() {
        for _ in 0..4 {
            let mut disk = before.clone();
            let flushed = growth.steps[..cut].iter().rposition(|step| *step == Step::Flush).map_or(0, |at| at + 1);
            for (nth, step) in growth.steps[..cut].iter().enumerate() {
                let Step::Write { at, octets } = step else { continue };
                for (sector, octets) in octets.chunks(512).enumerate() {
                    // What was not flushed may or may not be there, each sector by itself.
                    if nth < flushed || random.random_bool(0.5) {
                        let at = usize::try_from(*at).unwrap() + sector * 512;
                        disk[at..at + octets.len()].copy_from_slice(octets);
                    }
                }
            }
            let seen = kernels_view(&disk);
            assert!(seen == Some(old) || seen == Some(new), "cut after {cut} steps: {seen:?}");
            // The next start finishes it.
            let rest = plan(Cursor::new(disk.clone()), 3).unwrap();
            for step in &rest.steps {
                let Step::Write { at, octets } = step else { continue };
                let at = usize::try_from(*at).unwrap();
                disk[at..at + octets.len()].copy_from_slice(octets);
            }
            assert_eq!(kernels_view(&disk), Some(new));
            assert_eq!(plan(Cursor::new(disk), 3).unwrap().steps, []);
        }
    }
}
