//! Keys as data: what they mean, how they come and go.

use base64::Engine as _;

use super::{
    Algorithm, BASE64, DomainKey, KEYS_MAX, KeyError, KeyState, activated, der, make_pair, removed, rotated, stem,
    zone_line,
};

/// 2026-11-24T03:30:00Z.
const NOW: u64 = 1_795_491_000;
/// RFC 8463 appendix A.2: the private key, in PKCS#8 (RFC 8410 section 7), and the record.
const ED25519_SEED: &str = "nWGxne/9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A=";
const ED25519_RECORD: &str = "v=DKIM1; k=ed25519; p=11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=";

/// OneAsymmetricKey with the public key (RFC 5958 section 2), as `make_pair` makes them.
fn ed25519_pkcs8() -> String {
    let seed = BASE64.decode(ED25519_SEED).unwrap();
    let public = BASE64.decode(ED25519_RECORD.rsplit_once("p=").unwrap().1).unwrap();
    let algorithm = [0x30, 5, 6, 3, 0x2b, 0x65, 0x70];
    let private = der(4, &der(4, &seed));
    let public = der(0x81, &[&[0], &public[..]].concat());
    BASE64.encode(der(0x30, &[&[2, 1, 1], &algorithm[..], &private, &public].concat()))
}

fn key(selector: &str, state: &str) -> DomainKey {
    format!("{selector} rsa {state} AAAA").parse().unwrap()
}

fn shape(keys: &[DomainKey]) -> Vec<(&str, KeyState)> {
    keys.iter().map(|key| (key.selector.as_str(), key.state)).collect()
}

#[test]
fn the_record_is_that_of_rfc_8463() {
    let key: DomainKey = format!("brisbane ed25519 active {}", ed25519_pkcs8()).parse().unwrap();
    assert_eq!(key.record().as_deref(), Ok(ED25519_RECORD));
    assert_eq!(key.name(&"Football.example.com".parse().unwrap()), "brisbane._domainkey.football.example.com");
    assert_eq!(key.name(&"例子.test".parse().unwrap()), "brisbane._domainkey.xn--fsqu00a.test");
}

#[test]
fn a_pair_is_made_reads_back_and_has_records_of_its_kind() {
    let pair = make_pair(&[], KeyState::Active, NOW).unwrap();
    assert_eq!(shape(&pair), [("20261124r", KeyState::Active), ("20261124e", KeyState::Active)]);
    for key in &pair {
        assert_eq!(key.to_value().parse::<DomainKey>().as_ref(), Ok(key));
        assert!(key.to_value().len() <= 4096, "longer than a value in the directory may be");
        assert!(!format!("{key:?}").contains(key.private.reveal()), "the private key shows");
    }
    let record = pair[0].record().unwrap();
    // The DER of SubjectPublicKeyInfo of every RSA-2048 key with the exponent 65537 begins and ends alike.
    assert!(record.starts_with("v=DKIM1; k=rsa; p=MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEA"), "{record}");
    assert!(record.ends_with("IDAQAB"), "{record}");
    assert!(pair[1].record().unwrap().starts_with("v=DKIM1; k=ed25519; p="));
    assert_ne!(make_pair(&[], KeyState::Active, NOW).unwrap()[1], pair[1]);
}

#[test]
fn what_is_no_key_is_told() {
    let check =
        |text: &str, expected| assert_eq!(text.parse::<DomainKey>(), Err(KeyError::Malformed(expected)), "{text}");
    check("", "no selector");
    check("a.b rsa active AAAA", "the selector is no label");
    check("S rsa active AAAA", "the selector is no label");
    check(&format!("{} rsa active AAAA", "s".repeat(64)), "the selector is no label");
    check("s", "no algorithm");
    check("s dsa active AAAA", "the algorithm is not known");
    check("s rsa", "no state");
    check("s rsa busy AAAA", "the state is not known");
    check("s rsa active", "no key");
    assert!(matches!(key("s", "active").record(), Err(KeyError::Unusable(_))));
    let broken: DomainKey = "s ed25519 active !".parse().unwrap();
    assert!(matches!(broken.record(), Err(KeyError::Malformed(_))));
    assert_eq!(broken.algorithm, Algorithm::Ed25519);
}

#[test]
fn a_second_pair_of_a_day_has_other_selectors() {
    assert_eq!(stem(&[], NOW), "20261124");
    assert_eq!(stem(&[key("20261124e", "active")], NOW), "20261124-2");
    assert_eq!(stem(&[key("20261124r", "active"), key("20261124-2r", "active")], NOW), "20261124-3");
}

#[test]
fn keys_rotate_in_three_steps() {
    let first = rotated(Vec::new(), NOW).unwrap();
    assert!(first.iter().all(|key| key.state == KeyState::Active), "with no other key the first ones sign at once");
    assert_eq!(activated(first.clone()), Err(KeyError::NoneWaiting));
    assert_eq!(removed(first.clone(), None), Err(KeyError::NoneRetired));
    let both = rotated(first, NOW + 86_400).unwrap();
    let (active, waiting, retired) = (KeyState::Active, KeyState::Waiting, KeyState::Retired);
    assert_eq!(
        shape(&both),
        [("20261124r", active), ("20261124e", active), ("20261125r", waiting), ("20261125e", waiting)]
    );
    assert_eq!(rotated(both.clone(), NOW), Err(KeyError::WaitingAlready));
    let both = activated(both).unwrap();
    assert_eq!(
        shape(&both),
        [("20261124r", retired), ("20261124e", retired), ("20261125r", active), ("20261125e", active)]
    );
    assert_eq!(removed(both.clone(), Some("20261125r")), Err(KeyError::InUse("20261125r".into())));
    assert_eq!(removed(both.clone(), Some("x")), Err(KeyError::NoSuchSelector("x".into())));
    assert_eq!(shape(&removed(both.clone(), Some("20261124e")).unwrap()).len(), 3);
    assert_eq!(shape(&removed(both, None).unwrap()), [("20261125r", active), ("20261125e", active)]);
}

#[test]
fn a_domain_has_a_bounded_number_of_keys() {
    let many: Vec<DomainKey> = (0..KEYS_MAX).map(|number| key(&format!("s{number}"), "retired")).collect();
    assert_eq!(rotated(many, NOW), Err(KeyError::TooMany));
}

#[test]
fn a_record_longer_than_a_string_is_cut_into_strings() {
    let check = |len: usize, expected: &str| assert_eq!(zone_line("s._domainkey.x.test", &"p".repeat(len)), expected);
    check(255, &format!("s._domainkey.x.test. IN TXT \"{}\"", "p".repeat(255)));
    check(256, &format!("s._domainkey.x.test. IN TXT ( \"{}\"\n    \"p\" )", "p".repeat(255)));
}

#[test]
fn a_published_record_is_known_by_its_key_however_it_is_written() {
    let key: DomainKey = format!("brisbane ed25519 active {}", ed25519_pkcs8()).parse().unwrap();
    let check = |text: &str, expected| assert_eq!(key.is_published_as(text), Ok(expected), "{text}");
    check(ED25519_RECORD, true);
    check("p=11qYAYKxCrfVS/7TyWQHOg7hcv Papi\tMlrwIaaPcHURo= ; t=s; k = ed25519;", true);
    check("v=DKIM1; p=11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=", false); // RSA, when nothing is said
    check("v=DKIM1; k=ed25519; p=", false); // revoked
    check("v=DKIM1; k=ed25519; p=21qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=", false);
    check("v=spf1 -all", false);
    check("", false);
}
