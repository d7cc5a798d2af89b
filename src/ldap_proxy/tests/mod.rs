//! Tests of the role's rooms, each in a file of its own.

#![expect(clippy::wildcard_enum_match_arm, reason = "whatever else comes fails the test")]

mod changes;
mod compactions;
mod dns;
mod failures;
mod filters;
mod frames;
mod passwords;
mod sessions;
mod views;

use bytes::BytesMut;
use ldap3_proto::proto::LdapOp;
use ldap3_proto::{LdapCodec, LdapFilter};
use tokio_util::codec::Decoder;

/// One BER element with the shortest length.
fn ber(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut out = vec![tag];
    match content.len() {
        len @ 0..=127 => out.push(u8::try_from(len).unwrap()),
        len => {
            let bytes: Vec<u8> = len.to_be_bytes().into_iter().skip_while(|&b| b == 0).collect();
            out.push(0x80 | u8::try_from(bytes.len()).unwrap());
            out.extend(bytes);
        }
    }
    out.extend_from_slice(content);
    out
}

/// An LDAPMessage around an operation.
fn message(id: &[u8], operation: &[u8]) -> Vec<u8> {
    ber(0x30, &[ber(0x02, id), operation.to_vec()].concat())
}

/// A filter in the way in which a client sends it: ldap3's parser of RFC 4515, over the wire.
fn filter(text: &str) -> LdapFilter {
    let tag = ldap3::parse_filter(text).unwrap_or_else(|error| panic!("{text}: {error:?}"));
    let mut filter = BytesMut::new();
    ldap3::asn1::write::encode_into(&mut filter, ldap3::asn1::ASNTag::into_structure(tag)).unwrap();
    let parts = [
        ber(0x04, b""),
        ber(0x0a, &[2]),
        ber(0x0a, &[0]),
        ber(0x02, &[0]),
        ber(0x02, &[0]),
        ber(0x01, &[0]),
        filter.to_vec(),
        ber(0x30, b""),
    ];
    let mut octets = BytesMut::from(message(&[1], &ber(0x63, &parts.concat())).as_slice());
    match LdapCodec::default().decode(&mut octets).unwrap().unwrap().op {
        LdapOp::SearchRequest(request) => request.filter,
        other => panic!("{other:?}"),
    }
}
