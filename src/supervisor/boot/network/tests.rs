//! Tests of what is worked out without a kernel: leases believed, links found, differences, what routers say.
//! Against the real kernel: tests/site/network.rs.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

use mozim::{DhcpV4ClasslessRoute, DhcpV4Lease};

use super::Settings;
use super::dhcp::Lease;
use super::difference::{Action, Ours, difference};
use super::present::{Address, Kind, Link, Present, Route};
use super::routers;
use super::wanted::{Made, wanted};
use crate::config::load::parse;
use crate::config::network::{BondMode, Prefix};

fn answer(ip: &str, mask: &str) -> DhcpV4Lease {
    let mut answer = DhcpV4Lease::default();
    answer.yiaddr = ip.parse().unwrap();
    answer.subnet_mask = mask.parse().unwrap();
    answer.lease_time_sec = 600;
    answer
}

#[test]
fn a_lease_is_believed_as_far_as_a_host_can_have_it() {
    let check = |ip: &str, mask: &str, expected: Option<&str>| {
        let read = Lease::read(&answer(ip, mask)).map(|lease| lease.address.to_string());
        assert_eq!(read.as_deref(), expected, "{ip} {mask}");
    };
    check("192.0.2.7", "255.255.255.0", Some("192.0.2.7/24"));
    check("192.0.2.7", "255.255.255.255", Some("192.0.2.7/32"));
    check("10.1.2.3", "0.0.0.0", Some("10.1.2.3/8")); // no mask: by class
    check("192.0.2.7", "255.0.255.0", None);
    check("0.0.0.0", "255.255.255.0", None);
    check("127.0.0.1", "255.0.0.0", None);
    check("224.0.0.5", "255.255.255.0", None);
    check("192.0.2.255", "255.255.255.0", None);
    check("255.255.255.255", "255.255.255.255", None);
}

#[test]
fn servers_routes_and_names_of_a_lease_are_bounded_and_checked() {
    let v4 = |text: &str| text.parse::<Ipv4Addr>().unwrap();
    let mut full = answer("192.0.2.7", "255.255.255.0");
    full.gateways = Some(vec![v4("0.0.0.0"), v4("192.0.2.1"), v4("192.0.2.2")]);
    full.dns_srvs = Some((0..=255).map(|last| Ipv4Addr::new(203, 0, 113, last)).chain([v4("127.0.0.1")]).collect());
    full.ntp_srvs = Some(vec![v4("224.0.0.1"), v4("192.0.2.9"), v4("192.0.2.9")]);
    full.host_name = Some("Mail.Example\n".into());
    let lease = Lease::read(&full).unwrap();
    assert_eq!(lease.routes, [(Prefix::everywhere(false), Some(v4("192.0.2.1")))]);
    assert_eq!(lease.dns.len(), 6);
    assert_eq!(lease.time_servers, [IpAddr::V4(v4("192.0.2.9"))]);
    assert_eq!(lease.host_name.as_deref(), Some("mail"));
    assert_eq!(lease.holds.unwrap().as_secs(), 600);
    full.lease_time_sec = u32::MAX;
    full.host_name = Some("$(reboot)".into());
    // RFC 3442: then the router option is not looked at.
    let route = |to: &str, prefix_length: u8, via: &str| DhcpV4ClasslessRoute {
        destination: v4(to),
        prefix_length,
        router: v4(via),
    };
    full.classless_routes = Some(vec![
        route("10.0.0.0", 8, "192.0.2.3"),
        route("0.0.0.0", 0, "0.0.0.0"),
        route("127.0.0.0", 8, "192.0.2.3"),
        route("198.51.100.0", 24, "0.0.0.0"),
    ]);
    let lease = Lease::read(&full).unwrap();
    assert_eq!((lease.holds, lease.host_name), (None, None));
    let ten: Prefix = "10.0.0.0/8".parse().unwrap();
    assert_eq!(lease.routes, [(ten, Some(v4("192.0.2.3"))), ("198.51.100.0/24".parse().unwrap(), None)]);
}

fn link(index: u32, name: &str, kind: Kind) -> Link {
    let mac = Some([2, 0, 0, 0, 0, u8::try_from(index).unwrap()].into());
    Link { index, name: name.into(), mac, own_mac: mac, up: true, carrier: true, kind, controller: None, mtu: 1500 }
}

fn settings(tables: &str) -> Settings {
    let site = "[site]\nname = \"s\"\ndomain = \"example.test\"\n[hosts.a]\nroles = [\"ldap-proxy\", \"pop-imap\", \"smtp\"]\n";
    Settings::of(&parse(Path::new("x"), &format!("{site}{tables}"), &[]).unwrap(), "a")
}

fn machine(links: &[(&str, Kind)]) -> Present {
    let links = links.iter().enumerate().map(|(at, (name, kind))| link(u32::try_from(at).unwrap() + 1, name, *kind));
    Present { links: links.collect(), ..Present::default() }
}

#[test]
fn a_card_is_found_by_its_address_or_by_its_name_but_not_twice() {
    let present = machine(&[("lo", Kind::Loopback), ("eth0", Kind::Card), ("eth1", Kind::Card)]);
    let by_mac = "[hosts.a.network.eth1]\nmac = \"02:00:00:00:00:02\"\n";
    let found = wanted(&settings(by_mac), &present, &BTreeMap::new());
    assert_eq!(found.links[&2].label, "eth1");
    assert!(!found.links.contains_key(&3), "eth1 is the label of another card");
    let both = format!("{by_mac}[hosts.a.network.eth0]\n");
    let found = wanted(&settings(&both), &present, &BTreeMap::new());
    assert_eq!(found.missing.keys().collect::<Vec<_>>(), ["eth0"]);
    let none = wanted(&settings(""), &present, &BTreeMap::new());
    assert_eq!(none.dhcp.iter().copied().collect::<Vec<_>>(), [2, 3], "every card asks, the loopback does not");
}

#[test]
fn a_bond_takes_its_members_in_the_order_that_the_kernel_wants() {
    let tables = "[hosts.a.network.b]\nbond = [\"eth0\"]\ndhcp = false\nrouter-advertisements = false\n[hosts.a.network.v]\nvlan = { of = \"b\", id = 7 }\n";
    let mut present = machine(&[("eth0", Kind::Card)]);
    let ask = |present: &Present, ours: &Ours| {
        difference(ours, &wanted(&settings(tables), present, &BTreeMap::new()), present, &[])
    };
    let ours = Ours::default();
    let what = Made::Bond { mode: BondMode::ActiveBackup, monitoring_ms: 100 };
    let make = Action::Make { name: "b".into(), what };
    assert_eq!(ask(&present, &ours), std::slice::from_ref(&make), "first the bond alone");
    // Refused: the rest goes on without it.
    let rest = difference(&ours, &wanted(&settings(tables), &present, &BTreeMap::new()), &present, &[&make]);
    assert!(!rest.is_empty() && !rest.contains(&make));
    present.links.push(link(2, "b", Kind::Bond { mode: Some(BondMode::ActiveBackup), monitoring_ms: 100 }));
    assert_eq!(ask(&present, &ours), [Action::Make { name: "v".into(), what: Made::Vlan { of: 2, id: 7 } }]);
    present.links.push(link(3, "v", Kind::Vlan { of: 2, id: 7 }));
    let of_member: Vec<Action> = ask(&present, &ours)
        .into_iter()
        .filter(|action| matches!(action, Action::Down { .. } | Action::Join { .. } | Action::Up { link: 1 }))
        .collect();
    assert_eq!(of_member, [Action::Down { link: 1 }, Action::Join { link: 1, bond: Some(2) }, Action::Up { link: 1 }]);
    // One that came with the module, of another mode, is made anew.
    present.links[1].kind = Kind::Bond { mode: None, monitoring_ms: 0 };
    assert!(matches!(ask(&present, &ours).as_slice(), [Action::Delete { link: 2, .. }, Action::Make { .. }]));
}

#[test]
fn only_what_is_ours_is_taken_away() {
    let ip = |text: &str| Address { link: 1, ip: text.parse().unwrap(), bits: 24 };
    let route = |metric| Route { link: 1, to: Prefix::everywhere(false), via: "192.0.2.1".parse().ok(), metric };
    let mut present = machine(&[("eth0", Kind::Card)]);
    present.addresses = [ip("192.0.2.10"), ip("192.0.2.11"), ip("192.0.2.99")].into();
    present.routes = [route(0), route(7)].into();
    let mut ours = Ours { addresses: [ip("192.0.2.10"), ip("192.0.2.11")].into(), ..Ours::default() };
    ours.up.insert(1);
    ours.routers.insert(1, false);
    ours.routes.insert(route(0));
    let tables = "[hosts.a.network.eth0]\naddress = [\"192.0.2.11/24\", \"192.0.2.12/24\"]\n";
    let wanted = wanted(&settings(tables), &present, &BTreeMap::new());
    let actions = difference(&ours, &wanted, &present, &[]);
    let expected =
        [Action::AddAddress(ip("192.0.2.12")), Action::RemoveAddress(ip("192.0.2.10")), Action::RemoveRoute(route(0))];
    assert_eq!(actions, expected);
    for action in &actions {
        ours.note(action, &present);
    }
    assert_eq!(ours.addresses, [ip("192.0.2.11"), ip("192.0.2.12")].into());
}

#[test]
fn what_routers_say_of_dns_is_read_within_its_bounds() {
    let option = |lifetime: u32, last: &[u8]| {
        let mut option = vec![25, 1 + 2 * u8::try_from(last.len()).unwrap(), 0, 0];
        option.extend(lifetime.to_be_bytes());
        for last in last {
            option.extend([0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, *last]);
        }
        option
    };
    let message = |kind: u16, options: &[u8]| {
        let mut message = u32::try_from(32 + options.len()).unwrap().to_ne_bytes().to_vec();
        message.extend(kind.to_ne_bytes());
        message.resize(16, 0);
        message.extend([10, 0]);
        message.extend(u16::try_from(options.len()).unwrap().to_ne_bytes());
        message.extend(3_u32.to_ne_bytes());
        message.resize(32, 0);
        message.extend(options);
        message
    };
    let good = message(68, &[option(60, &[1, 2]), vec![31, 1, 0, 0, 0, 0, 0, 0], option(0, &[3])].concat());
    let said = routers::read(&[good.clone(), message(20, &option(1, &[9]))].concat());
    assert_eq!(said.len(), 2);
    assert_eq!((said[0].link, said[0].lifetime_secs, said[0].servers.len()), (3, 60, 2));
    assert_eq!(said[1].servers[0].to_string(), "2001:db8::3");
    // Cut anywhere, and with any octet wrong, it is read or not, and nothing else.
    for at in 0..good.len() {
        routers::read(&good[..at]);
        for octet in [0, 1, 0x7f, 0xff] {
            let mut bad = good.clone();
            bad[at] = octet;
            routers::read(&bad);
        }
    }
}
