//! Changes on a small directory in memory: what is done, what is refused and with which code.

use ldap3_proto::LdapResultCode as Code;
use ldap3_proto::proto::LdapModifyType as Type;

use crate::ldap_proxy::change::{Change, Modification, Stamp};
use crate::ldap_proxy::dn::Dn;
use crate::ldap_proxy::entry::Entry;
use crate::ldap_proxy::record::Record;
use crate::ldap_proxy::rules::Broken;
use crate::ldap_proxy::view::View;
use crate::ldap_proxy::writer::apply;

const HASH: &str = "{MD5}Xr4ilOzQ4PCOq3aQ0qbuaQ==";

struct Tree {
    view: View,
    millis: u64,
}

impl Tree {
    fn new() -> Self {
        let mut tree = Self { view: View::in_memory(), millis: 1_000_000 };
        tree.done(add("o=demo", &[("objectClass", "organization")]));
        tree.done(domain("example.test"));
        tree.done(domain("other.test"));
        tree.done(user("u1", &[]));
        tree.done(alias("info", "u1@example.test"));
        tree
    }

    fn apply(&mut self, change: Change) -> Result<Record, Code> {
        self.millis += 1;
        let stamp = Stamp { unix_millis: self.millis, author: "uid=tester".into() };
        let changing = self.view.begin().unwrap();
        match apply(&changing, change, &stamp, &dn("o=demo"), 1) {
            Ok(record) => {
                changing.commit().unwrap();
                Ok(record)
            }
            Err(Broken::Refused(refusal)) => Err(refusal.code),
            Err(Broken::View(error)) => panic!("{error}"),
        }
    }

    fn done(&mut self, change: Change) {
        let shown = format!("{change:?}");
        self.apply(change).unwrap_or_else(|code| panic!("{code:?}: {shown}"));
    }

    fn refused(&mut self, change: Change, code: Code) {
        let shown = format!("{change:?}");
        assert_eq!(self.apply(change).expect_err(&shown), code, "{shown}");
    }

    fn entry(&self, name: &str) -> Option<Entry> {
        self.view.by_key(&dn(name).key()).unwrap()
    }

    fn values(&self, name: &str, attribute: &str) -> Vec<String> {
        let entry = self.entry(name).expect(name);
        entry.values(attribute).iter().map(|value| String::from_utf8(value.clone()).unwrap()).collect()
    }
}

pub(super) fn dn(text: &str) -> Dn {
    Dn::parse(text).unwrap()
}

pub(super) fn add(name: &str, attributes: &[(&str, &str)]) -> Change {
    let mut grouped: Vec<(String, Vec<Vec<u8>>)> = Vec::new();
    for (name, value) in attributes {
        match grouped.iter_mut().find(|(have, _)| have == name) {
            Some((_, values)) => values.push(value.as_bytes().to_vec()),
            None => grouped.push(((*name).to_owned(), vec![value.as_bytes().to_vec()])),
        }
    }
    Change::Add { dn: dn(name), attributes: grouped }
}

pub(super) fn domain(name: &str) -> Change {
    let classes = [("objectClass", "organizationalUnit"), ("objectClass", "domainRelatedObject")];
    add(&format!("ou={name},o=demo"), &[&classes[..], &[("associatedDomain", name)]].concat())
}

pub(super) fn user(uid: &str, more: &[(&str, &str)]) -> Change {
    let mail = format!("{uid}@example.test");
    let usual = [
        ("objectClass", "inetOrgPerson"),
        ("objectClass", "qmailUser"),
        ("cn", uid),
        ("sn", uid),
        ("mail", mail.as_str()),
    ];
    add(&format!("uid={uid},ou=example.test,o=demo"), &[&usual[..], more].concat())
}

pub(super) fn alias(name: &str, target: &str) -> Change {
    let mail = format!("{name}@example.test");
    let attributes = [
        ("objectClass", "applicationProcess"),
        ("objectClass", "qmailUser"),
        ("mail", mail.as_str()),
        ("deliveryMode", "forwardonly"),
        ("mailForwardingAddress", target),
    ];
    add(&format!("cn={name},ou=example.test,o=demo"), &attributes)
}

pub(super) fn modify(name: &str, steps: &[(Type, &str, &[&str])]) -> Change {
    let step = |(kind, name, values): &(Type, &str, &[&str])| Modification {
        kind: kind.clone(),
        name: (*name).to_owned(),
        values: values.iter().map(|value| value.as_bytes().to_vec()).collect(),
    };
    Change::Modify { dn: dn(name), modifications: steps.iter().map(step).collect() }
}

fn rename(name: &str, rdn: &str, superior: Option<&str>) -> Change {
    Change::Rename { dn: dn(name), rdn: dn(rdn).rdn().unwrap().clone(), delete_old: true, superior: superior.map(dn) }
}

const U1: &str = "uid=u1,ou=example.test,o=demo";

#[test]
fn an_added_entry_has_its_name_its_classes_and_the_servers_marks() {
    let tree = Tree::new();
    assert_eq!(tree.values(U1, "uid"), ["u1"], "taken from the name");
    assert_eq!(
        tree.values(U1, "objectClass"),
        ["inetOrgPerson", "organizationalPerson", "person", "top", "qmailUser"],
        "superior classes written out"
    );
    assert_eq!(tree.values(U1, "structuralObjectClass"), ["inetOrgPerson"]);
    assert_eq!(tree.values(U1, "creatorsName"), ["uid=tester"]);
    assert_eq!(tree.values(U1, "createTimestamp"), ["19700101001640.004Z"]);
    assert_eq!(tree.values(U1, "entryUUID")[0].len(), 36);
}

#[test]
fn an_add_against_the_schema_is_refused_with_the_right_code() {
    let mut tree = Tree::new();
    tree.refused(user("u1", &[]), Code::EntryAlreadyExists);
    tree.refused(user("u2", &[("noSuchType", "x")]), Code::UndefinedAttributeType);
    tree.refused(user("u2", &[("associatedDomain", "x.test")]), Code::ObjectClassViolation); // not allowed by the classes
    tree.refused(user("u2", &[("mailQuotaSize", "much")]), Code::InvalidAttributeSyntax);
    tree.refused(user("u2", &[("mailQuotaSize", "1"), ("mailQuotaSize", "2")]), Code::ConstraintViolation);
    tree.refused(user("u2", &[("mailAlternateAddress", "nonsense")]), Code::InvalidAttributeSyntax);
    tree.refused(user("u2", &[("title", "a"), ("title", "A")]), Code::AttributeOrValueExists); // the same
    tree.refused(user("u2", &[("accountStatus", "asleep")]), Code::InvalidAttributeSyntax);
    tree.refused(user("u2", &[("entryUUID", "f81d4fae-7dec-11d0-a765-00a0c91e6bf6")]), Code::ConstraintViolation);
    tree.refused(user("u2", &[("userPassword", "not hashed")]), Code::ConstraintViolation);
    tree.refused(user("u2", &[("objectClass", "noSuchClass")]), Code::ObjectClassViolation);
    tree.refused(user("u2", &[("objectClass", "applicationProcess")]), Code::ObjectClassViolation); // two structural ones
    tree.refused(user("u2", &[("description", &"x".repeat(5000))]), Code::ConstraintViolation);
    let no_surname =
        [("objectClass", "inetOrgPerson"), ("objectClass", "qmailUser"), ("cn", "x"), ("mail", "u2@example.test")];
    tree.refused(add("uid=u2,ou=example.test,o=demo", &no_surname), Code::ObjectClassViolation);
    tree.done(user("u2", &[("userPassword", HASH), ("objectClass", "fifeObject"), ("fifeRole", "administrator")]));
}

#[test]
fn entries_stand_where_the_tree_has_a_place_for_them() {
    let mut tree = Tree::new();
    let person = |name: &str, mail: &str| {
        add(
            name,
            &[("objectClass", "inetOrgPerson"), ("objectClass", "qmailUser"), ("cn", "x"), ("sn", "x"), ("mail", mail)],
        )
    };
    tree.refused(person("uid=x,o=demo", "x@example.test"), Code::NamingViolation);
    tree.refused(person("uid=x,uid=u1,ou=example.test,o=demo", "x@example.test"), Code::NamingViolation);
    tree.refused(person("cn=x,ou=example.test,o=demo", "x@example.test"), Code::NamingViolation);
    tree.refused(person("uid=x,ou=absent.test,o=demo", "x@absent.test"), Code::NoSuchObject);
    tree.refused(person("uid=x,ou=example.test,o=elsewhere", "x@example.test"), Code::NoSuchObject);
    tree.refused(person("uid=x,ou=example.test,o=demo", "x@other.test"), Code::ConstraintViolation);
    tree.refused(add("ou=people,o=demo", &[("objectClass", "organizationalUnit")]), Code::ObjectClassViolation);
    tree.refused(add("o=second", &[("objectClass", "organization")]), Code::NoSuchObject);
    let two =
        [("objectClass", "organizationalUnit"), ("objectClass", "domainRelatedObject"), ("associatedDomain", "b.test")];
    tree.refused(add("ou=a.test,o=demo", &two), Code::ConstraintViolation);
    tree.refused(alias("a", "not an address"), Code::InvalidAttributeSyntax);
    let to_nowhere = [
        ("objectClass", "applicationProcess"),
        ("objectClass", "qmailUser"),
        ("mail", "a@example.test"),
        ("deliveryMode", "forwardonly"),
    ];
    tree.refused(add("cn=a,ou=example.test,o=demo", &to_nowhere), Code::ConstraintViolation);
}

#[test]
fn a_user_forwards_and_keeps_no_copy_only_with_somebody_to_forward_to() {
    let mut tree = Tree::new();
    tree.refused(modify(U1, &[(Type::Replace, "deliveryMode", &["forwardonly"])]), Code::ConstraintViolation);
    tree.refused(user("u2", &[("deliveryMode", "nolocal")]), Code::ConstraintViolation);
    tree.done(modify(U1, &[(Type::Replace, "mailForwardingAddress", &["x@elsewhere.test"])]));
    tree.done(modify(U1, &[(Type::Replace, "deliveryMode", &["forwardonly"])]));
    tree.refused(modify(U1, &[(Type::Delete, "mailForwardingAddress", &[])]), Code::ConstraintViolation);
    tree.done(modify(U1, &[(Type::Replace, "deliveryMode", &["noforward"])]));
    let info = "cn=info,ou=example.test,o=demo";
    tree.refused(modify(info, &[(Type::Replace, "deliveryMode", &["noforward"])]), Code::ConstraintViolation);
}

#[test]
fn an_address_is_one_entrys_whatever_the_attribute_and_the_letter_case() {
    let mut tree = Tree::new();
    let also = |address| modify(U1, &[(Type::Add, "mailAlternateAddress", address)]);
    tree.refused(also(&["INFO@example.test"]), Code::ConstraintViolation); // the alias's
    tree.refused(also(&["u1@elsewhere.test"]), Code::ConstraintViolation); // no domain of ours
    tree.done(also(&["U.One@Other.test"]));
    tree.refused(user("u2", &[("mailAlternateAddress", "u.one@other.test")]), Code::ConstraintViolation);
    tree.done(modify(U1, &[(Type::Delete, "mailAlternateAddress", &["u.one@other.test"])]));
    tree.done(user("u2", &[("mailAlternateAddress", "u.one@other.test")]));
    tree.done(Change::Delete { dn: dn("uid=u2,ou=example.test,o=demo") });
    tree.done(alias("u2", "u1@example.test")); // the address is free again
}

#[test]
fn a_modify_is_done_as_a_whole_or_not_at_all() {
    let mut tree = Tree::new();
    tree.done(modify(U1, &[(Type::Add, "title", &["Dean", "Professor"]), (Type::Replace, "mailQuotaSize", &["1000"])]));
    assert_eq!(tree.values(U1, "title"), ["Dean", "Professor"]);
    tree.refused(modify(U1, &[(Type::Replace, "title", &["x"]), (Type::Delete, "mobile", &[])]), Code::NoSuchAttribute);
    assert_eq!(tree.values(U1, "title"), ["Dean", "Professor"]);
    tree.refused(modify(U1, &[(Type::Add, "title", &["dean"])]), Code::AttributeOrValueExists);
    tree.refused(modify(U1, &[(Type::Delete, "title", &["Rector"])]), Code::NoSuchAttribute);
    tree.done(modify(U1, &[(Type::Delete, "title", &["DEAN"]), (Type::Increment, "mailQuotaSize", &["-1"])]));
    assert_eq!(tree.values(U1, "title"), ["Professor"]);
    assert_eq!(tree.values(U1, "mailQuotaSize"), ["999"]);
    tree.refused(modify(U1, &[(Type::Increment, "title", &["1"])]), Code::ProtocolError);
    tree.refused(modify(U1, &[(Type::Replace, "sn", &[])]), Code::ObjectClassViolation); // required
    tree.refused(modify(U1, &[(Type::Delete, "uid", &["u1"])]), Code::NotALlowedOnRDN);
    tree.refused(modify(U1, &[(Type::Replace, "modifyTimestamp", &["20260101000000Z"])]), Code::ConstraintViolation);
    tree.refused(modify(U1, &[(Type::Delete, "objectClass", &["qmailUser"])]), Code::ObjectClassViolation);
    let other = [(Type::Replace, "objectClass", &["applicationProcess", "qmailUser"][..])];
    tree.refused(modify(U1, &other), Code::ObjectClassModsProhibited);
    tree.refused(modify("uid=u9,ou=example.test,o=demo", &[(Type::Replace, "title", &[])]), Code::NoSuchObject);
    let before = tree.values(U1, "modifyTimestamp");
    tree.done(modify(U1, &[(Type::Replace, "title", &[])]));
    assert!(tree.entry(U1).unwrap().values("title").is_empty());
    assert!(tree.values(U1, "modifyTimestamp") > before);
}

#[test]
fn leaves_are_deleted_and_renamed_and_what_has_children_is_not() {
    let mut tree = Tree::new();
    tree.refused(Change::Delete { dn: dn("ou=example.test,o=demo") }, Code::NotAllowedOnNonLeaf);
    tree.refused(rename("ou=example.test,o=demo", "ou=new.test", None), Code::NotAllowedOnNonLeaf);
    tree.refused(Change::Delete { dn: dn("uid=u9,ou=example.test,o=demo") }, Code::NoSuchObject);
    let uuid = tree.values(U1, "entryUUID");
    tree.done(rename(U1, "uid=u2", None));
    assert_eq!(tree.entry(U1), None);
    let renamed = "uid=u2,ou=example.test,o=demo";
    assert_eq!(tree.values(renamed, "uid"), ["u2"], "the old name is gone");
    assert_eq!(tree.values(renamed, "entryUUID"), uuid, "the mailbox stays the same");
    tree.done(user("u3", &[]));
    tree.refused(rename(renamed, "uid=u3", None), Code::EntryAlreadyExists);
    tree.refused(rename(renamed, "uid=u2", Some("ou=other.test,o=demo")), Code::ConstraintViolation); // mail is of the old domain
    tree.refused(rename(renamed, "uid=u2", Some("ou=absent.test,o=demo")), Code::NoSuchObject);
    tree.done(rename(renamed, "uid=U2", None)); // only spelled anew
    tree.done(Change::Delete { dn: dn(renamed) });
    assert_eq!(tree.entry(renamed), None);
}

#[test]
fn a_record_reads_back_as_it_was_written() {
    let mut tree = Tree::new();
    let change = modify(U1, &[(Type::Replace, "cn", &["王芳", "a\"b\\c"])]);
    let Change::Modify { dn, mut modifications } = change else { panic!("modify") };
    modifications.push(Modification {
        kind: Type::Add,
        name: "jpegPhoto".into(),
        values: vec![vec![0xff, 0xd8, 0, 1]],
    });
    let record = tree.apply(Change::Modify { dn, modifications }).unwrap();
    assert_eq!(Record::parse(record.kind(), &record.payload().unwrap()).unwrap(), record);
    assert_eq!(tree.entry(U1).unwrap().values("jpegPhoto"), [vec![0xff, 0xd8, 0, 1]]);
    for (kind, payload) in [(1, &b"{"[..]), (1, br#"{"dn":"x","attributes":{}}"#), (2, b"[]"), (3, b"{}")] {
        assert!(Record::parse(kind, payload).is_err(), "{kind} {payload:?}");
    }
}
