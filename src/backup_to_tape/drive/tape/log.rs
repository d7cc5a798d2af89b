//! What a tape drive says of itself: TapeAlert flags, and counters of the drive and of the tape in it.
//!
//! Owns: the log pages. Called by: `tape`. Never: does I/O. Pages come from a device and are hostile: what does not fit is passed over.
//! Spec: SPC-4 section 7.3 (log pages), SSC-4 section 8.2 (sequential-access, volume statistics, TapeAlert).

#[cfg(test)]
mod tests;

use serde::Serialize;

pub(super) const SEQUENTIAL_ACCESS: u8 = 0x0c;
pub(super) const VOLUME_STATISTICS: u8 = 0x17;
pub(super) const TAPE_ALERT: u8 = 0x2e;
const PAGE_MASK: u8 = 0x3f;
const HEADER_BYTES: usize = 4;

/// How much an alert matters (SSC-4 annex A).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    Information,
    Warning,
    Critical,
}

/// A flag that the drive has raised.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Alert {
    /// TapeAlert's number of it, from 1.
    pub number: u16,
    pub severity: Severity,
    pub says: &'static str,
}

/// A counter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Counter {
    pub name: &'static str,
    pub value: u64,
}

/// What is known of the health of a drive and of the tape in it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Health {
    /// `None`: this drive has no TapeAlert.
    pub alerts: Option<Vec<Alert>>,
    pub counters: Vec<Counter>,
}

/// One parameter of a log page.
struct Parameter<'a> {
    code: u16,
    value: &'a [u8],
}

/// The parameters of this page, as far as they are whole.
fn parameters(page: u8, data: &[u8]) -> impl Iterator<Item = Parameter<'_>> {
    let is_page = data.first().is_some_and(|code| code & PAGE_MASK == page);
    let announced = data.get(2..HEADER_BYTES).and_then(|length| length.try_into().ok()).map_or(0, u16::from_be_bytes);
    let end = data.len().min(HEADER_BYTES + usize::from(announced));
    let mut rest = data.get(HEADER_BYTES..end).filter(|_| is_page).unwrap_or_default();
    std::iter::from_fn(move || {
        let ([high, low, _, len], after) = rest.split_first_chunk()?;
        let (value, after) = after.split_at_checked(usize::from(*len))?;
        rest = after;
        Some(Parameter { code: u16::from_be_bytes([*high, *low]), value })
    })
}

/// The alerts in a TapeAlert page, worst first.
pub(super) fn alerts(data: &[u8]) -> Vec<Alert> {
    let raised =
        parameters(TAPE_ALERT, data).filter(|parameter| parameter.value.first().is_some_and(|flag| flag & 1 == 1));
    let mut alerts: Vec<Alert> = raised
        .filter_map(|parameter| {
            let (_, severity, says) = ALERTS.iter().find(|(number, ..)| *number == parameter.code)?;
            Some(Alert { number: parameter.code, severity: *severity, says })
        })
        .collect();
    alerts.sort_by_key(|alert| (std::cmp::Reverse(alert.severity), alert.number));
    alerts.dedup();
    alerts
}

/// The counters that a page has, of those that are known here.
pub(super) fn counters(page: u8, data: &[u8]) -> Vec<Counter> {
    let known: &[(u16, &str)] = match page {
        SEQUENTIAL_ACCESS => &DRIVE_COUNTERS,
        VOLUME_STATISTICS => &VOLUME_COUNTERS,
        _ => &[],
    };
    let counter = |parameter: Parameter<'_>| {
        let (_, name) = known.iter().find(|(code, _)| *code == parameter.code)?;
        Some(Counter { name, value: number(parameter.value)? })
    };
    parameters(page, data).filter_map(counter).take(known.len()).collect()
}

/// Big-endian, of any length that fits. All ones means that it is not known.
fn number(value: &[u8]) -> Option<u64> {
    if value.is_empty() || value.len() > size_of::<u64>() || value.iter().all(|octet| *octet == 0xff) {
        return None;
    }
    Some(value.iter().fold(0, |number, octet| number << 8 | u64::from(*octet)))
}

/// SSC-4 table 58: of the drive.
const DRIVE_COUNTERS: [(u16, &str); 4] = [
    (0x0000, "octets taken for writing"),
    (0x0001, "octets written to tape"),
    (0x0002, "octets read from tape"),
    (0x0003, "octets given for reading"),
];

/// SSC-4 table 75: of the tape in it.
const VOLUME_COUNTERS: [(u16, &str); 6] = [
    (0x0001, "times this tape was loaded"),
    (0x0004, "writes that failed on this tape"),
    (0x0009, "reads that failed on this tape"),
    (0x0010, "megabytes ever written to this tape"),
    (0x0011, "megabytes ever read from this tape"),
    (0x0016, "megabytes that this tape takes"),
];

use Severity::{Critical, Information, Warning};

/// SSC-4 annex A, in our words. Numbers that only loaders raise are not here.
const ALERTS: [(u16, Severity, &str); 51] = [
    (1, Warning, "the drive has trouble reading"),
    (2, Warning, "the drive has trouble writing"),
    (3, Warning, "a read or write failed: the tape or the drive is bad"),
    (4, Critical, "the tape is bad: copy what can be read and throw it away"),
    (5, Critical, "reading fails: the tape or the drive is bad"),
    (6, Critical, "writing fails: the tape or the drive is bad"),
    (7, Warning, "the tape is worn out: copy it to another"),
    (8, Warning, "the tape is not of data grade"),
    (9, Critical, "the tape is write-protected"),
    (10, Information, "the tape cannot be ejected: the drive is in use"),
    (11, Information, "it is a cleaning tape"),
    (12, Information, "the format of the tape is not supported"),
    (13, Critical, "the tape has snapped, and can be taken out"),
    (14, Critical, "the tape has snapped, and cannot be taken out"),
    (15, Warning, "the memory chip of the tape has failed"),
    (16, Critical, "the tape was ejected by hand while it was in use"),
    (17, Warning, "the tape can only be read in this drive"),
    (18, Warning, "the directory of the tape is damaged: finding places takes longer"),
    (19, Information, "the tape is nearly worn out"),
    (20, Critical, "clean the drive now"),
    (21, Warning, "the drive is due for cleaning"),
    (22, Critical, "the cleaning tape is used up"),
    (23, Critical, "this cleaning tape does not fit the drive"),
    (24, Warning, "the tape wants to be retensioned"),
    (25, Warning, "one of the drive's ports has failed"),
    (26, Warning, "a fan of the drive fails"),
    (27, Warning, "a power supply of the drive fails"),
    (28, Warning, "the drive draws more power than it should"),
    (29, Warning, "the drive is due for maintenance"),
    (30, Critical, "the drive has a fault: reset it"),
    (31, Critical, "the drive has a fault: switch it off and on"),
    (32, Warning, "the cable or the connection to the drive is bad"),
    (33, Critical, "the drive wants the tape to be ejected and put in again"),
    (34, Warning, "new firmware was not taken"),
    (35, Warning, "it is too humid for the drive"),
    (36, Warning, "it is too warm or too cold for the drive"),
    (37, Warning, "the drive's voltage is out of bounds"),
    (38, Critical, "the drive will fail soon"),
    (39, Warning, "the drive wants to be diagnosed"),
    (49, Information, "the tape has lost capacity"),
    (50, Warning, "statistics of the tape were lost"),
    (51, Warning, "the directory of the tape was not written when it was taken out"),
    (52, Critical, "the tape's system area cannot be written: copy it to another"),
    (53, Critical, "the tape's system area cannot be read: copy it to another"),
    (54, Critical, "the beginning of data on the tape is not found"),
    (55, Critical, "the tape cannot be loaded"),
    (56, Critical, "the tape cannot be unloaded"),
    (57, Critical, "the connection to the library has failed"),
    (58, Warning, "the drive's firmware has failed"),
    (59, Warning, "the write-once tape does not prove intact"),
    (60, Warning, "it was tried to write over a write-once tape"),
];
