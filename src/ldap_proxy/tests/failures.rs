//! Failed logins: who is refused after how many, and who is not.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::ldap_proxy::failures::{BUCKETS_MAX, Failures, Full, STRANGER_TRIES, Tolerance, Try};

const HOUR: Duration = Duration::from_hours(1);

fn failures() -> (Failures, Instant) {
    let tolerance = Tolerance { per_account: 5, per_network: 20, window: HOUR };
    (Failures::new(tolerance), crate::base::clock::monotonic())
}

fn from(account: &str, client: &str) -> Try {
    Try {
        name: String::new(),
        account: account.to_owned(),
        client: (!client.is_empty()).then(|| client.parse().unwrap()),
    }
}

/// Fails as often as it is let; says how often that was.
fn hammer(failures: &Failures, attempt: &Try, tries: u32, now: Instant) -> u32 {
    let one = |_: &u32| {
        let admitted = failures.admit(attempt, now).is_ok();
        if admitted {
            failures.failed(attempt, now);
        }
        admitted
    };
    u32::try_from((0..tries).filter(one).count()).unwrap()
}

#[test]
fn guessing_at_an_account_ends_and_its_owner_gets_in_from_elsewhere() {
    let (failures, now) = failures();
    let attacker = from("u1", "192.0.2.1");
    assert_eq!(hammer(&failures, &attacker, 100, now), 5);
    assert_eq!(failures.admit(&attacker, now), Err(Full::Account), "over all protocols: it is one table");
    assert_eq!(failures.admit(&from("u1", "198.51.100.7"), now), Ok(()), "the owner, never seen from there");
    assert_eq!(failures.admit(&from("u2", "192.0.2.1"), now), Ok(()), "another account from there");
}

#[test]
fn guessing_from_everywhere_closes_no_account() {
    let (failures, now) = failures();
    let home = from("u1", "198.51.100.7");
    failures.succeeded(&home, now);
    for n in 0..200 {
        let stranger = from("u1", &format!("203.0.{n}.1"));
        let tries = hammer(&failures, &stranger, 10, now);
        assert!(tries == 5 || n > 0, "the first network fills the account's bucket");
        assert!(tries <= STRANGER_TRIES || n == 0, "{tries} tries for stranger {n}");
    }
    assert_eq!(failures.admit(&home, now), Ok(()));
    assert_eq!(hammer(&failures, &home, 100, now), 5, "at home the owner may mistype as often as ever");
    assert_eq!(failures.admit(&from("u1", "192.0.2.200"), now), Ok(()), "nor is a new place closed to him");
}

#[test]
fn guessing_through_many_accounts_ends_at_the_network_but_not_for_those_who_live_there() {
    let (failures, now) = failures();
    let pupil = from("pupil", "2001:db8:1:2::5");
    failures.succeeded(&pupil, now);
    let sprayed = |address: &str, count: usize| {
        (0..count).map(|n| hammer(&failures, &from(&format!("a{n}"), address), 1, now)).sum::<u32>()
    };
    assert_eq!(sprayed("2001:db8:1:2::1", 500), 20);
    assert_eq!(failures.admit(&from("x", "2001:db8:1:2:ffff::9"), now), Err(Full::Network), "one /64 is one network");
    assert_eq!(failures.admit(&from("x", "2001:db8:1:3::1"), now), Ok(()));
    assert_eq!(failures.admit(&pupil, now), Ok(()), "behind the same address, and known there");
    let wide: u32 = (3..100).map(|net| sprayed(&format!("2001:db8:1:{net:x}::1"), 500)).sum();
    assert_eq!(wide, 60, "a /48 fails four times as often as a /64, the first included");
    assert_eq!(failures.admit(&from("x", "::ffff:192.0.2.1"), now), Ok(()));
    assert_eq!(sprayed("192.0.2.1", 500), 20);
    assert_eq!(failures.admit(&from("x", "::ffff:192.0.2.1"), now), Err(Full::Network), "IPv4 written as IPv6");
    assert_eq!(failures.admit(&from("x", "192.0.2.2"), now), Ok(()));
}

#[test]
fn buckets_drain_and_refusals_do_not_fill_them() {
    let (failures, now) = failures();
    let attacker = from("u1", "192.0.2.1");
    assert_eq!(hammer(&failures, &attacker, 1000, now), 5);
    assert_eq!(hammer(&failures, &attacker, 1000, now + HOUR), 5, "all forgotten after the window");
    let in_a_day: u32 =
        (0..24 * 60).map(|m| hammer(&failures, &attacker, 10, now + HOUR + Duration::from_mins(m))).sum();
    assert!((60..=130).contains(&in_a_day), "{in_a_day} guesses a day");
    assert_eq!(failures.admit(&attacker, now + 30 * HOUR), Ok(()));
}

#[test]
fn a_login_takes_back_the_failures_of_its_own_pair_only() {
    let (failures, now) = failures();
    let owner = from("u1", "192.0.2.1");
    for _ in 0..50 {
        assert_eq!(hammer(&failures, &owner, 4, now), 4);
        failures.succeeded(&owner, now);
    }
    assert_eq!(failures.admit(&from("new", "192.0.2.1"), now), Ok(()), "nothing is left of it for the network");
    for n in 0..20 {
        hammer(&failures, &from(&format!("victim{n}"), "192.0.2.1"), 1, now);
        failures.succeeded(&owner, now);
    }
    assert_eq!(
        failures.admit(&from("new", "192.0.2.1"), now),
        Err(Full::Network),
        "an own account pays for no guesses"
    );
}

#[test]
fn failures_from_this_machine_itself_are_the_accounts_only() {
    let (failures, now) = failures();
    for n in 0..100 {
        assert_eq!(hammer(&failures, &from(&format!("a{n}"), ""), 1, now), 1);
    }
    assert_eq!(hammer(&failures, &from("u1", ""), 100, now), 5);
}

#[test]
fn memory_is_bounded_and_whoever_is_guessed_at_stays_in_it() {
    let (failures, now) = failures();
    let attacker = from("u1", "192.0.2.1");
    hammer(&failures, &attacker, 10, now);
    for n in 0..60_000_u32 {
        let client = IpAddr::from([
            10,
            u8::try_from(n >> 16).unwrap(),
            u8::try_from(n >> 8 & 255).unwrap(),
            u8::try_from(n & 255).unwrap(),
        ]);
        failures.failed(&Try { name: String::new(), account: format!("b{n}"), client: Some(client) }, now);
        if n % 1000 == 0 {
            assert_eq!(failures.admit(&attacker, now), Err(Full::Account), "after {n} others");
            assert!(failures.len() <= BUCKETS_MAX);
        }
    }
    assert!(failures.len() <= BUCKETS_MAX);
}
