//! Tests of the room: what entries mean, what is remembered and for how long.

use std::time::{Duration, Instant};

use super::account::{AccountStatus, Forwarding};
use super::cache::Cache;
use super::connection::Verdict;
use super::entry::{Entry, Known, What};
use super::remembered::Remembered;
use crate::config::secret::SecretText;

fn start() -> Instant {
    crate::base::clock::monotonic()
}

#[test]
fn account_status_reads_qmail_ldap_values() {
    let check = |value, expected| assert_eq!(AccountStatus::from_value(value), expected, "{value:?}");
    check(None, AccountStatus::Active);
    check(Some("active"), AccountStatus::Active);
    check(Some("ACTIVE"), AccountStatus::Active);
    check(Some("noaccess"), AccountStatus::NoAccess);
    check(Some("nopop"), AccountStatus::NoAccess);
    check(Some("disabled"), AccountStatus::Disabled);
    check(Some("deleted"), AccountStatus::Disabled);
    check(Some("aktive"), AccountStatus::Disabled); // unknown is strict
}

#[test]
fn entry_with_forwardonly_is_an_alias_and_others_are_accounts() {
    let alias = Entry::new(
        "cn=info,ou=example.test,o=demo",
        &[
            ("mail", &["info@example.test"]),
            ("deliveryMode", &["forwardOnly"]),
            ("mailForwardingAddress", &["u1@example.test", "not an address", "x@elsewhere.test"]),
        ],
    );
    let What::Alias(targets) = Known::from_entry(&alias).unwrap().what else { panic!("an alias") };
    assert_eq!(targets.iter().map(ToString::to_string).collect::<Vec<_>>(), ["u1@example.test", "x@elsewhere.test"]);

    let user = Entry::new(
        "uid=u1,ou=example.test,o=demo",
        &[
            ("MAIL", &["U1@Example.Test"]),
            ("cn", &["User One"]),
            ("mailquotasize", &["1048576"]),
            ("fifeRole", &["Administrator"]),
            ("entryUUID", &["f81d4fae-7dec-11d0-a765-00a0c91e6bf6"]),
            ("modifyTimestamp", &["20261124033000Z"]),
        ],
    );
    let known = Known::from_entry(&user).unwrap();
    assert_eq!(known.revision, "20261124033000Z");
    let What::Account(account, forwarding) = known.what else { panic!("an account") };
    assert_eq!(forwarding, Forwarding { to: Vec::new(), keep: true });
    assert_eq!(account.address.key(), "u1@example.test");
    assert_eq!(account.quota_bytes, Some(1_048_576));
    assert_eq!(account.id[..4], [0xf8, 0x1d, 0x4f, 0xae]);
    assert!(account.admin);
}

#[test]
fn a_person_who_forwards_has_a_mailbox_all_the_same() {
    let check = |more: &[(&str, &[&str])], to: &[&str], keep: bool| {
        let usual: [(&str, &[&str]); 2] =
            [("objectClass", &["inetOrgPerson", "qmailUser"]), ("mail", &["u1@example.test"])];
        let entry = Entry::new("uid=u1", &[&usual[..], more].concat());
        let What::Account(_, forwarding) = Known::from_entry(&entry).unwrap().what else { panic!("an account") };
        let to = to.iter().map(|address| address.parse().unwrap()).collect();
        assert_eq!(forwarding, Forwarding { to, keep }, "{more:?}");
    };
    let forward: (&str, &[&str]) = ("mailForwardingAddress", &["a@b.test"]);
    check(&[forward], &["a@b.test"], true);
    check(&[forward, ("deliveryMode", &["forwardonly"])], &["a@b.test"], false);
    check(&[forward, ("deliveryMode", &["noprogram", "nolocal"])], &["a@b.test"], false);
    check(&[forward, ("deliveryMode", &["noforward"])], &[], true);
    check(&[("deliveryMode", &["nolocal"])], &[], true); // to nobody: mail must not be lost
}

#[test]
fn entry_without_a_usable_address_is_nobody() {
    let check = |attributes: &[(&str, &[&str])]| assert_eq!(Known::from_entry(&Entry::new("cn=x", attributes)), None);
    check(&[]);
    check(&[("mail", &["no at sign"])]);
    check(&[("mail", &["a@b.test"]), ("deliveryMode", &["forwardonly"])]); // an alias to nowhere
}

#[test]
fn cache_forgets_by_age_and_never_holds_more_than_allowed() {
    let now = start();
    let cache = Cache::new(Duration::from_secs(5), 10);
    cache.put("a".into(), 1, now);
    assert_eq!(cache.get("a", now + Duration::from_millis(4999)), Some(1));
    assert_eq!(cache.get("a", now + Duration::from_secs(5)), None);
    for i in 0..1000 {
        cache.put(i.to_string(), i, now);
        assert!(cache.len() <= 10);
    }
    assert_eq!(cache.get("999", now), Some(999));
    assert_eq!(cache.get("1", now), None);
    cache.forget("999");
    assert_eq!(cache.get("999", now), None);
}

#[test]
fn password_is_remembered_for_its_entry_revision_and_minutes_only() {
    let now = start();
    let (right, wrong) = (SecretText::new("right".into()), SecretText::new("wrong".into()));
    let remembered = Remembered::new();
    remembered.remember("uid=u1", "1", &right, now);
    assert!(remembered.knows("uid=u1", "1", &right, now));
    assert!(!remembered.knows("uid=u1", "1", &wrong, now));
    assert!(!remembered.knows("uid=u1", "2", &right, now), "the entry has changed");
    assert!(!remembered.knows("uid=u2", "1", &right, now));
    assert!(!remembered.knows("uid=u1", "1", &right, now + Duration::from_mins(5)));
    remembered.forget("uid=u1");
    assert!(!remembered.knows("uid=u1", "1", &right, now));
}

#[tokio::test]
async fn answers_can_be_awaited_in_tasks_and_an_absent_server_is_told_as_unreachable() {
    let state = tempfile::tempdir().unwrap();
    let settings = crate::config::directory::Directory::default();
    let directory = super::Directory::connect(&settings, "o=demo", state.path(), None);
    let task = tokio::spawn(async move {
        let address = "u1@example.test".parse().unwrap();
        let resolved = directory.resolve(&address).await;
        let expanded = directory.expand(&address).await;
        let login = directory.authenticate("u1@example.test", &SecretText::new("x".into()), None).await;
        let password = SecretText::new("x".into());
        let first = super::bootstrap(&directory, address.domain(), &password, |_| Ok(())).await;
        (resolved, expanded, login, first)
    });
    let (resolved, expanded, login, first) = task.await.unwrap();
    assert!(matches!(resolved, Err(super::DirectoryError::Unreachable { .. })), "{resolved:?}");
    assert!(matches!(expanded, Err(super::DirectoryError::Unreachable { .. })), "{expanded:?}");
    assert!(matches!(login, Err(super::AuthError::Unavailable(_))), "{login:?}");
    assert!(matches!(first, Err(super::AdminError::Directory(_))), "{first:?}");
}

#[tokio::test]
async fn those_who_ask_the_same_at_once_share_one_answer_which_nobody_keeps() {
    let remembered = std::sync::Arc::new(Remembered::new());
    let password = SecretText::new("right".into());
    let asked = std::sync::Arc::new(std::sync::atomic::AtomicU32::new(0));
    let join = |client: &str| remembered.flight("uid=u1", "1", &password, client.parse().ok());
    let flights: Vec<_> = (0..200).map(|_| join("192.0.2.1")).collect();
    let ask = async || {
        asked.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        tokio::task::yield_now().await;
        Ok::<_, super::DirectoryError>(Verdict::Right)
    };
    let all = flights.iter().map(|flight| flight.verdict.get_or_try_init(&ask));
    for verdict in futures_util::future::join_all(all).await {
        assert_eq!(verdict, Ok(&Verdict::Right));
    }
    assert_eq!(asked.load(std::sync::atomic::Ordering::Relaxed), 1);
    assert!(join("192.0.2.2").verdict.get().is_none(), "another address has its own answer");
    drop(flights);
    assert_eq!(remembered.flights(), 0);
}
