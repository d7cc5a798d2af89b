//! A media changer: which tape is where, and taking one from here to there.
//!
//! Owns: the commands to it. Called by: `fife backup changer`. Never: guesses; what the changer says is where a tape is.
//! Spec: SMC-3 (READ ELEMENT STATUS, MOVE MEDIUM, INITIALIZE ELEMENT STATUS).
//!
//! - `elements`: what the changer's answers mean, without I/O.

pub mod elements;

use std::fs;
use std::path::{Path, PathBuf};

use super::scsi::{self, Identity, Scsi, ScsiError};
use elements::{Element, Kind};

/// What a medium changer calls itself (SPC-4 table 142).
const MEDIUM_CHANGER: u8 = 8;
const INITIALIZE_ELEMENT_STATUS: u8 = 0x07;
const MOVE_MEDIUM: u8 = 0xa5;
const READ_ELEMENT_STATUS: u8 = 0xb8;
/// READ ELEMENT STATUS: with volume tags.
const VOLUME_TAGS: u8 = 0x10;
/// Octets of an answer, at most: more than 10 000 places have.
const ANSWER_BYTES_MAX: usize = 1 << 20;
/// Milliseconds that looking at every place may take.
const LOOK_MSECS: u32 = 60 * 60_000;

/// Why a changer did not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum ChangerError {
    #[error("there is no media changer")]
    None,
    #[error("there are several media changers: name one of {}", shown(.0))]
    Several(Vec<PathBuf>),
    #[error("{}: it is no media changer", .0.display())]
    NotAChanger(PathBuf),
    #[error("there is no slot {0}")]
    NoSlot(u32),
    #[error("there is no drive {0} in the changer")]
    NoDrive(u32),
    #[error("no tape in the changer has the barcode {0:?}")]
    NoBarcode(String),
    #[error("slot {0} is empty")]
    SlotEmpty(u32),
    #[error("drive {0} is empty")]
    DriveEmpty(u32),
    #[error("drive {0} has a tape in it already")]
    DriveFull(u32),
    #[error("there is no empty slot")]
    NoRoom,
    #[error(transparent)]
    Scsi(#[from] ScsiError),
}

fn shown(paths: &[PathBuf]) -> String {
    paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ")
}

/// A changer, open.
#[derive(Debug)]
pub struct Changer {
    scsi: Scsi,
    pub identity: Identity,
    /// The arm, as the changer addresses it.
    transport: u16,
}

/// Everything in it: slots count from 1, those behind the door (import/export) last; drives from 0.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inventory {
    pub slots: Vec<Element>,
    pub drives: Vec<Element>,
}

impl Changer {
    /// The only one that this machine has.
    ///
    /// # Errors
    /// There is none, or more than one.
    pub fn find() -> Result<PathBuf, ChangerError> {
        let is_changer =
            |path: &Path| fs::read_to_string(path.join("device/type")).is_ok_and(|kind| kind.trim() == "8");
        let classes = fs::read_dir("/sys/class/scsi_generic").into_iter().flatten().flatten();
        let mut found: Vec<PathBuf> = classes
            .filter(|entry| is_changer(&entry.path()))
            .map(|entry| Path::new("/dev").join(entry.file_name()))
            .collect();
        found.sort();
        match found.pop() {
            None => Err(ChangerError::None),
            Some(path) if found.is_empty() => Ok(path),
            Some(path) => {
                found.push(path);
                Err(ChangerError::Several(found))
            }
        }
    }

    /// Opens `/dev/sgN`.
    ///
    /// # Errors
    /// It is no changer, or does not answer.
    pub fn open(path: &Path) -> Result<Self, ChangerError> {
        let scsi = Scsi::open(path)?;
        let identity = scsi.identity()?;
        if identity.kind != MEDIUM_CHANGER {
            return Err(ChangerError::NotAChanger(path.to_owned()));
        }
        let mut changer = Self { scsi, identity, transport: 0 };
        // Only its address is wanted: some say wrong things of the arm itself. Address 0 is the changer's own choice.
        let answer = changer.ask(Kind::Transport)?;
        changer.transport = elements::first_address(&answer).unwrap_or(0);
        Ok(changer)
    }

    /// What the changer says of its elements of one kind. More than one kind at a time not every changer answers rightly.
    fn ask(&self, kind: Kind) -> Result<Vec<u8>, ChangerError> {
        let request = |len: usize| {
            let [_, a, b, c] = u32::try_from(len).unwrap_or(u32::MAX).to_be_bytes();
            [READ_ELEMENT_STATUS, VOLUME_TAGS | kind.code(), 0, 0, 0xff, 0xff, 0, a, b, c, 0, 0]
        };
        let mut header = [0; elements::HEADER_BYTES];
        self.scsi.execute(&request(header.len()), &mut header, scsi::ASK_MSECS)?;
        let mut answer = vec![0; elements::announced(&header).min(ANSWER_BYTES_MAX)];
        // How much has come the header tells again; host adapters do not always know.
        self.scsi.execute(&request(answer.len()), &mut answer, scsi::ASK_MSECS)?;
        Ok(answer)
    }

    /// Which tape is where.
    ///
    /// # Errors
    /// It does not answer.
    pub fn inventory(&self) -> Result<Inventory, ChangerError> {
        let of = |kind: Kind| self.ask(kind).map(|answer| elements::parse(kind, &answer));
        let mut slots = of(Kind::Storage)?;
        slots.extend(of(Kind::ImportExport)?);
        Ok(Inventory { slots, drives: of(Kind::Drive)? })
    }

    /// Takes a tape from one address to another.
    fn carry(&self, from: u16, to: u16) -> Result<(), ChangerError> {
        let ([a, b], [c, d], [e, f]) = (self.transport.to_be_bytes(), from.to_be_bytes(), to.to_be_bytes());
        let command = [MOVE_MEDIUM, 0, a, b, c, d, e, f, 0, 0, 0, 0];
        self.scsi.execute(&command, &mut [], scsi::MOVE_MSECS).map(drop)?;
        tracing::info!(from, to, "the changer has moved a tape");
        Ok(())
    }

    /// Puts the tape of a slot into a drive.
    ///
    /// # Errors
    /// Slot or drive are not there, or not as they must be; then nothing was moved.
    pub fn load(&self, slot: u32, drive: u32) -> Result<(), ChangerError> {
        let inventory = self.inventory()?;
        let from = inventory.slot(slot)?;
        let to = inventory.drive(drive)?;
        match (from.full, to.full) {
            (false, _) => Err(ChangerError::SlotEmpty(slot)),
            (true, true) => Err(ChangerError::DriveFull(drive)),
            (true, false) => self.carry(from.address, to.address),
        }
    }

    /// Takes the tape out of a drive: into this slot, or to where it came from, or where there is room. Gives the number of the slot.
    ///
    /// # Errors
    /// The drive is empty, holds the tape (it must be ejected first), or there is no room.
    pub fn unload(&self, drive: u32, slot: Option<u32>) -> Result<u32, ChangerError> {
        let inventory = self.inventory()?;
        let from = inventory.drive(drive)?;
        if !from.full {
            return Err(ChangerError::DriveEmpty(drive));
        }
        let slot = match slot {
            Some(slot) => slot,
            None => inventory.home(from).ok_or(ChangerError::NoRoom)?,
        };
        self.carry(from.address, inventory.slot(slot)?.address)?;
        Ok(slot)
    }

    /// Makes it look at every place anew: after it was opened and tapes were put in by hand.
    ///
    /// # Errors
    /// It does not answer, or within an hour is not done.
    pub fn look(&self) -> Result<(), ChangerError> {
        Ok(self.scsi.execute(&[INITIALIZE_ELEMENT_STATUS, 0, 0, 0, 0, 0], &mut [], LOOK_MSECS).map(drop)?)
    }
}

impl Inventory {
    fn slot(&self, number: u32) -> Result<&Element, ChangerError> {
        let index = number.checked_sub(1).and_then(|index| usize::try_from(index).ok());
        index.and_then(|index| self.slots.get(index)).ok_or(ChangerError::NoSlot(number))
    }

    fn drive(&self, number: u32) -> Result<&Element, ChangerError> {
        let index = usize::try_from(number).ok();
        index.and_then(|index| self.drives.get(index)).ok_or(ChangerError::NoDrive(number))
    }

    /// The slot in which the tape with this barcode is.
    ///
    /// # Errors
    /// It is in none.
    pub fn slot_of(&self, barcode: &str) -> Result<u32, ChangerError> {
        let found = (1..).zip(&self.slots).find(|(_, slot)| slot.barcode.as_deref() == Some(barcode));
        found.map(|(number, _)| number).ok_or_else(|| ChangerError::NoBarcode(barcode.to_owned()))
    }

    /// Where the tape of this drive came from, if that is still empty; else the first empty slot inside.
    fn home(&self, drive: &Element) -> Option<u32> {
        let empty = || (1..).zip(&self.slots).filter(|(_, slot)| !slot.full);
        let origin = empty().find(|(_, slot)| drive.source == Some(slot.address));
        let inside = || empty().find(|(_, slot)| slot.kind == Kind::Storage);
        origin.or_else(inside).map(|(number, _)| number)
    }
}
