//! The roles' client: who an address is, whose password that is, and the way back to a server that was away.

use fife::base::address::Address;
use fife::directory::{AccountStatus, AuthError, Expansion, Recipient, admin};

use super::{account, address, client, runtime, secret, start};
use crate::harness::{good, run, text, wait_for};

#[test]
fn roles_learn_who_an_address_is() {
    let site = start();
    site.user("u1", "secret1");
    good(&site.fife(&["domain", "add", "other.test"]));
    good(&site.fife(&[
        "alias",
        "add",
        "staff@example.test",
        "u1@example.test",
        "list@other.test",
        "far@elsewhere.test",
    ]));
    good(&site.fife(&[
        "alias",
        "add",
        "list@other.test",
        "staff@example.test",
        "admin@example.test",
        "gone@example.test",
    ]));
    let directory = client(&site, "0s");
    runtime().block_on(async {
        let account = account(&directory, "U1@Example.Test").await;
        assert_eq!(
            (account.address.to_string().as_str(), account.status, account.admin),
            ("u1@example.test", AccountStatus::Active, false)
        );
        assert_eq!(directory.resolve(&address("nobody@example.test")).await, Ok(Recipient::NoSuchUser));
        assert_eq!(directory.resolve(&address("u1@elsewhere.test")).await, Ok(Recipient::NotLocal));
        assert_eq!(directory.is_local_domain(&"other.test".parse().unwrap()).await, Ok(true));
        // Characters that mean something in a filter mean nothing here.
        assert_eq!(directory.resolve(&address("*@example.test")).await, Ok(Recipient::NoSuchUser));
        let Expansion { accounts, remote, missing } = directory.expand(&address("staff@example.test")).await.unwrap();
        let shown: Vec<String> = accounts.iter().map(|account| account.address.to_string()).collect();
        assert_eq!(shown.len(), 2, "the loop ends: {shown:?}");
        assert_eq!((remote, missing), (vec![address("far@elsewhere.test")], vec![address("gone@example.test")]));

        let login = async |name: &str, password: &str| directory.authenticate(name, &secret(password), None).await;
        assert_eq!(login("u1@example.test", "secret1").await.map(|account| account.id), Ok(account.id));
        for (name, password) in [
            ("u1@example.test", "wrong"),
            ("u1@example.test", ""),
            ("nobody@example.test", "secret1"),
            ("staff@example.test", "x"),
            ("u1", "secret1"),
            ("", ""),
        ] {
            assert_eq!(login(name, password).await, Err(AuthError::Refused), "{name:?} {password:?}");
        }
        let domain = "example.test".parse().unwrap();
        admin::set_domain_status(&directory, &domain, AccountStatus::Disabled).await.unwrap();
        assert_eq!(login("u1@example.test", "secret1").await, Err(AuthError::Suspended));
        assert_eq!(login("u1@example.test", "wrong").await, Err(AuthError::Refused));
        let Ok(Recipient::Account(suspended)) = directory.resolve(&address("u1@example.test")).await else {
            panic!("an account")
        };
        assert_eq!(suspended.status, AccountStatus::Disabled);
        admin::set_domain_status(&directory, &domain, AccountStatus::Active).await.unwrap();
    });
}

#[test]
fn a_user_forwards_mail_and_keeps_a_copy_or_does_not() {
    let site = start();
    for user in ["u1", "u2", "u3"] {
        site.user(user, "secret1");
    }
    let directory = client(&site, "0s");
    let runtime = runtime();
    let forward = |args: &[&str], code: i32| {
        let output = site.fife(&[&["user", "forward"][..], args].concat());
        assert_eq!(output.status.code(), Some(code), "{args:?}: {}", text(&output));
        String::from_utf8(output.stdout).unwrap()
    };
    // Who gets mail for u1: mailboxes, then addresses elsewhere.
    let gets = || {
        let expansion = runtime.block_on(directory.expand(&address("u1@example.test"))).unwrap();
        assert_eq!(expansion.missing, []);
        let mut names: Vec<String> = expansion.accounts.iter().map(|account| account.address.to_string()).collect();
        names.sort();
        names.extend(expansion.remote.iter().map(Address::to_string));
        names.join(" ")
    };
    assert_eq!(forward(&["u1@example.test"], 0), "");
    forward(&["u1@example.test", "--to", "u2@example.test,far@elsewhere.test"], 0);
    assert_eq!(gets(), "u1@example.test u2@example.test far@elsewhere.test");
    let shown = forward(&["u1@example.test", "--no-keep"], 0);
    assert!(shown.contains("u2@example.test\n") && !shown.contains("kept"), "{shown}");
    assert_eq!(gets(), "u2@example.test far@elsewhere.test");
    let login = runtime.block_on(directory.authenticate("u1@example.test", &secret("secret1"), None));
    assert!(login.is_ok(), "who keeps no copy logs in all the same: {login:?}");
    assert!(good(&site.fife(&["user", "list"])).contains("u1@example.test"));
    assert_eq!(good(&site.fife(&["alias", "list"])), "", "a user is no alias");

    // A chain through an alias, and a loop: everybody once, and mail that would go round is kept.
    good(&site.fife(&["alias", "add", "team@example.test", "u3@example.test", "u1@example.test"]));
    forward(&["u2@example.test", "--to", "team@example.test", "--keep"], 0);
    assert_eq!(gets(), "u2@example.test u3@example.test far@elsewhere.test");
    forward(&["u1@example.test", "--to", "u2@example.test", "--no-keep"], 0);
    forward(&["u2@example.test", "--to", "u1@example.test", "--no-keep"], 0);
    assert_eq!(gets(), "u1@example.test u2@example.test");
    good(&site.fife(&["user", "suspend", "--refuse-mail", "u2@example.test"]));
    assert_eq!(gets(), "u2@example.test", "mail for who takes none is not passed on");
    forward(&["u1@example.test", "--off"], 0);
    assert_eq!(gets(), "u1@example.test");
    forward(&["u1@example.test", "--no-keep"], 1);
    forward(&["team@example.test", "--to", "u1@example.test"], 1); // an alias
    forward(&["u1@example.test", "--off", "--keep"], 2);
}

#[test]
fn a_password_is_hashed_once_for_many_logins_until_it_changes() {
    let site = start();
    site.user("u1", "secret1");
    let directory = client(&site, "0s");
    let hashes = || {
        let metrics = good(&run("curl", &["-s", &format!("http://{}/metrics", site.at("metrics"))], b""));
        let line = metrics.lines().find(|line| line.starts_with("fife_ldap_proxy_password_hashes_total"));
        line.and_then(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).unwrap_or_else(|| panic!("{metrics}"))
    };
    runtime().block_on(async {
        let login =
            async |password: &str| directory.authenticate("u1@example.test", &secret(password), None).await.is_ok();
        let before = hashes();
        for _ in 0..50 {
            assert!(login("secret1").await);
        }
        assert!(hashes() - before < 1.5, "{} hashes for 50 logins", hashes() - before);
        let (another, before) = (client(&site, "5s"), hashes());
        let password = secret("secret1");
        let at_once = (0..200).map(|_| another.authenticate("u1@example.test", &password, None));
        assert!(futures_util::future::join_all(at_once).await.iter().all(Result::is_ok));
        assert!(hashes() - before < 1.5, "{} hashes for 200 logins at once", hashes() - before);
        admin::set_password(&directory, &address("u1@example.test"), &secret("secret2")).await.unwrap();
        assert!(!login("secret1").await, "the old password is not remembered");
        assert!(login("secret2").await);
    });
}

#[test]
fn the_client_finds_the_way_back_to_a_server_that_was_away() {
    let mut site = start();
    site.user("u1", "secret1");
    let directory = client(&site, "0s");
    let runtime = runtime();
    let resolve = || runtime.block_on(directory.resolve(&address("u1@example.test")));
    assert!(matches!(resolve(), Ok(Recipient::Account(_))));
    site.kill_all();
    assert!(resolve().is_err());
    site.launch();
    let again = || matches!(resolve(), Ok(Recipient::Account(_)));
    wait_for("an answer", again, || site.log_tail());
}
