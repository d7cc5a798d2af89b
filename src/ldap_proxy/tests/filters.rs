//! Filters: text in, truth out.

use super::filter;
use crate::ldap_proxy::dn::Dn;
use crate::ldap_proxy::entry::Entry;
use crate::ldap_proxy::filter::{Truth, evaluate};
use crate::ldap_proxy::plan::{self, Plan};

fn entry() -> Entry {
    let mut entry = Entry::new(Dn::parse("uid=u1,ou=example.test,o=demo").unwrap());
    let mut put = |name: &str, values: &[&str]| {
        entry.attributes.insert(name.into(), values.iter().map(|value| value.as_bytes().to_vec()).collect());
    };
    put("objectClass", &["top", "person", "organizationalPerson", "inetOrgPerson", "qmailUser"]);
    put("uid", &["u1"]);
    put("cn", &["Wang Fang", "王芳"]);
    put("sn", &["Wang"]);
    put("mail", &["u1@example.test"]);
    put("mailAlternateAddress", &["Fang.Wang@example.test", "wf@example.test"]);
    put("mailQuotaSize", &["1000"]);
    put("userPassword", &["{MD5}Xr4ilOzQ4PCOq3aQ0qbuaQ=="]);
    put("fifeDkimKey", &["20261124r rsa active MIIE"]);
    put("createTimestamp", &["20261124033054.123Z"]);
    entry.with_derived()
}

fn check(text: &str, expected: Truth) {
    assert_eq!(evaluate(&filter(text), &entry()), expected, "{text}");
}

#[test]
fn assertions_compare_as_their_attributes_do() {
    use Truth::{False, True, Undefined};
    check("(uid=u1)", True);
    check("(UID=U1)", True);
    check("(userid=u1)", True); // another name of the type
    check("(0.9.2342.19200300.100.1.1=u1)", True);
    check("(uid=u2)", False);
    check("(cn=wang  fang)", True);
    check("(cn=王芳)", True);
    check("(cn~=WANG FANG)", True);
    check("(mail=U1@Example.TEST)", True);
    check("(mail=no address)", Undefined); // not a value of the attribute
    check("(mailAlternateAddress=WF@example.test)", True);
    check("(objectClass=inetorgperson)", True);
    check("(objectClass=2.16.840.1.113730.3.2.2)", True); // by number
    check("(objectClass=organization)", False);
    check("(givenName=x)", False); // known, absent
    check("(noSuchType=x)", Undefined);
    check("(entryDN=UID=u1, ou=example.test, o=demo)", True);
    check("(mailQuotaSize=1000)", True);
    check("(mailQuotaSize>=999)", True); // as numbers, not as text
    check("(mailQuotaSize>=1001)", False);
    check("(mailQuotaSize<=20000)", True);
    check("(mailQuotaSize<=abc)", Undefined);
    check("(createTimestamp>=20260101000000Z)", True);
    check("(createTimestamp<=20260101000000Z)", False);
    check("(cn=*)", True);
    check("(title=*)", False);
    check("(noSuchType=*)", Undefined);
}

#[test]
fn substrings_come_in_order_and_do_not_overlap() {
    use Truth::{False, True, Undefined};
    check("(cn=wang*)", True);
    check("(cn=*fang)", True);
    check("(cn=*ng*ng)", True);
    check("(cn=*ng*ng*ng)", False);
    check("(cn=w*g f*)", True);
    check("(cn=fang*)", False);
    check("(cn=wang fang*fang)", False); // would overlap
    check("(cn=王*)", True);
    check("(mail=u1@*)", True);
    check("(mail=*@EXAMPLE.test)", True);
    check("(mailQuotaSize=1*)", Undefined); // numbers have no substrings
}

#[test]
fn truth_has_three_values() {
    use Truth::{False, True, Undefined};
    check("(!(uid=u2))", True);
    check("(!(noSuchType=x))", Undefined);
    check("(&(uid=u1)(sn=wang))", True);
    check("(&(uid=u1)(noSuchType=x))", Undefined);
    check("(&(uid=u2)(noSuchType=x))", False);
    check("(|(uid=u1)(noSuchType=x))", True);
    check("(|(uid=u2)(noSuchType=x))", Undefined);
    check("(|(uid=u2)(uid=u3))", False);
    check("(&(|(uid=u2)(sn=wang))(!(cn=x)))", True);
}

#[test]
fn a_password_matches_nothing() {
    let undefined = |filter| check(filter, Truth::Undefined);
    undefined("(userPassword=*)");
    undefined("(userPassword={MD5}Xr4ilOzQ4PCOq3aQ0qbuaQ==)");
    undefined("(userPassword>={MD5}A)");
    undefined("(!(userPassword=*))");
    undefined("(userPassword={MD5}*)");
}

#[test]
fn a_private_key_matches_nothing_and_can_be_hidden() {
    let undefined = |filter| check(filter, Truth::Undefined);
    undefined("(fifeDkimKey=*)");
    undefined("(fifeDkimKey=20261124r rsa active MIIE)");
    undefined("(fifeDkimKey=2026*)");
    let mut shown = entry();
    shown.hide_secrets();
    assert!(shown.values("fifeDkimKey").is_empty());
    assert_eq!(shown.attributes.len() + 1, entry().attributes.len());
}

#[test]
fn equality_of_indexed_attributes_is_looked_up_and_the_rest_walks_the_tree() {
    let top = Dn::parse("o=demo").unwrap();
    let plan_of = |base: &str, filter: &str| {
        let scope = ldap3_proto::proto::LdapSearchScope::Subtree;
        plan::plan(&Dn::parse(base).unwrap(), &scope, &super::filter(filter), &top)
    };
    let index = |rows: &[(&'static str, &str)]| {
        Plan::Index(rows.iter().map(|(name, value)| (*name, (*value).into())).collect())
    };
    let check = |base, filter, expected: Plan| assert_eq!(plan_of(base, filter), expected, "{base} {filter}");
    check("o=demo", "(mail=U1@example.test)", index(&[("mail", "u1@example.test")]));
    check("ou=a,o=demo", "(uid=u1)", index(&[("uid", "u1")]));
    check(
        "o=demo",
        "(|(mail=a@b.test)(mailAlternateAddress=a@b.test))",
        index(&[("mail", "a@b.test"), ("mailAlternateAddress", "a@b.test")]),
    );
    check("o=demo", "(&(objectClass=inetOrgPerson)(cn=x)(mail=a@b.test))", index(&[("mail", "a@b.test")]));
    check("o=demo", "(&(objectClass=*)(noSuchType=x))", index(&[])); // undefined: nothing fits
    check("o=demo", "(objectClass=domainRelatedObject)", index(&[("objectClass", "domainrelatedobject")]));
    let walks = |base: &str, filter: &str| {
        let (from, to) = crate::ldap_proxy::dn::below(&Dn::parse(base).unwrap().key());
        let expected = Plan::Range(from.trim_end_matches('\u{1}').to_owned(), to);
        assert_eq!(plan_of(base, filter), expected, "{base} {filter}");
    };
    walks("o=demo", "(objectClass=*)");
    walks("o=demo", "(objectClass=inetOrgPerson)");
    walks("o=demo", "(|(mail=a@b.test)(title=x))");
    walks("o=demo", "(!(mail=a@b.test))");
    walks("ou=a,o=demo", "(ou=a)"); // tells little, and the subtree is smaller
}
