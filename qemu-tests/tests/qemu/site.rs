//! Two machines, one file: each picks its own roles, and mail goes from one to the other by mutual TLS.

use fife_qemu_tests::client::{first_administrator, greeting, send, subjects, try_greeting};
use fife_qemu_tests::switch::Switch;
use fife_qemu_tests::{Disk, Firmware, Machine, wait_for};
use serde_json::json;

const FRONT_MAC: &str = "52:54:00:00:01:01";
const STORE_MAC: &str = "52:54:00:00:01:02";

/// The file of both. The card behind which the tests are asks by DHCP; a VLAN over a pair of others joins the two.
const SETTINGS: &str = r#"
[site]
name = "school"
domain = "example.test"
secret = "the two hosts of this site know it"

[smtp-authentication]
dmarc = "off"

[hosts.front]
match = { mac = "52:54:00:00:01:01" }
roles = ["smtp"]
[hosts.front.network.outside]
mac = "52:54:00:00:00:aa"
[hosts.front.network.pair]
bond = ["eth1", "eth2"]
[hosts.front.network.inside]
vlan = { of = "pair", id = 7 }
address = ["192.0.2.11/24"]
[hosts.front.smtp]
lmtp = "192.0.2.12:2424"
lmtp-site = true
[hosts.front.directory]
servers = ["192.0.2.12:2636"]
tls = "site"

[hosts.store]
match = { mac = "52:54:00:00:01:02" }
roles = ["ldap-proxy", "pop-imap"]
[hosts.store.network.outside]
mac = "52:54:00:00:00:aa"
[hosts.store.network.pair]
bond = ["eth1", "eth2"]
[hosts.store.network.inside]
vlan = { of = "pair", id = 7 }
address = ["192.0.2.12/24"]
[hosts.store.pop-imap]
listen-lmtp-site = ["192.0.2.12:2424"]
[hosts.store.ldap-proxy]
listen-site = ["192.0.2.12:2636"]
"#;

#[test]
fn two_machines_of_one_file_are_one_site() {
    let dir = tempfile::tempdir().unwrap();
    let switch = Switch::start();
    let start = |name: &str, mac: &str| {
        let disk = Disk::of_image(&dir.path().join(name), 512);
        disk.write_esp("fife.toml", SETTINGS.as_bytes());
        let second = mac.replace(":00:00:01:", ":00:00:02:");
        Machine::new(name, Firmware::Bios, &disk).switch(switch.path(), mac).switch(switch.path(), &second).start()
    };
    let (store, mut front) = (start("store", STORE_MAC), start("front", FRONT_MAC));
    let (admin, password) = first_administrator(&store);
    front.console.wait("fife: serving front");
    assert!(greeting(&front, 25).starts_with("220 front.example.test"));
    assert!(greeting(&store, 143).starts_with("* OK"));
    // Neither has the other's roles.
    assert_eq!((try_greeting(store.at(25)), try_greeting(front.at(143))), (None, None));
    let (taken, said) = send(front.at(25), &admin, "across");
    assert!(taken, "{said}");
    assert_eq!(subjects(store.at(143), &admin, &password), ["across"]);

    // One cable of the pair is pulled: the other one carries on.
    front.monitor.execute("set_link", &json!({ "name": "s0", "up": false }));
    let (taken, said) = send(front.at(25), &admin, "by one cable");
    assert!(taken, "{said}");
    let arrived = || subjects(store.at(143), &admin, &password).contains(&"by one cable".to_owned()).then_some(());
    wait_for("mail by one cable", arrived, || front.console.tail());

    // All are pulled: mail for whom the front knows is taken and kept, for others put off, and nothing is refused.
    switch.cut(true);
    let (taken, said) = send(front.at(25), &admin, "while the cable is out");
    assert!(taken, "{said}");
    let (taken, said) = send(front.at(25), "nobody-asked-for-yet@example.test", "while the cable is out");
    assert!(!taken && said.contains("<** 451 4."), "{said}");
    switch.cut(false);
    let (taken, said) = send(front.at(25), &admin, "the cable is in");
    assert!(taken, "{said}");
    wait_for(
        "mail to go through again",
        || (subjects(store.at(143), &admin, &password).len() == 4).then_some(()),
        || front.console.tail(),
    );
    let mut found = subjects(store.at(143), &admin, &password);
    found.sort();
    assert_eq!(found, ["across", "by one cable", "the cable is in", "while the cable is out"]);
}
