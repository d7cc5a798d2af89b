//! Rows packed in columns.
//!
//! Owns: the packing of one chunk of rows. Called by: `roll` (packs), `view` (unpacks when someone looks). Never: knows what
//! the rows are of.
//!
//! A column is the least value, then how far each is above it in as few octets as the largest needs: UIDs, dates and modseqs
//! of neighbours differ little.

use super::flags::Flags;
use super::view::{MessageId, Row};
use crate::message::pack::{Malformed, Packer, Unpacker};

/// Packs rows; how many they are is not said.
pub(super) fn pack(rows: &[Row]) -> Vec<u8> {
    let mut out = Packer::with_capacity(rows.len() * 8);
    pack_column(&mut out, rows, |row| row.uid.into());
    pack_column(&mut out, rows, |row| row.size.into());
    pack_column(&mut out, rows, |row| row.flags.to_raw());
    pack_column(&mut out, rows, |row| row.modseq);
    pack_column(&mut out, rows, |row| row.internal_date.cast_unsigned());
    pack_column(&mut out, rows, |row| row.message.0);
    out.finish()
}

/// So many rows out of what `pack` made.
pub(super) fn unpack(packed: &[u8], len: usize) -> Result<Vec<Row>, Malformed> {
    let mut input = Unpacker::new(packed);
    let empty = Row { uid: 0, size: 0, flags: Flags::NONE, modseq: 0, internal_date: 0, message: MessageId(0) };
    let mut rows = vec![empty; len];
    unpack_column(&mut input, &mut rows, |row, value| row.uid = number32(value))?;
    unpack_column(&mut input, &mut rows, |row, value| row.size = number32(value))?;
    unpack_column(&mut input, &mut rows, |row, value| row.flags = Flags::from_raw(value))?;
    unpack_column(&mut input, &mut rows, |row, value| row.modseq = value)?;
    unpack_column(&mut input, &mut rows, |row, value| row.internal_date = value.cast_signed())?;
    unpack_column(&mut input, &mut rows, |row, value| row.message = MessageId(value))?;
    if input.is_empty() { Ok(rows) } else { Err(Malformed) }
}

/// Nothing that was packed is larger.
fn number32(value: u64) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}

fn pack_column(out: &mut Packer, rows: &[Row], value: impl Fn(&Row) -> u64) {
    let least = rows.iter().map(&value).min().unwrap_or(0);
    let width: u8 = match rows.iter().map(|row| value(row) - least).max().unwrap_or(0) {
        0 => 0,
        1..=0xff => 1,
        0x100..=0xffff => 2,
        0x1_0000..=0xffff_ffff => 4,
        _ => 8,
    };
    out.number(least);
    out.byte(width);
    for row in rows {
        let octets = (value(row) - least).to_le_bytes();
        out.raw(octets.get(..usize::from(width)).unwrap_or_default());
    }
}

fn unpack_column(input: &mut Unpacker<'_>, rows: &mut [Row], set: impl Fn(&mut Row, u64)) -> Result<(), Malformed> {
    let least = input.number()?;
    let width = input.byte()?;
    let packed = input.raw(rows.len() * usize::from(width))?;
    match width {
        0 => rows.iter_mut().for_each(|row| set(row, least)),
        1 => spread::<1>(packed, least, rows, set),
        2 => spread::<2>(packed, least, rows, set),
        4 => spread::<4>(packed, least, rows, set),
        8 => spread::<8>(packed, least, rows, set),
        _ => return Err(Malformed),
    }
    Ok(())
}

fn spread<const WIDTH: usize>(packed: &[u8], least: u64, rows: &mut [Row], set: impl Fn(&mut Row, u64)) {
    for (row, octets) in rows.iter_mut().zip(packed.as_chunks::<WIDTH>().0) {
        let mut value = [0; 8];
        if let Some(low) = value.first_chunk_mut::<WIDTH>() {
            *low = *octets;
        }
        set(row, least.wrapping_add(u64::from_le_bytes(value)));
    }
}
