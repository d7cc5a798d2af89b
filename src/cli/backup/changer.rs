//! `fife backup changer`: which tape is where, and into a drive with one.
//!
//! Owns: what is printed. Called by: `cli::backup`. Exit: 0 done, 1 the changer did not do it, 2 usage.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde::Serialize;

use super::super::{Exit, Global, print, print_json};
use super::fail;
use crate::backup_to_tape::changer::elements::{Element, Kind};
use crate::backup_to_tape::changer::{Changer, ChangerError, Inventory};

/// A media changer: a robot that puts tapes into drives.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The changer's device, as /dev/sg1. Without it, the only one of this machine.
    #[arg(long, global = true, value_name = "DEVICE")]
    changer: Option<PathBuf>,
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Tell which tape is in which slot and drive.
    Status,
    /// Put a tape into a drive.
    Load {
        /// The number of its slot, or its barcode.
        #[arg(value_name = "SLOT|BARCODE")]
        tape: String,
        /// The number of the drive, from 0.
        #[arg(long, value_name = "NUMBER", default_value_t = 0)]
        to: u32,
    },
    /// Take the tape out of a drive, to the slot where it came from. It must have been ejected: `fife backup drive eject`.
    Unload {
        /// Another slot.
        slot: Option<u32>,
        /// The number of the drive, from 0.
        #[arg(long, value_name = "NUMBER", default_value_t = 0)]
        from: u32,
    },
    /// Make the changer look at every place anew. This may take minutes.
    Look,
}

#[derive(Debug, Serialize)]
struct Place<'a> {
    number: u32,
    #[serde(flatten)]
    element: &'a Element,
}

#[derive(Debug, Serialize)]
struct Told<'a> {
    changer: String,
    drives: Vec<Place<'a>>,
    slots: Vec<Place<'a>>,
}

pub(super) fn run(global: &Global, arguments: &Arguments) -> Exit {
    match act(global, arguments) {
        Ok(()) => Exit::Done,
        Err(error) => fail(error),
    }
}

fn act(global: &Global, arguments: &Arguments) -> Result<(), ChangerError> {
    let path = arguments.changer.clone().map_or_else(Changer::find, Ok)?;
    let changer = Changer::open(&path)?;
    match &arguments.what {
        What::Status => {
            let inventory = changer.inventory()?;
            let name = format!("{} ({} {})", path.display(), changer.identity.vendor, changer.identity.product);
            let told = told(name, &inventory);
            if global.json { print_json(&told) } else { tell(&told) }
        }
        What::Load { tape, to } => {
            let slot = match tape.parse() {
                Ok(number) => number,
                Err(_) => changer.inventory()?.slot_of(tape)?,
            };
            changer.load(slot, *to)?;
            print(format_args!("the tape of slot {slot} is in drive {to}"));
        }
        What::Unload { slot, from } => {
            let slot = changer.unload(*from, *slot)?;
            print(format_args!("the tape of drive {from} is in slot {slot}"));
        }
        What::Look => changer.look()?,
    }
    Ok(())
}

fn told(changer: String, inventory: &Inventory) -> Told<'_> {
    Told { changer, drives: numbered(0, &inventory.drives), slots: numbered(1, &inventory.slots) }
}

fn numbered(first: u32, elements: &[Element]) -> Vec<Place<'_>> {
    (first..).zip(elements).map(|(number, element)| Place { number, element }).collect()
}

fn tell(told: &Told<'_>) {
    print(format_args!("changer  {}", told.changer));
    let line = |what: &str, Place { number, element }: &Place<'_>| {
        let tape = match (&element.barcode, element.full) {
            (Some(barcode), true) => barcode.as_str(),
            (None, true) => "a tape without barcode",
            (_, false) => "empty",
        };
        let door = if element.kind == Kind::ImportExport { ", behind the door" } else { "" };
        let fault = element.fault.map(|(code, qualifier)| format!(", fault {code:02x}/{qualifier:02x}"));
        print(format_args!("{what:<5} {number:>3}  {tape}{door}{}", fault.unwrap_or_default()));
    };
    told.drives.iter().for_each(|place| line("drive", place));
    told.slots.iter().for_each(|place| line("slot", place));
}
