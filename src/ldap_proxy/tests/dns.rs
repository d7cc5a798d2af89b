//! Names: what is read, how it is written back, what is the same.

use crate::ldap_proxy::dn::{DN_LEN_MAX, Dn};

fn key(text: &str) -> String {
    Dn::parse(text).unwrap_or_else(|error| panic!("{text:?}: {error}")).key()
}

#[test]
fn names_that_are_the_same_have_the_same_key() {
    let same = |a: &str, b: &str| assert_eq!(key(a), key(b), "{a:?} and {b:?}");
    same("uid=u1,ou=example.test,o=demo", "UID=U1,OU=Example.Test,O=Demo");
    same("uid=u1,ou=example.test,o=demo", "  uid = u1 , ou = example.test , o = demo ");
    same("uid=u1,o=demo", "userid=u1,organizationName=demo");
    same("uid=u1,o=demo", "0.9.2342.19200300.100.1.1=u1,2.5.4.10=demo");
    same("cn=a b,o=demo", "cn=a   B,o=demo"); // runs of spaces do not count
    same(r"cn=a\,b,o=demo", r"cn=a\2Cb,o=demo");
    same(r"cn=a\+b,o=demo", r"cn=a\2bb,o=demo");
    same(r"cn=\ a,o=demo", "cn=a,o=demo"); // insignificant space handling (RFC 4518)
    same("cn=王芳,o=demo", r"cn=\E7\8E\8B\E8\8A\B3,o=demo");
    same("cn=ÄB,o=demo", "cn=äb,o=demo");
    same("cn=x+uid=y,o=demo", "uid=y+cn=x,o=demo"); // a set (RFC 4512 section 2.3.1)
    same("", "   ");
}

#[test]
fn names_that_differ_have_different_keys() {
    let differ = |a: &str, b: &str| assert_ne!(key(a), key(b), "{a:?} and {b:?}");
    differ("uid=u1,o=demo", "uid=u2,o=demo");
    differ("uid=u1,o=demo", "cn=u1,o=demo");
    differ(r"cn=a\,o\=demo", "cn=a,o=demo");
    differ("uid=u1,ou=a,o=demo", "uid=u1,o=demo");
    differ(r"cn=a\+b,o=demo", "cn=a+cn=b,o=demo");
}

#[test]
fn what_is_no_name_is_refused() {
    let refused = |text: &str| assert!(Dn::parse(text).is_err(), "{text:?}");
    refused("u1");
    refused("uid=u1,");
    refused(",o=demo");
    refused("uid=,o=demo");
    refused("=u1");
    refused("uid=u1;o=demo"); // RFC 2253 wrote ";" too; RFC 4514 wants it escaped
    refused("uid=\"u1\",o=demo");
    refused(r"uid=u1\");
    refused(r"uid=u1\4");
    refused(r"uid=u1\zz");
    refused(r"uid=\FF\FE,o=demo"); // not UTF-8
    refused(r"uid=a\00b,o=demo");
    refused("uid=a\u{1}b,o=demo");
    refused("uid=#0401,o=demo");
    refused("u id=u1");
    refused(&"ou=a,".repeat(DN_LEN_MAX));
    refused(&format!("{}o=x", "ou=a,".repeat(40)));
}

#[test]
fn a_name_is_written_so_that_it_reads_back_as_the_same() {
    for value in
        ["plain", "a,b", "a+b", "#hash", "back\\slash", "quo\"te", "a;b", "<>", "a=b", "王芳", "a  b", "u.ser@x"]
    {
        let escaped: String =
            value.chars().map(|c| if ",+\"\\<>;#=".contains(c) { format!("\\{c}") } else { c.into() }).collect();
        let dn = Dn::parse(&format!("uid={escaped},o=demo")).unwrap();
        let rdn = dn.rdn().unwrap();
        assert_eq!(rdn.pairs, [("uid".to_owned(), value.to_owned())]);
        assert_eq!(Dn::parse(&dn.to_string()).unwrap(), dn, "{value:?} as {dn}");
    }
}

#[test]
fn a_subtree_holds_what_is_below_it_and_nothing_beside() {
    let within = |dn: &str, top: &str| Dn::parse(dn).unwrap().is_within(&Dn::parse(top).unwrap());
    assert!(within("uid=u1,ou=a,o=demo", "o=demo"));
    assert!(within("uid=u1,ou=a,o=demo", "OU=A,o=Demo"));
    assert!(within("o=demo", "o=demo"));
    assert!(within("o=demo", ""));
    assert!(!within("o=demo", "ou=a,o=demo"));
    assert!(!within("uid=u1,ou=ab,o=demo", "ou=a,o=demo"));
    assert!(!within("o=demo2", "o=demo"));
}
