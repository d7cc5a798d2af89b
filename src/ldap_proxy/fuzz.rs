//! Hostile requests, names, entries and records for the directory. Called by: `crate::fuzz`.
//!
//! The first octet says who is at the other end and how the octets are cut.
//!
//! Invariants: no panic; every request has exactly one step, how the octets are cut changes nothing (but for StartTLS); octets that
//! wait are fewer than a request may have; a name written is read as the same name; no answer shows a password hash.

use bytes::BytesMut;

use super::change::{self, Change, Stamp};
use super::dn::Dn;
use super::entry::Entry;
use super::filter;
use super::record::{self, PUT, Record};
use super::session::{Channel, Operation, Session, Step, answer, encode};

/// Octets of a request: small, so that the bound is met.
const LEN_MAX: usize = 16 * 1024;
const HASH: &str = "{MD5}Xr4ilOzQ4PCOq3aQ0qbuaQ==";

/// Plays requests. Returns those that the store would have to carry out.
pub(crate) fn target(data: &[u8]) -> usize {
    let Some((&how, input)) = data.split_first() else { return 0 };
    let channel = Channel {
        is_local: how & 1 == 0,
        is_owner: how & 2 == 0,
        uid: Some(1000),
        offers_tls: how & 4 == 0,
        ..Channel::default()
    };
    let whole = play(input, channel, input.len().max(1));
    let piece = usize::from(how >> 3) + 1;
    let cut = play(input, channel, piece);
    let secures = |outcome: &Outcome| outcome.steps.iter().any(|step| step.starts_with("StartTls"));
    if !secures(&whole) && !secures(&cut) {
        assert_eq!(cut, whole, "cut in pieces of {piece}");
    }
    name(input);
    whole.steps.iter().filter(|step| step.starts_with("Work")).count()
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Outcome {
    steps: Vec<String>,
    said: Vec<u8>,
}

fn play(input: &[u8], channel: Channel, piece: usize) -> Outcome {
    let mut session = Session::new(channel, LEN_MAX);
    let (mut outcome, mut said) = (Outcome::default(), BytesMut::new());
    'all: for part in input.chunks(piece) {
        session.receive(part);
        loop {
            let step = session.next();
            if !matches!(step, Step::More) {
                outcome.steps.push(format!("{step:?}"));
            }
            match step {
                Step::More => break,
                Step::Reply(message) => encode(message, &mut said),
                Step::StartTls(message) => {
                    encode(message, &mut said);
                    break 'all;
                }
                Step::Close(message) => {
                    if let Some(message) = message {
                        encode(message, &mut said);
                    }
                    break 'all;
                }
                Step::Work(work) => {
                    carry_out(work.operation);
                    encode(answer(work.id, work.kind, Ok(())), &mut said);
                }
            }
        }
    }
    outcome.said = said.to_vec();
    outcome
}

/// A user, as the directory has them.
fn user() -> Entry {
    let mut entry = Entry::new(Dn::parse("uid=u1,ou=example.test,o=demo").unwrap());
    for (name, value) in [
        ("objectClass", "inetOrgPerson"),
        ("structuralObjectClass", "inetOrgPerson"),
        ("uid", "u1"),
        ("cn", "U One"),
        ("sn", "One"),
        ("mail", "u1@example.test"),
        ("userPassword", HASH),
    ] {
        entry.set(name, value);
    }
    entry
}

fn carry_out(operation: Operation) {
    let stamp = Stamp { unix_millis: 1_795_491_065_000, author: "uid=fuzz".into() };
    match operation {
        Operation::Search(search) => {
            filter::matches(&search.filter, &user());
            let shown = format!("{:?}", search.selection.show(&user().with_derived()));
            assert!(!shown.contains("Xr4ilOz"), "{shown}");
        }
        Operation::Change(Change::Add { dn, attributes }) => {
            if let Ok(entry) = change::added(&dn, attributes, "00000000-0000-4000-8000-000000000000", &stamp) {
                kept(&Record::Put(entry));
            }
        }
        Operation::Change(Change::Modify { modifications, .. }) => {
            if let Ok(entry) = change::modified(&user(), modifications, &stamp) {
                kept(&Record::Put(entry));
            }
        }
        Operation::Change(Change::Rename { rdn, delete_old, superior, .. }) => {
            let new = Dn::child(&superior.unwrap_or_default(), rdn);
            if let Ok(entry) = change::renamed(&user(), new, delete_old, &stamp) {
                kept(&Record::Put(entry));
            }
        }
        Operation::Bind { .. }
        | Operation::Change(Change::Delete { .. })
        | Operation::Compare { .. }
        | Operation::SetPassword { .. } => {}
    }
}

/// What the ledger is given reads as what was given.
fn kept(record: &Record) {
    let again = Record::parse(record.kind(), &record.payload().unwrap());
    assert_eq!(&again.unwrap(), record);
}

fn name(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    if let Ok(dn) = Dn::parse(text) {
        let written = dn.to_string();
        assert!(!written.contains(char::is_control), "{written:?}");
        let again = Dn::parse(&written).unwrap_or_else(|error| panic!("{written:?}: {error}"));
        assert_eq!((again.key(), &again), (dn.key(), &dn), "{written:?}");
    }
}

/// Reads the octets as a record. Returns 1 when they are one.
pub(crate) fn record(data: &[u8]) -> usize {
    let Ok(entry) = record::from_json(data) else { return usize::from(Record::parse(record::DELETE, data).is_ok()) };
    let record = Record::Put(entry);
    let again = Record::parse(PUT, &record.payload().unwrap()).unwrap();
    assert_eq!(again, record);
    1
}
