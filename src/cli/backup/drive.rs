//! `fife backup drive`: what `mt` does, and whether a drive is fit for backups.
//!
//! Owns: what is printed. Called by: `cli::backup`. Exit: 0 done, 1 the drive did not do it, 2 usage.

use clap::{Args, Subcommand};
use serde::Serialize;

use super::super::{Exit, Global, print, print_json};
use super::fail;
use crate::backup_to_tape::drive::exercise::{self, Options};
use crate::backup_to_tape::drive::tape::{self, log::Health};
use crate::backup_to_tape::drive::{Access, Address, Drive, DriveError, Reading, Status};
use crate::backup_to_tape::scsi::{Identity, printable_lines};
use crate::base::size::Size;

/// Lines of a label that are shown, at most.
const LABEL_LINES_MAX: usize = 100;

/// A tape drive, or a directory of volumes that stands for one.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The drive: a tape device such as /dev/nst0, or a directory of volumes such as file:/srv/volumes. Without it, the only tape drive of this
    /// machine.
    #[arg(long, global = true, value_name = "ADDRESS")]
    drive: Option<Address>,
    /// Octets of a block, as of those that are on the volume.
    #[arg(long, global = true, value_name = "SIZE", default_value = "1 MiB")]
    block_size: Size,
    /// Octets that a volume takes, of a directory of volumes.
    #[arg(long, global = true, value_name = "SIZE")]
    capacity: Option<Size>,
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Tell what drive it is, what is in it, where the tape stands, and what the drive says of its health. Nothing is moved.
    Status,
    /// Rewind, and show the text at the beginning of the volume.
    Label,
    /// Go to the beginning of the volume.
    Rewind,
    /// Go to a place on the volume.
    Seek {
        /// The number of file marks before it.
        file: u32,
        /// The number of blocks between the last of those marks and it.
        #[arg(default_value_t = 0)]
        block: u32,
    },
    /// Go behind everything that is recorded, and say which place that is.
    End,
    /// Rewind, and take the volume out.
    Eject,
    /// Make ready what is in the drive; of a directory of volumes, the volume with this name.
    Load {
        volume: Option<String>,
        /// Make it: a new, blank volume.
        #[arg(long, requires = "volume")]
        new: bool,
    },
    /// Try whether drive and volume do what backups need: write, read back, file marks, positions, appending. The volume must be blank, and
    /// is blank again in the end.
    Test {
        /// Write over what is on the volume. It is lost.
        #[arg(long)]
        overwrite: bool,
        /// Also write the volume full and read it all. Of a tape, this takes hours.
        #[arg(long)]
        fill: bool,
    },
}

#[derive(Debug, Serialize)]
struct Told {
    drive: String,
    identity: Option<Identity>,
    #[serde(flatten)]
    status: Status,
    health: Option<Health>,
}

pub(super) fn run(global: &Global, arguments: &Arguments) -> Exit {
    act(global, arguments).unwrap_or_else(|exit| exit)
}

/// The drive that is meant.
fn address(arguments: &Arguments) -> Result<Address, Exit> {
    let mut address = match &arguments.drive {
        Some(address) => address.clone(),
        None => match tape::devices().as_slice() {
            [device] => Address::Tape(device.clone()),
            [] => return Err(fail("this machine has no tape drive; --drive names another kind")),
            [_, _, ..] => return Err(fail("this machine has several tape drives; --drive names one")),
        },
    };
    if let Address::File { capacity, .. } = &mut address {
        *capacity = arguments.capacity;
    }
    Ok(address)
}

fn act(global: &Global, arguments: &Arguments) -> Result<Exit, Exit> {
    let address = address(arguments)?;
    let access = match &arguments.what {
        What::Test { .. } | What::Load { new: true, .. } => Access::Write,
        What::Status
        | What::Label
        | What::Rewind
        | What::Seek { .. }
        | What::End
        | What::Eject
        | What::Load { new: false, .. } => Access::Read,
    };
    let mut drive = Drive::open(&address, access, arguments.block_size.as_len()).map_err(fail)?;
    match &arguments.what {
        What::Status => {
            let told = Told {
                drive: address.to_string(),
                identity: drive.identity().map_err(fail)?,
                status: drive.status().map_err(fail)?,
                health: drive.health().map_err(fail)?,
            };
            if global.json { print_json(&told) } else { tell(&told) }
        }
        What::Label => label(&mut drive).map_err(fail)?,
        What::Rewind => drive.rewind().map_err(fail)?,
        What::Seek { file, block } => drive.seek(*file, *block).map_err(fail)?,
        What::End => {
            drive.to_end_of_data().map_err(fail)?;
            print(place(&drive.status().map_err(fail)?));
        }
        What::Eject => drive.eject().map_err(fail)?,
        What::Load { volume, new } => match volume {
            None => drive.load(),
            Some(volume) if *new => drive.insert_blank(volume),
            Some(volume) => drive.insert(volume),
        }
        .map_err(fail)?,
        What::Test { overwrite, fill } => {
            let options = Options { overwrite: *overwrite, fill: *fill };
            exercise::run(&mut drive, options, &mut |step| print(format_args!("good  {step}"))).map_err(fail)?;
        }
    }
    Ok(Exit::Done)
}

fn label(drive: &mut Drive) -> Result<(), DriveError> {
    drive.rewind()?;
    let mut block = vec![0; drive.block_bytes()];
    match drive.read_block(&mut block)? {
        Reading::Block(len) => {
            let text = printable_lines(block.get(..len).unwrap_or_default(), LABEL_LINES_MAX);
            text.iter().for_each(print);
        }
        Reading::Mark | Reading::EndOfData => {
            print("the volume begins with no block: it is blank, or its label is lost")
        }
    }
    drive.rewind()
}

fn tell(told: &Told) {
    let Told { drive, identity, status, health } = told;
    let line = |name: &str, text: &str| print(format_args!("{name:<8}  {text}"));
    let called = identity.as_ref().map(|identity| {
        let Identity { vendor, product, revision, .. } = identity;
        format!(" ({vendor} {product}, firmware {revision})")
    });
    line("drive", &format!("{drive}{}", called.unwrap_or_default()));
    line("volume", &volume(status));
    if status.online {
        line("place", &place(status));
    }
    let Some(health) = health else { return };
    match &health.alerts {
        None => line("alerts", "this drive has no TapeAlert"),
        Some(alerts) if alerts.is_empty() => line("alerts", "none"),
        Some(alerts) => {
            for alert in alerts {
                line("alert", &format!("{:?} {}: {}", alert.severity, alert.number, alert.says).to_lowercase());
            }
        }
    }
    if status.wants_cleaning {
        line("alert", "the drive wants to be cleaned");
    }
    for counter in &health.counters {
        line("counter", &format!("{}: {}", counter.name, counter.value));
    }
}

fn place(status: &Status) -> String {
    let (Some(file), Some(block)) = (status.file, status.block) else { return "unknown: rewind it".to_owned() };
    let end = if status.at_end_of_data { "; data ends here" } else { "" };
    let early = if status.at_early_warning { "; the end of the volume is near" } else { "" };
    format!("tape file {file}, block {block}{end}{early}")
}

fn volume(status: &Status) -> String {
    if !status.loaded {
        return "none".to_owned();
    }
    let name = status.volume.as_deref().unwrap_or("one is loaded");
    let ready = if status.online { "" } else { ", not ready" };
    let protected = if status.write_protected { ", write-protected" } else { "" };
    format!("{name}{ready}{protected}")
}
