//! A disk with changes that are not on it yet.
//!
//! Owns: the changed sectors. Called by: `disk`, which lets the gpt crate write here and then decides on the order.
//! Never: writes to the disk below.

use std::collections::BTreeMap;
use std::io::{self, Read, Seek, SeekFrom, Write};

use super::super::block::SECTOR;

const SECTOR_LEN: usize = 512;

/// Reads what was changed, else what is on the disk.
#[derive(Debug)]
pub(in super::super) struct Overlay<D> {
    disk: D,
    at: u64,
    changed: BTreeMap<u64, [u8; SECTOR_LEN]>,
}

impl<D: Read + Seek> Overlay<D> {
    pub(in super::super) fn over(disk: D) -> Self {
        Self { disk, at: 0, changed: BTreeMap::new() }
    }

    /// These sectors as they would be.
    pub(in super::super) fn octets(&mut self, lba: u64, sectors: u64) -> io::Result<Vec<u8>> {
        let mut octets = Vec::new();
        for lba in lba..lba.saturating_add(sectors) {
            octets.extend(self.sector(lba)?);
        }
        Ok(octets)
    }

    /// Changes sectors from `lba` on.
    pub(in super::super) fn put(&mut self, lba: u64, octets: &[u8]) -> io::Result<()> {
        self.seek(SeekFrom::Start(lba.saturating_mul(SECTOR)))?;
        self.write_all(octets)
    }

    fn sector(&mut self, lba: u64) -> io::Result<[u8; SECTOR_LEN]> {
        if let Some(changed) = self.changed.get(&lba) {
            return Ok(*changed);
        }
        let mut sector = [0; SECTOR_LEN];
        self.disk.seek(SeekFrom::Start(lba.saturating_mul(SECTOR)))?;
        self.disk.read_exact(&mut sector)?;
        Ok(sector)
    }

    /// The sector that the position is in, and where in it.
    fn position(&self) -> (u64, usize) {
        (self.at / SECTOR, usize::try_from(self.at % SECTOR).unwrap_or(0))
    }
}

impl<D: Read + Seek> Read for Overlay<D> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let (lba, inside) = self.position();
        let sector = self.sector(lba)?;
        let there = sector.get(inside..).unwrap_or_default();
        let count = there.len().min(out.len());
        if let (Some(to), Some(from)) = (out.get_mut(..count), there.get(..count)) {
            to.copy_from_slice(from);
        }
        self.at += count as u64;
        Ok(count)
    }
}

impl<D: Read + Seek> Write for Overlay<D> {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        let (lba, inside) = self.position();
        let mut sector = self.sector(lba)?;
        let room = sector.get_mut(inside..).unwrap_or_default();
        let count = room.len().min(octets.len());
        if let (Some(to), Some(from)) = (room.get_mut(..count), octets.get(..count)) {
            to.copy_from_slice(from);
        }
        self.changed.insert(lba, sector);
        self.at += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<D: Read + Seek> Seek for Overlay<D> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.at = match to {
            SeekFrom::Start(at) => at,
            SeekFrom::Current(by) => self.at.checked_add_signed(by).ok_or(io::ErrorKind::InvalidInput)?,
            SeekFrom::End(_) => self.disk.seek(to)?,
        };
        Ok(self.at)
    }
}
