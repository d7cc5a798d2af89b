//! Octets from the booted disk to another, read back and compared.
//!
//! Owns: `Piece`. Called by: `install`. Never: writes outside its place.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::Path;

use gpt::partition::Partition;
use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};

use super::super::block::SECTOR;

/// Octets that are copied at a time.
const COPY_LEN: usize = 1 << 20;
/// Octets of the boot sector that are code.
pub(super) const BOOT_CODE_LEN: usize = 440;
// FAT32's boot sector (Microsoft's FAT specification 1.03, "Boot Sector and BPB").
const BACKUP_SECTOR_AT: usize = 0x32;
const VOLUME_ID_AT: usize = 0x43;

/// Something to copy, and where to.
pub(super) struct Piece {
    /// As people are told.
    pub(super) what: &'static str,
    at: u64,
    /// Octets that there is room for.
    room: u64,
    from: Box<dyn Read>,
    volume_id: Option<[u8; 4]>,
}

impl Piece {
    /// A partition as it is, to the same place on the other disk.
    pub(super) fn of_partition(what: &'static str, disk: &Path, partition: &Partition) -> io::Result<Self> {
        let mut from = File::open(disk)?;
        let at = partition.first_lba.saturating_mul(SECTOR);
        from.seek(SeekFrom::Start(at))?;
        let room = (partition.last_lba + 1).saturating_sub(partition.first_lba).saturating_mul(SECTOR);
        Ok(Self { what, at, room, from: Box::new(from.take(room)), volume_id: None })
    }

    /// A compressed image of a volume, to the place of this partition.
    pub(super) fn of_image(what: &'static str, image: &Path, partition: &Partition) -> io::Result<Self> {
        let from = zstd::Decoder::new(File::open(image)?)?;
        let at = partition.first_lba.saturating_mul(SECTOR);
        Ok(Self { what, at, room: super::DATA_LEN_MIN, from: Box::new(from), volume_id: None })
    }

    /// The FAT in it gets this volume id.
    pub(super) fn with_volume_id(mut self, id: [u8; 4]) -> Self {
        self.volume_id = Some(id);
        self
    }

    /// The code in a disk's boot sector.
    pub(super) fn boot_code(disk: &Path) -> io::Result<[u8; BOOT_CODE_LEN]> {
        let mut code = [0; BOOT_CODE_LEN];
        File::open(disk)?.read_exact(&mut code)?;
        Ok(code)
    }

    /// Writes it, and reads it back from the disk. `InvalidData` when that is not what was written.
    pub(super) fn write(mut self, disk: &File) -> io::Result<()> {
        let mut octets = vec![0; COPY_LEN];
        let mut written: u64 = 0;
        let mut hasher = blake3::Hasher::new();
        loop {
            let count = fill(&mut self.from, &mut octets)?;
            let Some(chunk) = octets.get_mut(..count).filter(|chunk| !chunk.is_empty()) else { break };
            if written == 0
                && let Some(id) = self.volume_id
            {
                change_volume_id(chunk, id);
            }
            if written + count as u64 > self.room {
                return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("{} has no room", self.what)));
            }
            hasher.update(chunk);
            disk.write_all_at(chunk, self.at + written)?;
            written += count as u64;
        }
        disk.sync_all()?;
        self.compare(disk, written, hasher.finalize())
    }

    fn compare(&self, disk: &File, len: u64, expected: blake3::Hash) -> io::Result<()> {
        // What is in memory would prove nothing.
        posix_fadvise(disk, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED)?;
        let mut hasher = blake3::Hasher::new();
        let mut octets = vec![0; COPY_LEN];
        let mut read: u64 = 0;
        while read < len {
            let count = usize::try_from(len - read).unwrap_or(COPY_LEN).min(COPY_LEN);
            let chunk = octets.get_mut(..count).unwrap_or_default();
            disk.read_exact_at(chunk, self.at + read)?;
            hasher.update(chunk);
            read += count as u64;
        }
        if hasher.finalize() == expected {
            return Ok(());
        }
        let text = format!("{} was not read back as it was written: the disk is failing", self.what);
        Err(io::Error::new(io::ErrorKind::InvalidData, text))
    }
}

/// Reads until the buffer is full or the end has come.
fn fill(from: &mut dyn Read, octets: &mut [u8]) -> io::Result<usize> {
    let mut count = 0;
    while let Some(rest) = octets.get_mut(count..).filter(|rest| !rest.is_empty()) {
        match from.read(rest) {
            Ok(0) => break,
            Ok(read) => count += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(count)
}

/// In the boot sector and in its backup. `volume`: its beginning.
fn change_volume_id(volume: &mut [u8], id: [u8; 4]) {
    let backup = volume.get(BACKUP_SECTOR_AT..BACKUP_SECTOR_AT + 2).and_then(|octets| octets.try_into().ok());
    let backup = usize::from(backup.map_or(0, u16::from_le_bytes));
    for sector in [0, backup] {
        let at = sector * 512 + VOLUME_ID_AT;
        if let Some(octets) = volume.get_mut(at..at + 4) {
            octets.copy_from_slice(&id);
        }
    }
}
