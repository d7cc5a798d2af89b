//! Answers of changers, good and bad.

use super::*;

/// One descriptor with a tag, of 52 octets as most have.
fn descriptor(address: u16, flags: u8, tag: &str) -> Vec<u8> {
    let mut octets = address.to_be_bytes().to_vec();
    octets.extend([flags, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    octets.extend(format!("{tag:<32}").into_bytes());
    octets.resize(52, 0);
    octets
}

fn page(code: u8, flags: u8, len: u16, body: &[u8]) -> Vec<u8> {
    let mut page = vec![code, flags];
    page.extend(len.to_be_bytes());
    page.extend(u32::try_from(body.len()).unwrap().to_be_bytes());
    page.extend(body);
    page
}

fn answer(first: u16, count: u16, pages: &[u8]) -> Vec<u8> {
    let mut answer = first.to_be_bytes().to_vec();
    answer.extend(count.to_be_bytes());
    answer.extend(u32::try_from(pages.len()).unwrap().to_be_bytes());
    answer.extend(pages);
    answer
}

fn slots() -> Vec<u8> {
    let body = [
        descriptor(1001, FULL | ACCESS, "FIFE02L5"),
        descriptor(1000, FULL | ACCESS, "FIFE01L5"),
        descriptor(1002, ACCESS, "GHOST"),
    ];
    answer(1000, 3, &page(2, HAS_TAG, 52, &body.concat()))
}

fn told(data: &[u8]) -> Vec<(u16, Option<String>)> {
    parse(Kind::Storage, data).into_iter().map(|element| (element.address, element.barcode)).collect()
}

#[test]
fn slots_are_told_in_the_order_of_their_addresses() {
    let expected = [(1000, Some("FIFE01L5".to_owned())), (1001, Some("FIFE02L5".to_owned())), (1002, None)];
    assert_eq!(told(&slots()), expected);
    assert_eq!(first_address(&slots()), Some(1000));
    assert!(parse(Kind::Drive, &slots()).is_empty());
}

#[test]
fn a_drive_tells_where_its_tape_came_from() {
    let mut octets = descriptor(1, FULL | ACCESS | EXCEPT, "FIFE01L5");
    octets[4..6].copy_from_slice(&[0x30, 0x03]);
    octets[9..12].copy_from_slice(&[SOURCE_VALID, 0x03, 0xe8]);
    let drives = parse(Kind::Drive, &answer(1, 1, &page(4, HAS_TAG, 52, &octets)));
    assert_eq!(drives.len(), 1);
    assert_eq!((drives[0].source, drives[0].fault), (Some(1000), Some((0x30, 0x03))));
}

#[test]
fn an_answer_that_is_cut_off_or_lies_is_read_as_far_as_it_goes() {
    let whole = slots();
    for len in 0..whole.len() {
        let complete = len.saturating_sub(16) / 52;
        assert_eq!(told(&whole[..len]).len(), complete, "{len}");
    }
    let mut longer = whole.clone();
    longer[5..8].fill(0xff);
    longer[13..16].fill(0xff);
    assert_eq!(told(&longer), told(&whole));
    // Descriptors of no length, or too short for an address and flags.
    for len in [0, 1, 11] {
        assert!(told(&answer(0, 1, &page(2, HAS_TAG, len, &[0xff; 200]))).is_empty(), "{len}");
    }
    // Pages of no length: the data ends all the same.
    assert!(told(&answer(0, 9, &page(2, HAS_TAG, 52, &[]).repeat(1000))).is_empty());
    // One place told a thousand times is one place.
    let body = descriptor(5, FULL, "A").repeat(1000);
    assert_eq!(told(&answer(5, 1000, &page(2, HAS_TAG, 52, &body))).len(), 1);
    assert_eq!(first_address(&answer(7, 0, &[])), None);
    assert_eq!(first_address(&[]), None);
}

#[test]
fn barcodes_cannot_steer_a_terminal() {
    let body = descriptor(5, FULL, "\x1b[2JA");
    assert_eq!(told(&answer(5, 1, &page(2, HAS_TAG, 52, &body))), [(5, Some("?[2JA".to_owned()))]);
    // Without tags, what stands there is something else.
    assert_eq!(told(&answer(5, 1, &page(2, 0, 52, &body))), [(5, None)]);
}
