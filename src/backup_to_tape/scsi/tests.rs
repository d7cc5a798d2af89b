//! What devices answer, and what is made of it.

use super::*;

#[test]
fn sense_data_of_both_formats_is_read() {
    let check = |data: &[u8], expected: Option<(u8, u8, u8)>| {
        let sense = Sense::parse(data).map(|sense| (sense.key, sense.code, sense.qualifier));
        assert_eq!(sense, expected, "{data:x?}");
    };
    check(&[0x70, 0, 6, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0x28, 0x01], Some((6, 0x28, 1)));
    check(&[0xf1, 0, 0x43, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0x11], Some((3, 0x11, 0)));
    check(&[0x70, 0, 2], Some((2, 0, 0)));
    check(&[0x72, 0x05, 0x21, 0x01], Some((5, 0x21, 1)));
    check(&[0x72, 0x05, 0x21], None);
    check(&[0x70, 0], None);
    check(&[0x7f, 1, 2, 3], None);
    check(&[], None);
}

#[test]
fn what_a_device_calls_itself_cannot_steer_a_terminal() {
    let mut data = vec![0x88, 0x80, 5, 2, 31, 0, 0, 0];
    data.extend(b"FIFE\0\0\0\0VTL \x1b[2J\xff       1.0\0");
    let identity = identity(&data).unwrap();
    assert_eq!((identity.kind, identity.vendor.as_str()), (8, "FIFE"));
    assert_eq!((identity.product.as_str(), identity.revision.as_str()), ("VTL ?[2J?", "1.0"));
    assert!(super::identity(&data[..35]).is_none());
    assert!(super::identity(&[]).is_none());
}
