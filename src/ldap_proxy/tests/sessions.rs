//! Sessions: what a client says, what is to be done; and what it must not be able to do.

use bytes::BytesMut;
use ldap3_proto::control::LdapControl;
use ldap3_proto::proto::{
    LdapAddRequest, LdapBindCred, LdapBindRequest, LdapCompareRequest, LdapDerefAliases, LdapExtendedRequest, LdapMsg,
    LdapOp, LdapPartialAttribute, LdapPasswordModifyRequest, LdapResultCode as Code, LdapSearchRequest,
    LdapSearchScope, SaslCredentials,
};
use ldap3_proto::{LdapCodec, LdapFilter};
use tokio_util::codec::Encoder;

use super::ber;
use crate::config::hosts::Role;
use crate::ldap_proxy::access::{Office, Reads, Rights, Who, Writes};
use crate::ldap_proxy::dn::Dn;
use crate::ldap_proxy::frame::Kind;
use crate::ldap_proxy::plan::Cursor;
use crate::ldap_proxy::session::{Channel, Operation, Session, Step};

const LEN_MAX: usize = 256 * 1024;

fn encoded(message: LdapMsg) -> BytesMut {
    let mut out = BytesMut::new();
    LdapCodec::default().encode(message, &mut out).unwrap();
    out
}

fn local() -> Channel {
    Channel { is_local: true, offers_tls: true, ..Channel::default() }
}

fn ask(session: &mut Session, op: LdapOp, controls: Vec<LdapControl>) -> Step {
    session.receive(&encoded(LdapMsg::new_with_ctrls(5, op, controls)));
    session.next()
}

fn code(step: Step) -> Code {
    let Step::Reply(message) = step else { panic!("a reply, not {step:?}") };
    assert_eq!(message.msgid, 5);
    match message.op {
        LdapOp::BindResponse(response) => response.res.code,
        LdapOp::ExtendedResponse(response) => response.res.code,
        LdapOp::SearchResultDone(result)
        | LdapOp::AddResponse(result)
        | LdapOp::DelResponse(result)
        | LdapOp::CompareResult(result) => result.code,
        other => panic!("{other:?}"),
    }
}

fn simple(dn: &str, password: &str) -> LdapOp {
    let cred = LdapBindCred::Simple(password.into());
    LdapOp::BindRequest(LdapBindRequest { version: 3, dn: dn.into(), cred })
}

fn sasl(mechanism: &str, credentials: &[u8]) -> LdapOp {
    let cred = LdapBindCred::SASL(SaslCredentials { mechanism: mechanism.into(), credentials: credentials.to_vec() });
    LdapOp::BindRequest(LdapBindRequest { version: 3, dn: String::new(), cred })
}

fn search(base: &str) -> LdapOp {
    LdapOp::SearchRequest(LdapSearchRequest {
        base: base.into(),
        scope: LdapSearchScope::Subtree,
        aliases: LdapDerefAliases::Never,
        sizelimit: 10,
        timelimit: 0,
        typesonly: false,
        filter: LdapFilter::Present("objectClass".into()),
        attrs: vec!["cn".into()],
    })
}

fn extended(name: &str, value: Option<Vec<u8>>) -> LdapOp {
    LdapOp::ExtendedRequest(LdapExtendedRequest { name: name.into(), value })
}

fn user() -> Who {
    Who::User { uuid: "x".into(), dn: Dn::parse("uid=u1,o=demo").unwrap() }
}

#[test]
fn a_bind_is_checked_before_any_password_is() {
    let mut session = Session::new(local(), LEN_MAX);
    assert_eq!(code(ask(&mut session, simple("", ""), vec![])), Code::Success); // anonymous
    assert_eq!(code(ask(&mut session, simple("uid=u1,o=demo", ""), vec![])), Code::UnwillingToPerform);
    assert_eq!(code(ask(&mut session, simple("no name", "x"), vec![])), Code::InvalidDNSyntax);
    assert_eq!(code(ask(&mut session, sasl("PLAIN", b"\0u1\0x"), vec![])), Code::AuthMethodNotSupported);
    assert_eq!(code(ask(&mut session, sasl("EXTERNAL", b""), vec![])), Code::InvalidCredentials);
    let old = LdapOp::BindRequest(LdapBindRequest {
        version: 2,
        dn: String::new(),
        cred: LdapBindCred::Simple(String::new()),
    });
    assert_eq!(code(ask(&mut session, old, vec![])), Code::ProtocolError);
    let Step::Work(work) = ask(&mut session, simple("uid=u1,o=demo", "secret"), vec![]) else { panic!("work") };
    let Operation::Bind { dn, password, .. } = work.operation else { panic!("bind") };
    assert_eq!((dn.to_string().as_str(), password.reveal()), ("uid=u1,o=demo", "secret"));
}

#[test]
fn a_password_in_the_clear_is_refused_from_afar() {
    let mut session = Session::new(Channel { is_local: false, offers_tls: true, ..Channel::default() }, LEN_MAX);
    assert_eq!(code(ask(&mut session, simple("uid=u1,o=demo", "secret"), vec![])), Code::ConfidentialityRequired);
    assert!(matches!(ask(&mut session, extended("1.3.6.1.4.1.1466.20037", None), vec![]), Step::StartTls(_)));
    session.secured();
    assert!(matches!(ask(&mut session, simple("uid=u1,o=demo", "secret"), vec![]), Step::Work(_)));
    assert_eq!(code(ask(&mut session, extended("1.3.6.1.4.1.1466.20037", None), vec![])), Code::OperationsError);
}

#[test]
fn external_makes_the_owner_system_and_a_role_a_reader() {
    let unix = |uid, is_owner, role| Channel { uid: Some(uid), is_owner, role, is_local: true, ..Channel::default() };
    let check = |channel, expected: Who| {
        let mut session = Session::new(channel, LEN_MAX);
        drop(ask(&mut session, sasl("EXTERNAL", b""), vec![]));
        assert_eq!(*session.who(), expected, "{channel:?}");
    };
    check(unix(0, true, None), Who::System { uid: 0 });
    check(unix(6103, false, Some(Role::Smtp)), Who::Role { uid: 6103, role: Role::Smtp });
    check(unix(1000, false, None), Who::Anonymous);
    let mut session = Session::new(unix(0, true, None), LEN_MAX);
    assert_eq!(code(ask(&mut session, sasl("external", b"dn:uid=u1"), vec![])), Code::InvalidCredentials);
}

#[test]
fn roles_read_everything_and_private_keys_only_the_one_that_signs() {
    let reads = |role| Who::Role { uid: 1, role }.rights(Office::None);
    assert_eq!(reads(Role::Smtp), Rights { reads: Reads::Everything, writes: Writes::Nothing });
    for role in Role::ALL.into_iter().filter(|role| *role != Role::Smtp) {
        assert_eq!(reads(role), Rights { reads: Reads::AllButSecrets, writes: Writes::Nothing }, "{role}");
    }
}

#[test]
fn for_whom_a_bind_is_counts_from_roles_and_services_only() {
    let tracking = |value: Vec<u8>| LdapControl::Unknown {
        oid: "1.3.6.1.4.1.21008.108.63.1".into(),
        criticality: false,
        value: Some(value),
    };
    let texts =
        |texts: &[&str]| ber(0x30, &texts.iter().flat_map(|text| ber(0x04, text.as_bytes())).collect::<Vec<_>>());
    let good = || tracking(texts(&["192.0.2.7", "", "1.3.6.1.4.1.21008.108.63.1.3", "u1"]));
    let client = |session: &mut Session, controls| {
        let Step::Work(work) = ask(session, simple("uid=u1,o=demo", "secret"), controls) else { panic!("work") };
        let Operation::Bind { client, .. } = work.operation else { panic!("bind") };
        client.map(|ip| ip.to_string())
    };
    let told = Some("192.0.2.7".to_owned());
    let role = Channel { uid: Some(6103), role: Some(Role::Smtp), is_local: true, ..Channel::default() };
    assert_eq!(client(&mut Session::new(role, LEN_MAX), vec![good()]), told);
    assert_eq!(client(&mut Session::new(role, LEN_MAX), vec![]), None);
    for value in
        [vec![], vec![0x30], ber(0x30, &[4, 200, 1]), texts(&[]), texts(&["evil.test"]), vec![0x30, 0x80, 0, 0]]
    {
        assert_eq!(client(&mut Session::new(role, LEN_MAX), vec![tracking(value.clone())]), None, "{value:02x?}");
    }
    let far = || Channel { client: "198.51.100.1".parse().ok(), is_tls: true, ..Channel::default() };
    let own = Some("198.51.100.1".to_owned());
    let mut session = Session::new(far(), LEN_MAX);
    assert_eq!(client(&mut session, vec![good()]), own, "a stranger says what he likes");
    drop(session.bound(5, Ok((user(), Office::None))));
    assert_eq!(client(&mut session, vec![good()]), own, "and so does a user");
    drop(session.bound(5, Ok((user(), Office::Service))));
    assert_eq!(client(&mut session, vec![good()]), told, "a service is believed");
    assert_eq!(client(&mut session, vec![good()]), told, "also after it has asked about somebody");
    assert_eq!(client(&mut session, vec![]), own);
}

#[test]
fn a_failed_bind_leaves_nobody_bound() {
    let mut session = Session::new(local(), LEN_MAX);
    drop(session.bound(5, Ok((user(), Office::None))));
    assert_eq!(*session.who(), user());
    drop(ask(&mut session, simple("uid=u1,o=demo", "wrong"), vec![]));
    assert_eq!(*session.who(), Who::Anonymous, "while it is checked");
}

#[test]
fn unknown_critical_controls_are_refused_and_others_passed_over() {
    let unknown = |criticality| LdapControl::Unknown { oid: "1.2.3".into(), criticality, value: None };
    let mut session = Session::new(local(), LEN_MAX);
    assert_eq!(code(ask(&mut session, search("o=demo"), vec![unknown(true)])), Code::UnavailableCriticalExtension);
    assert!(matches!(ask(&mut session, search("o=demo"), vec![unknown(false)]), Step::Work(_)));
    let paged = LdapControl::SimplePagedResults { size: 2, cookie: b"i17".to_vec() };
    let Step::Work(work) = ask(&mut session, search("o=demo"), vec![paged]) else { panic!("work") };
    let Operation::Search(search_) = work.operation else { panic!("search") };
    assert_eq!(search_.page.unwrap().cursor, Cursor::AfterId(17));
    assert_eq!(search_.entries_max, Some(10));
    let forged = LdapControl::SimplePagedResults { size: 2, cookie: b"zzz".to_vec() };
    assert_eq!(code(ask(&mut session, search("o=demo"), vec![forged])), Code::ProtocolError);
}

#[test]
fn who_am_i_tells_and_unknown_extensions_are_protocol_errors() {
    let mut session = Session::new(local(), LEN_MAX);
    let identity = |session: &mut Session| match ask(session, extended("1.3.6.1.4.1.4203.1.11.3", None), vec![]) {
        Step::Reply(LdapMsg { op: LdapOp::ExtendedResponse(response), .. }) => response.value,
        other => panic!("{other:?}"),
    };
    assert_eq!(identity(&mut session), Some(b"".to_vec()));
    drop(session.bound(5, Ok((user(), Office::None))));
    assert_eq!(identity(&mut session), Some(b"dn:uid=u1,o=demo".to_vec()));
    assert_eq!(code(ask(&mut session, extended("1.2.3.4", None), vec![])), Code::ProtocolError);
}

#[test]
fn password_modify_is_about_oneself_or_a_named_entry() {
    let mut session = Session::new(local(), LEN_MAX);
    let nothing = LdapPasswordModifyRequest { user_identity: None, old_password: None, new_password: None };
    let op = |request: LdapPasswordModifyRequest| LdapOp::ExtendedRequest(request.into());
    assert_eq!(code(ask(&mut session, op(nothing.clone()), vec![])), Code::UnwillingToPerform); // anonymous
    drop(session.bound(5, Ok((user(), Office::None))));
    let whose = |step| match step {
        Step::Work(work) => match work.operation {
            Operation::SetPassword { dn, .. } => dn.to_string(),
            other => panic!("{other:?}"),
        },
        other => panic!("{other:?}"),
    };
    assert_eq!(whose(ask(&mut session, op(nothing.clone()), vec![])), "uid=u1,o=demo");
    let other = LdapPasswordModifyRequest { user_identity: Some("dn:uid=u2,o=demo".into()), ..nothing };
    assert_eq!(whose(ask(&mut session, op(other), vec![])), "uid=u2,o=demo");
    let garbage = extended("1.3.6.1.4.1.4203.1.11.1", Some(vec![0x30, 0x7f]));
    assert_eq!(code(ask(&mut session, garbage, vec![])), Code::ProtocolError);
}

#[test]
fn octets_behind_start_tls_end_the_connection() {
    let mut session = Session::new(local(), LEN_MAX);
    let mut octets = encoded(LdapMsg::new(5, extended("1.3.6.1.4.1.1466.20037", None)));
    octets.extend_from_slice(&encoded(LdapMsg::new(6, search("o=demo"))));
    session.receive(&octets);
    assert!(matches!(session.next(), Step::Close(Some(_))));
}

#[test]
fn requests_come_in_any_pieces_and_several_at_once() {
    let mut octets = BytesMut::new();
    for id in 1..=3 {
        octets.extend_from_slice(&encoded(LdapMsg::new(id, search("o=demo"))));
    }
    octets.extend_from_slice(&encoded(LdapMsg::new(4, LdapOp::AbandonRequest(2))));
    octets.extend_from_slice(&encoded(LdapMsg::new(5, LdapOp::UnbindRequest)));
    for size in [1, 7, 1000] {
        let mut session = Session::new(local(), LEN_MAX);
        let (mut ids, mut closed) = (Vec::new(), false);
        for piece in octets.chunks(size) {
            session.receive(piece);
            loop {
                match session.next() {
                    Step::More => break,
                    Step::Work(work) => ids.push(work.id),
                    Step::Close(None) => {
                        closed = true;
                        break;
                    }
                    other => panic!("{other:?}"),
                }
            }
        }
        assert_eq!((ids, closed), (vec![1, 2, 3], true), "pieces of {size}");
    }
}

#[test]
fn a_request_that_is_ldap_but_malformed_is_answered_and_the_connection_lives() {
    let mut session = Session::new(local(), LEN_MAX);
    // A search request that holds nothing but its base.
    session.receive(&[0x30, 0x0a, 0x02, 0x01, 0x05, 0x63, 0x05, 0x04, 0x03, b'o', b'=', b'x']);
    assert_eq!(code(session.next()), Code::ProtocolError);
    assert!(matches!(ask(&mut session, search("o=demo"), vec![]), Step::Work(_)));
}

#[test]
fn strangers_may_not_send_large_requests() {
    let attribute = LdapPartialAttribute { atype: "cn".into(), vals: vec![vec![b'x'; 100_000]] };
    let large = LdapOp::AddRequest(LdapAddRequest { dn: "o=demo".into(), attributes: vec![attribute] });
    let mut session = Session::new(local(), LEN_MAX);
    assert!(matches!(ask(&mut session, large.clone(), vec![]), Step::Close(Some(_))));
    let mut session = Session::new(local(), LEN_MAX);
    drop(session.bound(5, Ok((user(), Office::None))));
    assert!(matches!(ask(&mut session, large, vec![]), Step::Work(_)));
}

#[test]
fn compare_and_delete_name_their_entry() {
    let mut session = Session::new(local(), LEN_MAX);
    let compare =
        LdapOp::CompareRequest(LdapCompareRequest { dn: "o=demo".into(), atype: "o".into(), val: b"demo".to_vec() });
    assert!(matches!(ask(&mut session, compare, vec![]), Step::Work(work) if work.kind == Kind::Compare));
    assert_eq!(code(ask(&mut session, LdapOp::DelRequest("nonsense".into()), vec![])), Code::InvalidDNSyntax);
}

/// xorshift64*: small, seeded, the same everywhere.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        usize::try_from(self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33).unwrap() % bound
    }
}

/// Valid requests, octets of them changed, cut, doubled, at random. Invariants: no panic; the session always comes to an
/// end or to waiting for more; it never keeps more than one request of the largest size.
#[test]
fn random_damage_to_requests_ends_in_an_answer_or_a_closed_connection() {
    let seeds: Vec<BytesMut> = vec![
        encoded(LdapMsg::new(1, simple("uid=u1,ou=example.test,o=demo", "secret"))),
        encoded(LdapMsg::new(2, sasl("EXTERNAL", b""))),
        encoded(LdapMsg::new_with_ctrls(
            3,
            LdapOp::SearchRequest(LdapSearchRequest {
                base: "o=demo".into(),
                scope: LdapSearchScope::Subtree,
                aliases: LdapDerefAliases::Never,
                sizelimit: 0,
                timelimit: 0,
                typesonly: false,
                filter: super::filter("(&(|(cn=a*b*c)(!(uid>=x)))(mail~=y)(cn:dn:2.5.13.2:=z))"),
                attrs: vec!["*".into(), "+".into()],
            }),
            vec![
                LdapControl::SimplePagedResults { size: 100, cookie: b"i5".to_vec() },
                LdapControl::ManageDsaIT { criticality: true },
            ],
        )),
        encoded(LdapMsg::new(
            4,
            LdapOp::ExtendedRequest(
                LdapPasswordModifyRequest {
                    user_identity: Some("uid=u1,o=demo".into()),
                    old_password: Some("a".into()),
                    new_password: Some("b".into()),
                }
                .into(),
            ),
        )),
        encoded(LdapMsg::new(5, LdapOp::DelRequest("uid=u1,o=demo".into()))),
    ];
    let seed = 0x5eed_1dab;
    let mut random = Random(seed);
    for round in 0..200_000 {
        let mut octets = seeds[random.below(seeds.len())].to_vec();
        for _ in 0..=random.below(4) {
            let at = random.below(octets.len().max(1));
            if octets.is_empty() {
                break;
            }
            match random.below(5) {
                0 => octets[at] ^= 1 << random.below(8),
                1 => octets[at] = u8::try_from(random.below(256)).unwrap(),
                2 => drop(octets.remove(at)),
                3 => octets.insert(at, u8::try_from(random.below(256)).unwrap()),
                _ => octets.truncate(at.max(1)),
            }
        }
        let mut session = Session::new(local(), LEN_MAX);
        if random.below(2) == 0 {
            drop(session.bound(1, Ok((user(), Office::None))));
        }
        session.receive(&octets);
        let steps = std::iter::from_fn(|| match session.next() {
            Step::More | Step::Close(_) => None,
            Step::Reply(_) | Step::Work(_) | Step::StartTls(_) => Some(()),
        });
        assert!(steps.take(octets.len() + 1).count() <= octets.len(), "seed {seed:#x} round {round}: {octets:02x?}");
    }
}

/// What was logged, whatever the level.
#[derive(Clone, Default)]
struct Lines(std::sync::Arc<std::sync::Mutex<Vec<u8>>>);

impl std::io::Write for Lines {
    fn write(&mut self, line: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// ldap3_proto logs at level trace what it parses, at level error what it cannot parse.
#[test]
fn no_level_of_logging_shows_a_password() {
    let lines = Lines::default();
    let writer = lines.clone();
    let subscriber =
        tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE).with_writer(move || writer.clone());
    tracing::subscriber::with_default(subscriber.finish(), || {
        tracing::info!("the log works");
        let mut session = Session::new(local(), LEN_MAX);
        assert!(matches!(ask(&mut session, simple("uid=u1,o=demo", "open sesame"), vec![]), Step::Work(_)));
        // The version is cut off: well framed, no bind request.
        let mut octets = ber(0x04, b"uid=u1,o=demo");
        octets.extend(ber(0x80, b"open sesame"));
        session.receive(&super::message(&[5], &ber(0x60, &octets)));
        assert_eq!(code(session.next()), Code::ProtocolError);
    });
    let logged = String::from_utf8_lossy(&lines.0.lock().unwrap()).into_owned();
    assert!(logged.contains("the log works"), "{logged}");
    let bytes = format!("{:?}", b"open sesame");
    assert!(!logged.contains("sesame") && !logged.contains(bytes.trim_matches(['[', ']'])), "{logged}");
}
