//! Whether a drive, and the volume in it, do what backups rely on: for whoever installs one.
//!
//! Owns: what is tried, and in which order. Called by: `fife backup drive test`. Never: writes over a volume that is not blank, unless told to.

use super::{Drive, DriveError, Place, Reading, Written};

/// Blocks of the tape files that are written first.
const FILES: [u32; 3] = [3, 5, 1];
/// Places that are sought, in this order: on and back, near and far, also where a tape file ends.
const SOUGHT: [(u32, u32); 9] = [(1, 3), (0, 1), (2, 0), (1, 0), (1, 4), (0, 2), (1, 2), (0, 0), (2, 0)];
/// So many blocks are written between file marks when a volume is filled.
const FILL_FILE_BLOCKS: u32 = 256;

/// So many have their place behind the early warning.
const TRAILER_BLOCKS: u32 = 4;

/// What is tried.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// Write over what is on the volume.
    pub overwrite: bool,
    /// Write up to the early warning of the volume's end and read it all.
    pub fill: bool,
}

/// What came of it.
#[derive(Debug, thiserror::Error)]
pub enum ExerciseError {
    #[error("the volume is not blank; --overwrite writes over what is on it")]
    NotBlank,
    #[error("{step}: {source}")]
    Drive { step: &'static str, source: DriveError },
    #[error("{step}: at {place}: expected {expected}, but there is {found}")]
    Wrong { step: &'static str, place: Place, expected: String, found: String },
}

/// Tries everything; `tell` is told of each step when it has gone well. The volume is blank in the end.
///
/// # Errors
/// The first thing that is not as it must be.
pub fn run(drive: &mut Drive, options: Options, tell: &mut dyn FnMut(&str)) -> Result<(), ExerciseError> {
    let mut exercise = Exercise { step: "looking at the volume", drive };
    let is_blank = exercise.call(Drive::is_blank)?;
    if !is_blank && !options.overwrite {
        return Err(ExerciseError::NotBlank);
    }
    exercise.write_and_read()?;
    tell("blocks and file marks are read back as they were written");
    exercise.seek_all()?;
    tell("every place is found, onward and backward");
    exercise.append()?;
    tell("what is appended stands behind the rest");
    exercise.cut()?;
    tell("writing in the middle ends the data there");
    if options.fill {
        tell(&exercise.fill()?);
        tell("the whole volume is read back");
    }
    exercise.step = "making the volume blank";
    exercise.call(|drive| drive.rewind())?;
    exercise.call(|drive| drive.write_marks(1))?;
    exercise.call(|drive| drive.rewind())?;
    tell("the volume is blank");
    Ok(())
}

struct Exercise<'a> {
    drive: &'a mut Drive,
    step: &'static str,
}

impl Exercise<'_> {
    fn call<T>(&mut self, act: impl FnOnce(&mut Drive) -> Result<T, DriveError>) -> Result<T, ExerciseError> {
        act(self.drive).map_err(|source| ExerciseError::Drive { step: self.step, source })
    }

    fn wrong(&self, place: Place, expected: impl Into<String>, found: impl Into<String>) -> ExerciseError {
        ExerciseError::Wrong { step: self.step, place, expected: expected.into(), found: found.into() }
    }

    /// That the drive says that it is here.
    fn stands_at(&mut self, file: u32, block: u32) -> Result<(), ExerciseError> {
        let status = self.call(Drive::status)?;
        if (status.file, status.block) == (Some(file), Some(block)) {
            return Ok(());
        }
        let said = |number: Option<u32>| number.map_or_else(|| "unknown".to_owned(), |number| number.to_string());
        let found = format!("tape file {}, block {} by the drive's count", said(status.file), said(status.block));
        Err(self.wrong(Place { file, block }, "this place", found))
    }

    fn write(&mut self, place: Place, pass: u8) -> Result<Written, ExerciseError> {
        let block = content(place, pass, self.drive.block_bytes());
        self.call(|drive| drive.write_block(&block))
    }

    fn write_file(&mut self, file: u32, blocks: u32, pass: u8) -> Result<(), ExerciseError> {
        for block in 0..blocks {
            self.write(Place { file, block }, pass)?;
        }
        Ok(())
    }

    fn expect_block(&mut self, place: Place, pass: u8) -> Result<(), ExerciseError> {
        let expected = content(place, pass, self.drive.block_bytes());
        let mut buffer = vec![0; expected.len()];
        let found = match self.call(|drive| drive.read_block(&mut buffer))? {
            Reading::Block(_) if buffer == expected => return Ok(()),
            Reading::Block(len) if len == expected.len() => "a block with other content".to_owned(),
            Reading::Block(len) => format!("a block of {len} octets"),
            other @ (Reading::Mark | Reading::EndOfData) => name(other).to_owned(),
        };
        Err(self.wrong(place, "the block that was written", found))
    }

    fn expect(&mut self, place: Place, expected: Reading) -> Result<(), ExerciseError> {
        let mut buffer = vec![0; self.drive.block_bytes()];
        let found = self.call(|drive| drive.read_block(&mut buffer))?;
        if found == expected { Ok(()) } else { Err(self.wrong(place, name(expected), name(found))) }
    }

    /// Reads whole tape files from the place where the tape stands, each with its mark.
    fn expect_files(&mut self, files: &[(u32, u32, u8)]) -> Result<(), ExerciseError> {
        for (file, blocks, pass) in files {
            for block in 0..*blocks {
                self.expect_block(Place { file: *file, block }, *pass)?;
            }
            self.expect(Place { file: *file, block: *blocks }, Reading::Mark)?;
        }
        Ok(())
    }

    fn write_and_read(&mut self) -> Result<(), ExerciseError> {
        self.step = "writing blocks and file marks";
        self.call(|drive| drive.rewind())?;
        for (file, blocks) in (0..).zip(FILES) {
            self.write_file(file, blocks, 0)?;
            self.call(|drive| drive.write_marks(1))?;
        }
        self.call(|drive| drive.write_marks(1))?;
        self.stands_at(4, 0)?;
        self.step = "reading them back";
        self.call(|drive| drive.rewind())?;
        self.stands_at(0, 0)?;
        self.expect_files(&[(0, 3, 0), (1, 5, 0), (2, 1, 0), (3, 0, 0)])?;
        self.expect(Place { file: 4, block: 0 }, Reading::EndOfData)
    }

    fn seek_all(&mut self) -> Result<(), ExerciseError> {
        self.step = "going to a place";
        for (file, block) in SOUGHT {
            self.call(|drive| drive.seek(file, block))?;
            self.stands_at(file, block)?;
            self.expect_block(Place { file, block }, 0)?;
        }
        self.call(|drive| drive.seek(1, 5))?;
        self.expect(Place { file: 1, block: 5 }, Reading::Mark)?;
        self.stands_at(2, 0)?;
        match self.drive.seek(7, 0) {
            Err(DriveError::PastEnd(_)) => Ok(()),
            Err(source) => Err(ExerciseError::Drive { step: self.step, source }),
            Ok(()) => Err(self.wrong(Place { file: 7, block: 0 }, "the end of data", "something recorded")),
        }
    }

    fn append(&mut self) -> Result<(), ExerciseError> {
        self.step = "appending";
        self.call(Drive::to_end_of_data)?;
        self.stands_at(4, 0)?;
        // Over the second of the two file marks at the end.
        self.call(|drive| drive.seek(3, 0))?;
        self.write_file(3, 2, 1)?;
        self.call(|drive| drive.write_marks(2))?;
        self.stands_at(5, 0)?;
        self.call(|drive| drive.seek(2, 0))?;
        self.expect_files(&[(2, 1, 0), (3, 2, 1), (4, 0, 0)])?;
        self.expect(Place { file: 5, block: 0 }, Reading::EndOfData)
    }

    fn cut(&mut self) -> Result<(), ExerciseError> {
        self.step = "writing in the middle";
        let place = Place { file: 1, block: 2 };
        self.call(|drive| drive.seek(place.file, place.block))?;
        self.write(place, 2)?;
        self.call(|drive| drive.write_marks(1))?;
        self.call(|drive| drive.seek(1, 1))?;
        self.expect_block(Place { file: 1, block: 1 }, 0)?;
        self.expect_block(place, 2)?;
        self.expect(Place { file: 1, block: 3 }, Reading::Mark)?;
        self.expect(Place { file: 2, block: 0 }, Reading::EndOfData)
    }

    /// Writes up to the early warning, and behind it what finishes a volume; then reads it all.
    fn fill(&mut self) -> Result<String, ExerciseError> {
        self.step = "filling the volume";
        self.call(|drive| drive.rewind())?;
        let (mut place, mut count, mut more) = (Place::START, 0_u64, None);
        while more != Some(0) {
            let is_early = self.write(place, 3)? == Written::EarlyWarning;
            place.block += 1;
            more = match more {
                None => is_early.then_some(TRAILER_BLOCKS),
                Some(more) => Some(more - 1),
            };
            count += u64::from(more.is_none());
            if place.block == FILL_FILE_BLOCKS {
                self.call(|drive| drive.write_marks(1))?;
                place = Place { file: place.file + 1, block: 0 };
            }
        }
        let warned_after = count + 1;
        self.call(|drive| drive.write_marks(1))?;
        self.step = "reading the full volume";
        self.call(|drive| drive.rewind())?;
        for file in 0..=place.file {
            let blocks = if file == place.file { place.block } else { FILL_FILE_BLOCKS };
            self.expect_files(&[(file, blocks, 3)])?;
        }
        Ok(format!("early warning after {warned_after} blocks, with room for {TRAILER_BLOCKS} more"))
    }
}

const fn name(reading: Reading) -> &'static str {
    match reading {
        Reading::Block(_) => "a block",
        Reading::Mark => "a file mark",
        Reading::EndOfData => "the end of data",
    }
}

/// Octets that no drive makes smaller, other ones at each place and in each pass.
fn content(place: Place, pass: u8, len: usize) -> Vec<u8> {
    let mut block = vec![0; len];
    let mut hash = blake3::Hasher::new();
    hash.update(&[pass]).update(&place.file.to_be_bytes()).update(&place.block.to_be_bytes());
    hash.finalize_xof().fill(&mut block);
    block
}
