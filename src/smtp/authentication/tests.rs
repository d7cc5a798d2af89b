//! Signatures and findings, over bytes: DNS is a table here.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::Hash;
use std::time::Instant;

use mail_auth::common::parse::TxtRecordParser;
use mail_auth::common::verify::DomainKey as PublicKey;
use mail_auth::dmarc::Policy;
use mail_auth::{AuthenticatedMessage, DkimResult, MessageAuthenticator, Parameters, ResolverCache, Txt};

use super::results::{OwnNames, field, without_forged};
use super::sign::Signers;
use super::verdict::{Disposition, Outcome, Verdict};
use super::verify::{self, AUTHOR_DOMAINS_MAX, Authors, Parsed, SIGNATURES_MAX};
use crate::config::dns::Dns;
use crate::config::smtp_authentication::{DmarcMode, DnsFailure, SmtpAuthentication};
use crate::directory::dkim::{DomainKey, KeyState, make_pair};
use crate::net::dns;

/// RFC 8463 appendix A.3: a message with a signature by each algorithm.
const RFC_8463: &str = include_str!("testdata/rfc8463.eml");
const RFC_8463_KEYS: [(&str, &str); 2] = [
    ("brisbane._domainkey.football.example.com.", "v=DKIM1; k=ed25519; p=11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="),
    (
        "test._domainkey.football.example.com.",
        "v=DKIM1; k=rsa; p=MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQDkHlOQoBTzWRiGs5V6NpP3idY6Wk08a5qhdR6wy5bdOKb2jLQiY/J16JYi0Qvx/\
         byYzCNb3W91y3FutACDfzwQ/BC/e/8uBsCR+yz1Lxj+PL6lHvqMKrM3rG4hstT5QjvHO9PzoxZyVYLzBfO2EeC3Ip3G+2kryOTIKT+l/K4w3QIDAQAB",
    ),
];

/// Records by name.
#[derive(Default)]
struct Published(HashMap<String, Txt>);

impl Published {
    fn new<'a>(records: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let parsed = |(name, text): (&str, &str)| {
            (name.to_owned(), Txt::DomainKey(PublicKey::parse(text.as_bytes()).unwrap().into()))
        };
        Self(records.into_iter().map(parsed).collect())
    }

    fn of(keys: &[DomainKey]) -> Self {
        let domain = "example.test".parse().unwrap();
        let records: Vec<_> =
            keys.iter().map(|key| (format!("{}.", key.name(&domain)), key.record().unwrap())).collect();
        Self::new(records.iter().map(|(name, text)| (name.as_str(), text.as_str())))
    }

    /// What becomes of each signature; no other record is asked for.
    async fn verify(&self, message: &[u8]) -> Vec<DkimResult> {
        let nobody = Dns { servers: vec!["127.0.0.1:1".parse().unwrap()], ..Dns::default() };
        let authenticator = MessageAuthenticator(dns::resolver(&nobody).unwrap());
        let message = AuthenticatedMessage::parse(message).unwrap();
        let parameters = Parameters::new(&message).with_txt_cache(self);
        authenticator.verify_dkim(parameters).await.iter().map(|output| output.result().clone()).collect()
    }
}

impl ResolverCache<Box<str>, Txt> for Published {
    fn get<Q>(&self, name: &Q) -> Option<Txt>
    where
        Box<str>: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        self.0
            .iter()
            .find(|(key, _)| Borrow::<Q>::borrow(&Box::<str>::from(key.as_str())) == name)
            .map(|(_, txt)| txt.clone())
    }

    fn remove<Q>(&self, _: &Q) -> Option<Txt>
    where
        Box<str>: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        None
    }

    fn insert(&self, _: Box<str>, _: Txt, _: Instant) {}
}

fn wire(text: &str) -> Vec<u8> {
    text.replace("\r\n", "\n").replace('\n', "\r\n").into_bytes()
}

const TRACE: &str =
    "Received: from a by b\r\nDate: Tue, 24 Nov 2026 03:30:00 +0000\r\nMessage-ID: <1@example.test>\r\n";
const MESSAGE: &str = "From: User One <u1@example.test>\nTo: x@elsewhere.test\nSubject: Hello,\n world\nContent-Type: text/plain\n\nDear  all, \n\nthis is it.\n\n\n";

/// The message with its signatures and all that was there before.
fn signed(keys: &[DomainKey], content: &[u8]) -> Vec<u8> {
    let signers = Signers::new(&"example.test".parse().unwrap(), keys).unwrap();
    let fields = signers.sign(TRACE.as_bytes(), content).unwrap();
    [&fields, TRACE.as_bytes(), content].concat()
}

#[tokio::test]
async fn the_example_of_rfc_8463_verifies() {
    let published = Published::new(RFC_8463_KEYS);
    assert_eq!(published.verify(&wire(RFC_8463)).await, [DkimResult::Pass, DkimResult::Pass]);
    let changed = RFC_8463.replace("hungry yet", "hungry now");
    assert!(published.verify(&wire(&changed)).await.iter().all(|result| *result != DkimResult::Pass));
}

#[tokio::test]
async fn both_signatures_hold_and_no_octet_may_change_that_a_reader_sees() {
    let keys = make_pair(&[], KeyState::Active, 1_795_491_000).unwrap();
    let published = Published::of(&keys);
    let whole = signed(&keys, &wire(MESSAGE));
    assert_eq!(
        published.verify(&whole).await,
        [DkimResult::Pass, DkimResult::Pass],
        "{}",
        String::from_utf8_lossy(&whole)
    );
    let trace_at = whole.windows(9).position(|window| window == b"Received:").unwrap();
    let body_at = whole.windows(4).position(|window| window == b"\r\n\r\n").unwrap() + 4;
    let visible = (body_at..whole.len()).filter(|at| whole[*at].is_ascii_alphanumeric());
    for at in visible {
        let mut changed = whole.clone();
        changed[at] ^= 1;
        let results = published.verify(&changed).await;
        assert!(results.iter().all(|result| matches!(result, DkimResult::Neutral(_))), "octet {at}: {results:?}");
    }
    // Header: one octet of each signed field, and every signed field once more on top (RFC 6376 section 8.15).
    let check = async |changed: Vec<u8>, what: &str| {
        let results = published.verify(&changed).await;
        assert!(results.len() == 2 && !results.contains(&DkimResult::Pass), "{what}: {results:?}");
    };
    for name in ["From", "To", "Subject", "Date", "Message-ID", "Content-Type"] {
        let text = String::from_utf8(whole.clone()).unwrap();
        let (head, tail) = text.split_at(trace_at);
        let changed = tail.replacen(&format!("\n{name}: "), &format!("\n{name}: x"), 1);
        assert_ne!(changed, tail, "{name} is there");
        check(format!("{head}{changed}").into_bytes(), name).await;
        check(format!("{name}: other@evil.test\r\n{text}").into_bytes(), name).await;
    }
    for name in ["Cc", "Reply-To", "MIME-Version", "Content-Transfer-Encoding"] {
        let text = String::from_utf8(whole.clone()).unwrap();
        check(format!("{name}: 1\r\n{text}").into_bytes(), name).await;
    }
    // What relaxed canonicalization forgives (RFC 6376 section 3.4): folding, blanks at line ends, empty lines at the end.
    let text = String::from_utf8(whole).unwrap();
    let forgiven = text.replace("Hello,\r\n world", "Hello, world").replace("Dear  all, ", "Dear all,") + "\r\n\r\n";
    assert_eq!(published.verify(forgiven.as_bytes()).await, [DkimResult::Pass, DkimResult::Pass]);
}

#[tokio::test]
async fn only_active_keys_sign() {
    let mut keys = make_pair(&[], KeyState::Active, 1_795_491_000).unwrap();
    keys[0].state = KeyState::Waiting;
    let whole = signed(&keys, &wire(MESSAGE));
    assert_eq!(Published::of(&keys).verify(&whole).await, [DkimResult::Pass]);
    assert!(
        whole.starts_with(b"DKIM-Signature: v=1; a=ed25519-sha256; s=20261124e; d=example.test; c=relaxed/relaxed;")
    );
    keys[1].state = KeyState::Retired;
    assert!(Signers::new(&"example.test".parse().unwrap(), &keys).unwrap().is_empty());
}

#[test]
fn what_a_message_may_ask_for_is_bounded() {
    let one = RFC_8463.split_once("From:").unwrap().0;
    let parsed = |text: String| {
        let content = wire(&text);
        let parsed = Parsed::new(&content);
        (parsed.message.dkim_headers.len(), parsed.ignored)
    };
    assert_eq!(parsed(RFC_8463.to_owned()), (2, 0));
    assert_eq!(parsed(one.repeat(30) + RFC_8463), (SIGNATURES_MAX, 62 - SIGNATURES_MAX));
    assert_eq!(parsed("X: y\n".repeat(2000) + RFC_8463), (0, 2));
    let many_names = RFC_8463.replace("h=from : to :\n", &format!("h=from : {}\n", "x : ".repeat(300)));
    assert_eq!(parsed(many_names), (1, 1));
    // A signature over a part of the body (l=) says nothing about the rest (RFC 6376 section 8.2).
    assert_eq!(parsed(RFC_8463.replacen("q=dns/txt;", "q=dns/txt; l=5;", 1)), (1, 0));
}

#[test]
fn every_address_in_from_is_an_author() {
    let check = |from: &str, expected: &[&str]| {
        let content = wire(&format!("{from}\n\nbody\n"));
        assert_eq!(verify::authors(&content), expected, "{from}");
    };
    check("From: A <a@x.test>", &["a@x.test"]);
    check("from: a@X.test, \"b, c\" <b@y.test>", &["a@x.test", "b@y.test"]);
    check("From: a@x.test\nFrom: b@y.test", &["a@x.test", "b@y.test"]);
    check("From: group: a@x.test, b@y.test;", &["a@x.test", "b@y.test"]);
    check("Subject: x\n\nFrom: a@x.test", &[]);
    let addresses = |count: usize| (0..count).map(|at| format!("a@d{at}.test")).collect::<Vec<_>>();
    assert_eq!(Authors::new(&addresses(AUTHOR_DOMAINS_MAX)).domains.len(), AUTHOR_DOMAINS_MAX);
    assert!(Authors::new(&addresses(AUTHOR_DOMAINS_MAX + 1)).too_many);
    assert_eq!(Authors::new(&vec!["a@EXAMPLE.test".into(); 100_000]).domains, ["example.test"]);
}

#[test]
fn findings_in_our_name_are_taken_away_and_others_stay() {
    let own = OwnNames { hostname: "Mail.Campus.test", domain: Some("example.test") };
    let check = |field: &str, is_forged: bool| {
        let others = ("Received: x\r\n", "Subject: y\r\n\r\nAuthentication-Results: example.test; spf=pass\r\n");
        let content = format!("{}{field}\r\n{}", others.0, others.1);
        let expected = is_forged.then(|| format!("{}{}", others.0, others.1).into_bytes());
        assert_eq!(without_forged(content.as_bytes(), &own), expected, "{field}");
    };
    check("Authentication-Results: mail.campus.test; spf=pass", true);
    check("authentication-RESULTS : MAIL.campus.TEST. 1; dkim=pass", true);
    check("Authentication-Results: (a (nested) comment) mail.campus.test\r\n\t(another); dkim=pass", true);
    check("Authentication-Results:\r\n \"mail.campus.test\" 1;\r\n\tdmarc=pass", true);
    check("Authentication-Results: \"mail\\.campus.test\"; dmarc=pass", true);
    check("Authentication-Results: example.test; dmarc=pass", true);
    check("Authentication-Results: mx2.example.test; dmarc=pass", true);
    check("Authentication-Results: ; dmarc=pass", true);
    check("Authentication-Results: (never ends example.test; dmarc=pass", true);
    check(&format!("Authentication-Results: {}x; dmarc=pass", "(".repeat(1000)), true);
    check("Authentication-Results: notexample.test; dmarc=pass", false);
    check("Authentication-Results: campus.test; dmarc=pass", false);
    check("Authentication-Results: elsewhere.test (example.test); dmarc=pass", false);
    check("X-Authentication-Results: example.test; dmarc=pass", false);
    let several = b"Authentication-Results: example.test; a=b\r\nA: 1\r\nAuthentication-Results: example.test\r\n\r\n";
    assert_eq!(without_forged(several, &own).as_deref(), Some(&b"A: 1\r\n\r\n"[..]));
}

#[test]
fn a_clients_words_cannot_end_the_field() {
    let results = "mx.test;\r\n\tspf=none smtp.mailfrom=a\r\nX-Evil: 1\u{85}é@x.test";
    let expected = "Authentication-Results: mx.test;\r\n\tspf=none smtp.mailfrom=a??X-Evil: 1??@x.test\r\n";
    assert_eq!(field(results, false), expected);
    assert_eq!(field(results, true), expected.replace("1??@", "1?é@"));
}

#[test]
fn policies_are_obeyed_as_the_settings_say() {
    let check = |dmarc: Outcome, policy: Policy, mode: DmarcMode, failure: DnsFailure, expected: &str| {
        let settings = SmtpAuthentication { dmarc: mode, dns_failure: failure, ..SmtpAuthentication::default() };
        let verdict = Verdict { dmarc, policy, author: "x.test".into(), ..Verdict::default() };
        assert_eq!(verdict.disposition(&settings).as_str(), expected, "{dmarc:?} {policy:?} {mode:?} {failure:?}");
    };
    use DmarcMode::{Mark, Obey};
    use DnsFailure::{Accept, Defer};
    check(Outcome::Fail, Policy::Reject, Obey, Accept, "refused");
    check(Outcome::Fail, Policy::Reject, Mark, Defer, "taken");
    check(Outcome::Fail, Policy::Quarantine, Obey, Accept, "taken");
    check(Outcome::Fail, Policy::None, Obey, Accept, "taken");
    check(Outcome::Pass, Policy::Reject, Obey, Accept, "taken");
    check(Outcome::None, Policy::None, Obey, Defer, "taken");
    check(Outcome::TempError, Policy::Reject, Obey, Accept, "taken");
    check(Outcome::TempError, Policy::None, Obey, Defer, "deferred");
    check(Outcome::PermError, Policy::None, Obey, Defer, "taken");
    let crowd = Verdict { too_many_authors: true, ..Verdict::default() };
    let obey = SmtpAuthentication::default();
    assert_eq!(crowd.disposition(&obey).as_str(), "refused");
    let verdict =
        Verdict { dmarc: Outcome::Fail, policy: Policy::Reject, author: "x.test".into(), ..Verdict::default() };
    let Disposition::Refuse(reply) = verdict.disposition(&obey) else { panic!("refused") };
    assert_eq!(reply.to_string(), "550 5.7.1 refused as the DMARC policy of x.test asks");
}

/// Messages damaged at random: nothing panics, and nothing in our name is left. Prints its seed.
#[test]
fn damaged_messages_are_survived() {
    let own = OwnNames { hostname: "mx.test", domain: Some("example.test") };
    let forged = "Authentication-Results: (c) \"mx.test\" 1; spf=pass\n";
    let whole = wire(&format!("{forged}{RFC_8463}"));
    let seed: u64 = std::env::var("FIFE_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(20_261_124);
    let mut state = seed;
    let mut next = |below: usize| {
        // xorshift64: any sequence does that is the same for the same seed.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state % u64::try_from(below).unwrap()).unwrap()
    };
    for round in 0..2000 {
        let mut damaged = whole.clone();
        for _ in 0..=next(8) {
            let at = next(damaged.len());
            match next(4) {
                0 => damaged[at] = u8::try_from(next(256)).unwrap(),
                1 => damaged.truncate(at + 1),
                2 => damaged.insert(at, b"\r\n:;=\"(\\\0\xff"[next(10)]),
                _ => {
                    let end = (at + next(200)).min(damaged.len());
                    let piece = damaged[at..end].to_vec();
                    let to = next(damaged.len());
                    damaged.splice(to..to, piece);
                }
            }
        }
        println!("seed {seed} round {round}: {:?}", String::from_utf8_lossy(&damaged));
        let kept = without_forged(&damaged, &own).unwrap_or_else(|| damaged.clone());
        assert_eq!(without_forged(&kept, &own), None, "once is enough");
        let parsed = Parsed::new(&damaged);
        assert!(parsed.message.dkim_headers.len() <= SIGNATURES_MAX);
    }
}
