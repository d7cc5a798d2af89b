//! `[hosts.NAME.network.…]` and `[hosts.NAME.mounts.…]`: what is read, and what is refused.

use super::super::mounts::{Device, Mount};
use super::super::network::{InterfaceAddress, LinkName, Prefix};
use super::{HOST, SITE, faults, load, tell};

/// Checks that a good host with these tables has just these faults, each from the beginning.
fn check(tables: &str, expected: &[&str]) {
    let before = format!("{SITE}{HOST}");
    let text = format!("{before}{tables}\n");
    if expected.is_empty() {
        load(&text).unwrap_or_else(|faults| panic!("{faults}"));
        return;
    }
    let faults = faults(&text);
    let told: Vec<String> = faults.list().iter().map(|fault| tell(&faults, &text, fault)).collect();
    assert_eq!(told.len(), expected.len(), "{tables}\n{told:#?}");
    for (told, expected) in told.iter().zip(expected) {
        let (line, rest) = told.split_once(':').unwrap();
        let line = line.parse::<usize>().unwrap().saturating_sub(before.lines().count());
        let told = format!("{line}:{rest}");
        assert!(told.starts_with(expected), "{tables}\n got {told}\nwant {expected}");
    }
}

const ETH0: &str = "[hosts.a.network.eth0]\n";

#[test]
fn interfaces_are_read_with_their_defaults() {
    let text = format!(
        "{SITE}{HOST}{ETH0}[hosts.a.network.lan]\nmac = \"52:54:00:00:00:01\"\naddress = [\"192.0.2.11/24\", \"2001:db8::11/64\"]\ngateway = [\"192.0.2.1\", \"fe80::1\"]\nmtu = 9000\n"
    );
    let loaded = load(&text).unwrap();
    let network = &loaded.hosts()["a"].network;
    assert!(network["eth0"].asks_dhcp() && network["eth0"].hears_routers());
    let lan = &network["lan"];
    assert!(!lan.asks_dhcp() && !lan.hears_routers(), "a host with fixed addresses asks nobody");
    assert_eq!(lan.address.iter().map(ToString::to_string).collect::<Vec<_>>(), ["192.0.2.11/24", "2001:db8::11/64"]);
    assert_eq!(lan.gateway.iter().map(|ip| ip.to_string()).collect::<Vec<_>>(), ["192.0.2.1", "fe80::1"]);
    assert_eq!(lan.mtu, Some(9000));
}

#[test]
fn addresses_and_networks_are_those_that_a_host_can_have() {
    let address = |text: &str| text.parse::<InterfaceAddress>().ok().map(|address| address.to_string());
    for good in
        ["192.0.2.11/24", "10.1.2.3/8", "192.0.2.0/31", "192.0.2.1/31", "192.0.2.7/32", "2001:db8::/64", "fe80::2/64"]
    {
        assert_eq!(address(good).as_deref(), Some(good));
    }
    for wrong in [
        "192.0.2.11",
        "192.0.2.11/",
        "192.0.2.11/33",
        "192.0.2.11/0",
        "192.0.2.11/+8",
        "192.0.2.11/1000",
        "192.0.2.0/24",
        "192.0.2.255/24",
        "0.0.0.0/8",
        "0.1.2.3/8",
        "127.0.0.1/8",
        "224.0.0.1/24",
        "255.255.255.255/32",
        "::1/128",
        "::/64",
        "ff02::1/64",
        "::ffff:192.0.2.1/96",
        "2001:db8::1/129",
        "x/24",
        "/24",
        "",
    ] {
        assert_eq!(address(wrong), None, "{wrong}");
    }
    let prefix = |text: &str| text.parse::<Prefix>().ok().map(|prefix| prefix.to_string());
    for good in ["10.0.0.0/8", "0.0.0.0/0", "::/0", "2001:db8::/32", "192.0.2.7/32"] {
        assert_eq!(prefix(good).as_deref(), Some(good));
    }
    for wrong in ["10.0.0.1/8", "10.0.0.0", "2001:db8::1/32", "10.0.0.0/33"] {
        assert_eq!(prefix(wrong), None, "{wrong}");
    }
    let net: Prefix = "192.0.2.128/25".parse().unwrap();
    assert!(net.contains("192.0.2.200".parse().unwrap()) && !net.contains("192.0.2.1".parse().unwrap()));
    assert!(!net.contains("::1".parse().unwrap()));
    for (name, good) in [
        ("eth0", true),
        ("bond0.10", true),
        ("a", true),
        ("", false),
        ("lo", false),
        ("all", false),
        ("a/b", false),
        ("..", false),
        ("abcdefghijklmnop", false),
    ] {
        assert_eq!(name.parse::<LinkName>().is_ok(), good, "{name}");
    }
}

#[test]
fn wrong_values_of_an_interface_are_refused() {
    check("network = 5", &["1:11 `network` is 5; expected a table"]);
    check("[hosts.a.network]\neth0 = 5", &["2:8 `network` is 5; expected a table"]);
    check("[hosts.a.network.\"a b\"]", &["1:18 `a b` is no name in `network`; expected the name of an interface"]);
    check(
        &format!("{ETH0}adress = []"),
        &["2:1 unknown key `adress` in `network`; expected a key of `network`; did you mean `address`?"],
    );
    check(
        &format!("{ETH0}address = [\"192.0.2.0/24\"]"),
        &["2:12 wrong value for `address`: \"192.0.2.0/24\"; expected an address of a host"],
    );
    check(&format!("{ETH0}address = \"192.0.2.1/24\""), &["2:11 `address` is \"192.0.2.1/24\"; "]);
    for wrong in ["\"192.0.2\"", "[\"192.0.2.1\", \"192.0.2.2\"]", "5", "\"0.0.0.0\"", "\"::1\""] {
        check(&format!("{ETH0}gateway = {wrong}"), &["2:11 wrong value for `gateway`"]);
    }
    check(&format!("{ETH0}mtu = 500"), &["2:7 `mtu` is out of range: 500; expected a whole number from 1280 to 9216"]);
    for id in ["0", "4095", "70000", "-1"] {
        let vlan = format!("[hosts.a.network.v]\nvlan = {{ of = \"eth0\", id = {id} }}");
        check(&vlan, &[&format!("2:28 wrong value for `id` in `vlan`: {id}; expected a VLAN id from 1 to 4094")]);
    }
    check(&format!("{ETH0}bond = [\"eth0/1\"]"), &["2:9 wrong value for `bond`: \"eth0/1\"; "]);
    check(
        &format!("{ETH0}bond-mode = \"lacp\""),
        &["2:13 wrong value for `bond-mode`: \"lacp\"; expected \"active-backup\" or \"802.3ad\""],
    );
    check(
        &format!("{ETH0}routes = [{{ to = \"10.0.0.1/8\", via = \"192.0.2.1\" }}]"),
        &["2:18 wrong value for `to` in `routes`: "],
    );
    // One fault in an interface says nothing about the roles of its host.
    check(
        &format!("{ETH0}mtu = \"x\"\n[hosts.a.mounts.m]\n"),
        &["2:7 wrong type for `mtu`", "3:17 `device` is missing in mount `m`"],
    );
}

#[test]
fn interfaces_that_contradict_each_other_are_refused() {
    let static_ = |name: &str, address: &str, more: &str| {
        format!("[hosts.a.network.{name}]\naddress = [\"{address}\"]\n{more}\n")
    };
    check(&static_("eth0", "192.0.2.1/24", "gateway = \"192.0.2.254\""), &[]);
    check(&static_("eth0", "2001:db8::1/64", "gateway = \"fe80::1\""), &[]);
    check(
        &static_("eth0", "192.0.2.1/24", "gateway = \"198.51.100.1\""),
        &["3:11 gateway 198.51.100.1 of `eth0` is in none of its networks"],
    );
    check(
        &static_("eth0", "192.0.2.1/24", "gateway = \"192.0.2.1\""),
        &["3:11 gateway 192.0.2.1 of `eth0` is in none"],
    );
    check(&static_("eth0", "192.0.2.1/24", "gateway = \"198.51.100.1\"\ndhcp = true"), &[]);
    check(&format!("{ETH0}gateway = \"192.0.2.1\""), &[]);
    check(
        &static_("eth0", "192.0.2.1/24", "routes = [{ to = \"10.0.0.0/8\", via = \"192.0.3.1\" }]"),
        &["3:10 router 192.0.3.1 of `eth0`"],
    );
    check(
        &static_("eth0", "192.0.2.1/24", "routes = [{ to = \"10.0.0.0/8\", via = \"::2\" }]"),
        &["3:10 route to 10.0.0.0/8 of `eth0`"],
    );
    check(
        &static_("eth0", "192.0.2.1/24", "routes = [{ to = \"0.0.0.0/0\", via = \"192.0.2.9\" }]"),
        &["3:10 a route to everywhere"],
    );
    let two = static_("eth0", "192.0.2.1/24", "") + &static_("eth1", "192.0.2.1/25", "");
    check(&two, &["5:11 `eth0` and `eth1` have one address: 192.0.2.1"]);
    check(
        &format!("{ETH0}address = [\"192.0.2.1/24\", \"192.0.2.1/25\"]"),
        &["2:11 `eth0` has an address twice: 192.0.2.1"],
    );
    let two = static_("eth0", "192.0.2.1/24", "gateway = \"192.0.2.9\"")
        + &static_("eth1", "198.51.100.1/24", "gateway = \"198.51.100.9\"");
    check(&two, &["6:11 `eth0` and `eth1` both have the IPv4 gateway"]);
    let mac = "mac = \"52:54:00:00:00:01\"\n";
    check(&format!("{ETH0}{mac}[hosts.a.network.eth1]\n{mac}"), &["4:7 `eth0` and `eth1` are one card"]);
}

#[test]
fn bonds_and_vlans_that_cannot_be_are_refused() {
    let bond = "[hosts.a.network.bond0]\nbond = [\"eth0\", \"eth1\"]\n";
    check(bond, &[]);
    check(&format!("{bond}{ETH0}mac = \"52:54:00:00:00:01\"\nmtu = 9000\ndhcp = false\n"), &[]);
    for own in ["address = [\"192.0.2.1/24\"]", "dhcp = true", "router-advertisements = true", "bond = [\"eth7\"]"] {
        let told = "2:8 `eth0` is a member of bond `bond0` and has settings of its own";
        check(&format!("{bond}{ETH0}{own}\n"), &[told]);
    }
    check(
        "[hosts.a.network.bond0]\nbond = [\"bond0\"]",
        &["2:8 bond `bond0` is a member of itself", "2:8 `bond0` is a member of bond"],
    );
    check(
        "[hosts.a.network.bond0]\nbond = [\"eth0\", \"eth0\"]",
        &["2:8 `eth0` is a member of `bond0` and of `bond0`"],
    );
    check(
        &format!("{bond}[hosts.a.network.bond1]\nbond = [\"eth1\"]"),
        &["4:8 `eth1` is a member of `bond0` and of `bond1`"],
    );
    check(&format!("{bond}mac = \"52:54:00:00:00:01\""), &["2:8 `bond0` is a bond, and `mac` names a card"]);
    let vlan = |name: &str, of: &str, more: &str| {
        format!("[hosts.a.network.{name}]\nvlan = {{ of = \"{of}\", id = 10 }}\n{more}")
    };
    check(&vlan("v", "eth0", ""), &[]);
    check(&format!("{bond}{}", vlan("v", "bond0", "")), &[]);
    check(&vlan("v", "lan", ""), &["2:8 VLAN `v` is on `lan`, which the host does not have"]);
    check(&vlan("v", "v", ""), &["2:8 VLAN `v` is on itself"]);
    check(&format!("{bond}{}", vlan("v", "eth1", "")), &["4:8 VLAN `v` is on `eth1`, a member of bond `bond0`"]);
    check(&format!("{}{}", vlan("v", "eth0", ""), vlan("w", "v", "")), &["4:8 VLAN `w` is on another VLAN, `v`"]);
    check(
        &format!("{}{}", vlan("v", "eth0", ""), vlan("w", "eth0", "")),
        &["4:8 `v` and `w` are one VLAN: 10 on `eth0`"],
    );
    check(&format!("{ETH0}mtu = 1500\n{}", vlan("v", "eth0", "mtu = 9000")), &["4:8 VLAN `v` has a larger mtu"]);
    check(&vlan("v", "eth0", "bond = [\"eth1\"]\n"), &["3:8 `v` is a bond and a VLAN"]);
}

#[test]
fn two_hosts_cannot_have_one_address() {
    let host = |name: &str| {
        format!(
            "[hosts.{name}]\nroles = [\"ldap-proxy\", \"pop-imap\", \"smtp\"]\n[hosts.{name}.network.eth0]\naddress = [\"192.0.2.1/24\"]\n"
        )
    };
    let text = format!("{SITE}secret = \"0123456789abcdef\"\n{}{}", host("a"), host("b"));
    let faults = faults(&text);
    let told: Vec<String> = faults.list().iter().map(|fault| tell(&faults, &text, fault)).collect();
    assert_eq!(told, ["12:11 hosts `a` and `b` have one address: 192.0.2.1"]);
}

#[test]
fn devices_are_told_by_label_uuid_path_or_server() {
    let device = |text: &str| text.parse::<Device>().ok();
    for good in [
        "LABEL=archive",
        "UUID=1234-abcd",
        "PARTUUID=0fc63daf-8483-4772-8e79-3d69d8477de4",
        "/dev/disk/by-path/x",
        "/dev/sdb1",
        "nas.example.test:/export/mail",
        "192.0.2.9:/",
        "[2001:db8::9]:/x",
    ] {
        assert_eq!(device(good).map(|device| device.to_string()).as_deref(), Some(good));
    }
    for wrong in [
        "",
        "LABEL=",
        "LABEL=a,b",
        "LABEL=a\u{7}",
        "UUID=x",
        "UUID=",
        "PARTUUID=sda1",
        "sdb1",
        "/etc/passwd",
        "/dev/../etc/passwd",
        "nas:",
        "nas:export",
        ":/export",
        "256.1.1.1:/x",
    ] {
        assert_eq!(device(wrong), None, "{wrong}");
    }
}

#[test]
fn mounts_go_where_they_hide_nothing() {
    let mount = |more: &str| format!("[hosts.a.mounts.m]\n{more}\n");
    let loaded = load(&format!("{SITE}{HOST}{}", mount("device = \"LABEL=x\""))).unwrap();
    assert_eq!(loaded.hosts()["a"].mounts["m"].point("m").to_str(), Some("/mnt/m"));
    assert_eq!(Mount::default().file_system(), None);
    check(&mount("device = \"LABEL=x\"\ntype = \"xfs\"\noptions = [\"ro\", \"noatime\"]\nwhere = \"/srv/a/b\""), &[]);
    for wrong in ["/", "/mnt", "/data/x", "/boot", "/mnt/../data", "mnt/x", "/mnt/\\u0007", "/mntx/y"] {
        check(&mount(&format!("device = \"LABEL=x\"\nwhere = \"{wrong}\"")), &["3:9 wrong value for `where`"]);
    }
    for wrong in ["", "a,b", "suid", "exec", "dev", "remount", "a b", "addr=192.0.2.1", "nofail", "defaults"] {
        check(&mount(&format!("device = \"LABEL=x\"\noptions = [\"{wrong}\"]")), &["3:12 wrong value for `options`"]);
    }
    check(&mount(""), &["1:17 `device` is missing in mount `m`"]);
    check(&mount("device = \"nas:/x\"\ntype = \"ext4\""), &["3:8 mount `m`: a file server's directory is of type"]);
    check(&mount("device = \"/dev/sdb1\"\ntype = \"nfs\""), &["2:10 mount `m`: \"nfs\" needs a device SERVER:/PATH"]);
    let two =
        format!("{}[hosts.a.mounts.n]\ndevice = \"LABEL=y\"\nwhere = \"/mnt/m/below\"", mount("device = \"LABEL=x\""));
    check(&two, &["5:9 mounts `m` and `n` lie over each other: /mnt/m/below"]);
    check("[hosts.a.mounts.\"a/b\"]\ndevice = \"LABEL=x\"", &["1:17 `a/b` is no name in `mounts`"]);
}
