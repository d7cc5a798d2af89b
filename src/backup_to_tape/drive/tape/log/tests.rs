//! Log pages as drives give them, and as none should.

use super::*;

/// A page with these parameters.
fn page(code: u8, parameters: &[(u16, &[u8])]) -> Vec<u8> {
    let mut body = Vec::new();
    for (number, value) in parameters {
        body.extend(number.to_be_bytes());
        body.extend([0x03, u8::try_from(value.len()).unwrap()]);
        body.extend(*value);
    }
    let mut page = vec![code, 0];
    page.extend(u16::try_from(body.len()).unwrap().to_be_bytes());
    page.extend(body);
    page
}

fn numbers(data: &[u8]) -> Vec<u16> {
    alerts(data).iter().map(|alert| alert.number).collect()
}

#[test]
fn raised_flags_are_told_worst_first() {
    let data = page(0x2e, &[(1, &[0]), (3, &[1]), (20, &[1]), (10, &[0x81]), (64, &[1]), (999, &[1])]);
    assert_eq!(numbers(&data), [20, 3, 10]);
    assert_eq!(alerts(&data)[0].says, "clean the drive now");
    // With the bit that says that the page was saved.
    let mut data = data;
    data[0] |= 0x80;
    assert_eq!(numbers(&data), [20, 3, 10]);
}

#[test]
fn a_page_that_is_cut_off_or_lies_is_read_as_far_as_it_goes() {
    let data = page(0x2e, &[(3, &[1]), (20, &[1])]);
    for len in 0..data.len() {
        let expected: &[u16] = if len < 9 { &[] } else { &[3] };
        assert_eq!(numbers(&data[..len]), expected, "{len}");
    }
    let mut longer = data.clone();
    longer[2..4].copy_from_slice(&[0xff, 0xff]);
    assert_eq!(numbers(&longer), [20, 3]);
    let mut shorter = data.clone();
    shorter[3] = 5;
    assert_eq!(numbers(&shorter), [3]);
    // A parameter that says that it is longer than the page.
    let mut lying = data.clone();
    lying[7] = 200;
    assert_eq!(numbers(&lying), [0_u16; 0]);
    assert_eq!(numbers(&page(0x2e, &[(20, &[])])), [0_u16; 0]);
    let other = page(0x0c, &[(3, &[1])]);
    assert_eq!(numbers(&other), [0_u16; 0]);
}

#[test]
fn counters_are_read_whatever_their_length() {
    let told = |page: u8, data: &[u8]| counters(page, data).iter().map(|counter| counter.value).collect::<Vec<_>>();
    let eight = 0x0102_0304_0506_0708_u64.to_be_bytes();
    let data = page(0x0c, &[(0, &eight), (1, &[1, 0]), (2, &[0xff, 0xff]), (3, &[0; 9]), (0x100, &[1])]);
    assert_eq!(told(0x0c, &data), [0x0102_0304_0506_0708, 256]);
    let data = page(0x17, &[(1, &[0, 0, 0, 7]), (0x16, &[0x26, 0x25, 0xa0])]);
    assert_eq!(told(0x17, &data), [7, 2_500_000]);
    // Told again and again, it does not grow without end.
    let many: Vec<(u16, &[u8])> = vec![(1, &[1]); 100];
    assert_eq!(told(0x17, &page(0x17, &many)).len(), 6);
    assert_eq!(told(0x2e, &page(0x2e, &[(1, &[1])])), [0_u64; 0]);
}

#[test]
fn every_alert_has_one_number() {
    assert!(ALERTS.windows(2).all(|pair| pair[0].0 < pair[1].0));
}
