//! Which way mail goes, which host is tried when, and what 8-bit text becomes.

use std::net::IpAddr;
use std::sync::Arc;

use rand::SeedableRng as _;
use rand::rngs::StdRng;

use super::exchanger::{Exchanger, Unreachable, in_turn, order};
use super::route::{Key, Routes};
use super::seven_bit::{convert, convert_unsigned};
use crate::config::secret::SecretText;
use crate::config::smtp_outbound::{Route, SmtpOutbound, Tls};
use crate::smtp::envelope::{Recipient, Way};

fn hosts(text: &str) -> Vec<Exchanger> {
    let host = |word: &str| {
        let (preference, host) = word.split_once(':').unwrap();
        Exchanger { preference: preference.parse().unwrap(), host: host.to_owned() }
    };
    text.split(' ').map(host).collect()
}

#[test]
fn hosts_are_tried_by_preference_and_equals_in_any_order() {
    let mut seen = std::collections::BTreeSet::new();
    for seed in 0..50 {
        let ordered = order(hosts("20:c 10:a 10:b 5:z"), &mut StdRng::seed_from_u64(seed)).unwrap();
        seen.insert(ordered.iter().map(|host| host.host.as_str()).collect::<Vec<_>>().join(""));
    }
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), ["zabc", "zbac"]);
    let mut random = StdRng::seed_from_u64(1);
    assert!(matches!(order(hosts("0:"), &mut random), Err(Unreachable::Never(reply)) if reply.code() == 556));
    assert_eq!(order(hosts("0: 10:a"), &mut random), Ok(hosts("10:a")), "a null MX beside others says nothing");
}

#[test]
fn both_protocols_have_their_turn() {
    let ips = |text: &str| -> Vec<IpAddr> { text.split(' ').map(|ip| ip.parse().unwrap()).collect() };
    assert_eq!(in_turn(ips("::1 ::2 ::3"), ips("192.0.2.1")), ips("::1 192.0.2.1 ::2 ::3"));
    assert_eq!(in_turn(Vec::new(), ips("192.0.2.1 192.0.2.2")), ips("192.0.2.1 192.0.2.2"));
}

#[test]
fn the_first_route_that_fits_holds() {
    let route = |domains: &[&str], host: Option<&str>| Route {
        domains: domains.iter().map(|domain| domain.parse().unwrap()).collect(),
        host: host.map(|host| host.parse().unwrap()),
        ..Route::default()
    };
    let mut relay = route(&[".far.test", "one.test"], Some("relay.test"));
    (relay.user, relay.hold) = (Some("us".into()), true);
    let mut strict = route(&["two.test"], None);
    strict.tls = Some(Tls::Required);
    let settings = SmtpOutbound { routes: vec![relay, strict, route(&["*"], Some("192.0.2.1"))], ..Default::default() };
    let routes = Routes::new(&settings, 16, &|at| (at == 0).then(|| SecretText::new("pw".into())));
    let check = |address: &str, expected: Key, name: &str| {
        let recipient = Recipient::new(Arc::new(address.parse().unwrap()), address.parse().unwrap(), Way::Elsewhere);
        let key = routes.key(&recipient);
        assert_eq!((key.clone(), routes.name(&key)), (expected, name.to_owned()), "{address}");
    };
    check("u@a.far.test", Key::Route(0), "relay.test:587");
    check("u@one.test", Key::Route(0), "relay.test:587");
    check("u@far.test", Key::Route(2), "192.0.2.1:25");
    check("u@two.test", Key::Domain("two.test".into()), "two.test");
    assert_eq!(routes.plan(&Key::Domain("two.test".into())).tls, Tls::Required);
    assert_eq!(routes.plan(&Key::Route(0)).tls, Tls::Verified, "a password is given to nobody unknown");
    assert!(routes.holds(&Key::Route(0)) && !routes.holds(&Key::Route(2)) && !routes.holds(&Key::Mailboxes));
}

#[test]
fn eight_bit_text_becomes_seven_bit() {
    let check = |message: &str, expected: Option<&str>| {
        let converted = convert(message.as_bytes()).map(|text| String::from_utf8(text).unwrap());
        assert_eq!(converted.as_deref(), expected, "{message}");
    };
    check("Subject: x\r\n\r\nplain\r\n", None);
    check("Subject: grün\r\n\r\nplain\r\n", None);
    check(
        "Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\nSubject: x\r\n\r\ngrün = \r\nend\r\n",
        Some(
            "Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\nSubject: x\r\n\r\ngr=C3=BCn =3D=20\r\nend\r\n",
        ),
    );
    check(
        "Subject: x\r\n\r\n\u{fc}\r\n",
        Some("Subject: x\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n=C3=BC\r\n"),
    );
    check(
        "Content-Type: multipart/mixed; boundary=b\r\nContent-Transfer-Encoding: 8bit\r\n\r\n--b\r\nContent-Type: text/plain\r\n\r\nok\r\n--b\r\nContent-Type: image/png\r\nContent-Transfer-Encoding: 8bit\r\n\r\n\u{fc}\r\n--b--\r\n",
        Some(
            "Content-Type: multipart/mixed; boundary=b\r\nContent-Transfer-Encoding: 7bit\r\n\r\n--b\r\nContent-Type: text/plain\r\n\r\nok\r\n--b\r\nContent-Type: image/png\r\nContent-Transfer-Encoding: base64\r\n\r\nw7w=\r\n\r\n--b--\r\n",
        ),
    );
}

#[test]
fn what_somebody_else_has_signed_is_left_alone_before_we_sign() {
    let plain = "Content-Type: text/plain\r\n\r\ngrün\r\n";
    let signed = "Content-Type: multipart/signed; boundary=b\r\n\r\n--b\r\n\r\ngrün\r\n--b\r\n\r\nx\r\n--b--\r\n";
    let inside = format!("Content-Type: multipart/mixed; boundary=c\r\n\r\n--c\r\n{signed}--c--\r\n");
    assert_eq!(convert_unsigned(plain.as_bytes()), convert(plain.as_bytes()));
    assert!(convert(signed.as_bytes()).is_some());
    assert_eq!(convert_unsigned(signed.as_bytes()), None);
    assert_eq!(convert_unsigned(inside.as_bytes()), None);
}

#[test]
fn coded_lines_are_short_and_say_the_same() {
    let text = format!("Content-Type: text/plain; charset=utf-8\r\n\r\n{}\r\n", "ü ".repeat(500));
    let converted = convert(text.as_bytes()).unwrap();
    assert!(converted.is_ascii());
    assert!(converted.split(|octet| *octet == b'\n').all(|line| line.len() <= 77));
    let parsed = mail_parser::MessageParser::default().parse(&converted).unwrap();
    assert_eq!(parsed.body_text(0).unwrap().trim_end(), "ü ".repeat(500).trim_end());
}
