//! Frames: where a message ends, and what is refused before anything parses it.

use bytes::BytesMut;
use ldap3_proto::LdapCodec;
use ldap3_proto::proto::LdapOp;
use tokio_util::codec::Decoder;

use super::{ber, message};
use crate::directory::frame::{ELEMENTS_MAX, FrameError, NESTING_MAX};
use crate::ldap_proxy::frame::{Kind, head};
use crate::ldap_proxy::serve::BUSY;

const LEN_MAX: usize = 1 << 20;

fn refused(octets: &[u8]) -> FrameError {
    head(octets, LEN_MAX).expect_err("refused")
}

#[test]
fn a_whole_message_is_told_from_a_part_of_one() {
    let whole = message(&[7], &ber(0x42, b""));
    for len in 0..whole.len() {
        assert_eq!(head(&whole[..len], LEN_MAX), Ok(None), "{len} octets");
    }
    let found = head(&[whole.clone(), vec![0x99; 10]].concat(), LEN_MAX).unwrap().unwrap();
    assert_eq!((found.len, found.id, found.kind), (whole.len(), 7, Kind::Unbind));
}

#[test]
fn critical_controls_are_named() {
    let control = |parts: &[Vec<u8>]| ber(0x30, &parts.concat());
    let controls = ber(
        0xa0,
        &[
            control(&[ber(4, b"1.1"), ber(1, &[0xff]), ber(4, b"value")]),
            control(&[ber(4, b"1.2"), ber(1, &[0])]),
            control(&[ber(4, b"1.3")]),
            control(&[ber(4, b"1.4"), ber(4, b"value")]),
        ]
        .concat(),
    );
    let octets = message(&[1], &[ber(0x42, b""), controls].concat());
    assert_eq!(head(&octets, LEN_MAX).unwrap().unwrap().critical, ["1.1"]);
}

#[test]
fn what_is_not_ldap_is_refused_at_once() {
    let not_ldap = |octets: &[u8]| assert!(matches!(refused(octets), FrameError::NotLdap(_)), "{octets:02x?}");
    not_ldap(b"GET / HTTP/1.1\r\n");
    not_ldap(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc"); // a TLS handshake on the plain port
    not_ldap(&[0x30, 0x80, 0x02, 0x01, 0x01]); // indefinite length (RFC 4511 section 5.1)
    not_ldap(&[0x30, 0x85, 0, 0, 0, 0, 5]); // length of five octets
    not_ldap(&message(&[0], &ber(0x42, b""))); // 0 is the server's
    not_ldap(&message(&[0x80, 0, 0, 1], &ber(0x42, b""))); // negative
    not_ldap(&message(&[1, 0, 0, 0, 0], &ber(0x42, b"")));
    not_ldap(&message(&[], &ber(0x42, b"")));
    not_ldap(&message(&[1], &ber(0x61, b""))); // a response
    not_ldap(&message(&[1], &ber(0x7e, b""))); // no operation
    not_ldap(&message(&[1], &ber(0x62, b""))); // unbind is primitive
    not_ldap(&message(&[1], &[])); // no operation at all
    not_ldap(&message(&[1], &[ber(0x42, b""), ber(0x04, b"x")].concat())); // not controls
    not_ldap(&message(&[1], &[0x63, 0x05, 0x04])); // inner length beyond the outer
    not_ldap(&message(&[1], &ber(0x63, &[0x1f, 0x81, 0x01, 0x00]))); // long identifier
}

#[test]
fn sizes_beyond_the_bounds_are_refused() {
    assert_eq!(
        refused(&[0x30, 0x84, 0x7f, 0xff, 0xff, 0xff]),
        FrameError::TooLarge { len: 0x7fff_ffff + 6, max: LEN_MAX }
    );
    assert_eq!(
        refused(&[0x30, 0x84, 0xff, 0xff, 0xff, 0xff]),
        FrameError::TooLarge { len: 0xffff_ffff + 6, max: LEN_MAX }
    );
    let mut deep = ber(0x04, b"");
    for _ in 0..NESTING_MAX * 2 {
        deep = ber(0xa2, &deep);
    }
    assert_eq!(refused(&message(&[1], &ber(0x63, &deep))), FrameError::TooDeep);
    let many = [0x05, 0x00].repeat(ELEMENTS_MAX);
    assert_eq!(refused(&message(&[1], &ber(0x63, &many))), FrameError::TooMany);
}

#[test]
fn the_last_word_to_connections_over_the_limit_is_a_notice_of_disconnection() {
    let mut octets = BytesMut::from(BUSY);
    let message = LdapCodec::default().decode(&mut octets).unwrap().unwrap();
    assert!(octets.is_empty());
    assert_eq!(message.msgid, 0);
    let LdapOp::ExtendedResponse(response) = message.op else { panic!("extended response") };
    assert_eq!(response.res.code, ldap3_proto::LdapResultCode::Busy);
    assert_eq!(response.name.as_deref(), Some("1.3.6.1.4.1.1466.20036"));
}
