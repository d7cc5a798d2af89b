//! The network of a machine that fife runs, against the real kernel and servers that nobody here wrote.
//!
//! Owns: a world of two network namespaces joined by cables, one for the machine and one for everything outside.
//! Called by: `cargo test`. Never: touches the network of the machine that runs the tests.
//!
//! A test runs itself again in namespaces of its own (unshare(1)); its servers end with them. Without root that needs user
//! namespaces; where there are none either, the test says so.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Write};
use std::net::{IpAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use fife::config::load::parse;
use fife::supervisor::boot::names;
use fife::supervisor::boot::network::{DhcpReport, Network, Options, Report, Settings};
use nix::sched::{CloneFlags, setns};
use nix::unistd::geteuid;
use serde_json::Value;

use crate::harness::{DEADLINE, good, run, text, wait_for};

/// Set in the run within the namespaces.
const INSIDE: &str = "FIFE_TEST_WORLD";
const OUTSIDE: &str = "/run/netns/outside";

/// The machine's side of the cables is where the test runs; the other is the namespace `outside`.
struct World;

/// Runs the test that calls this in namespaces of its own.
fn in_world(body: impl FnOnce(&World)) {
    if std::env::var_os(INSIDE).is_some() {
        ip("netns add outside");
        return body(&World);
    }
    let thread = std::thread::current();
    let name = thread.name().expect("the harness names threads by their tests");
    let mut namespaces = vec![
        "--net",
        "--uts",
        "--mount",
        "--propagation",
        "private",
        "--pid",
        "--fork",
        "--kill-child",
        "--mount-proc",
    ];
    if !geteuid().is_root() {
        namespaces.extend(["--user", "--map-root-user"]);
        let trial = run("unshare", &[namespaces.as_slice(), &["true"]].concat(), b"");
        if !trial.status.success() {
            println!("not root, and no namespaces without: {}", text(&trial));
            return;
        }
    }
    let exe = std::env::current_exe().unwrap();
    let shell = format!(
        "mount -t tmpfs none /run && {INSIDE}=1 exec {} --exact {name} --nocapture --test-threads=1",
        exe.display()
    );
    let output = run("unshare", &[namespaces.as_slice(), &["bash", "-c", &shell]].concat(), b"");
    let told = good(&output);
    assert!(told.contains("1 passed"), "{name}: {}", text(&output));
    print!("{told}");
}

/// `ip WORDS`.
fn ip(words: &str) -> String {
    good(&run("ip", &words.split(' ').collect::<Vec<_>>(), b""))
}

/// `ip -j WORDS`.
fn ip_json(words: &str) -> Vec<Value> {
    let told = ip(&format!("-j {words}"));
    if told.trim().is_empty() { Vec::new() } else { serde_json::from_str(&told).unwrap() }
}

impl World {
    /// A cable from the machine to the outside.
    fn cable(&self, inside: &str, outside: &str) {
        ip(&format!("link add {inside} type veth peer name {outside} netns outside"));
        self.ip_outside(&format!("link set {outside} up"));
    }

    fn ip_outside(&self, words: &str) -> String {
        ip(&format!("-n outside {words}"))
    }

    /// Does it outside: sockets that are opened there stay there.
    fn outside<T: Send>(&self, act: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                setns(File::open(OUTSIDE).unwrap(), CloneFlags::CLONE_NEWNET).unwrap();
                act()
            });
            thread.join().unwrap()
        })
    }

    /// Starts a server outside; what it says goes to `/run/NAME.log`. It ends with the world at the latest.
    fn serve(&self, program: &str, args: &[&str]) -> Server {
        let name = Path::new(program).file_name().unwrap().to_str().unwrap();
        let log = format!("/run/{name}.log");
        let file = File::create(&log).unwrap();
        let child = Command::new("nsenter")
            .arg(format!("--net={OUTSIDE}"))
            .arg(program)
            .args(args)
            .stdin(Stdio::null())
            .stdout(file.try_clone().unwrap())
            .stderr(file)
            .spawn()
            .unwrap();
        Server { child, log }
    }
}

struct Server {
    child: Child,
    log: String,
}

impl Server {
    fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }

    fn wait_for(&self, what: &str, times: usize) {
        wait_for(what, || self.log().matches(what).count() >= times, || self.log());
    }
}

/// Waits for what a server says, and lets the runtime's tasks run meanwhile.
async fn waited_for(server: Server, what: &'static str, times: usize) -> Server {
    let wait = move || {
        server.wait_for(what, times);
        server
    };
    tokio::task::spawn_blocking(wait).await.unwrap()
}

impl Drop for Server {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
        if std::thread::panicking() {
            eprintln!("--- {}\n{}", self.log, self.log());
        }
    }
}

/// The settings of the host `mail1` with these tables.
fn settings(tables: &str) -> Settings {
    let site = "[site]\nname = \"s\"\ndomain = \"example.test\"\n[hosts.mail1]\nroles = [\"ldap-proxy\", \"pop-imap\", \"smtp\"]\n";
    let loaded =
        parse(Path::new("fife.toml"), &format!("{site}{tables}"), &[]).unwrap_or_else(|faults| panic!("{faults}"));
    Settings::of(&loaded, "mail1")
}

fn start(settings: Settings) -> Network {
    let options =
        Options { resolv_conf: "/run/resolv.conf".into(), set_host_name: names::set_host_name, load_module: |_| () };
    Network::start(settings, options).unwrap()
}

async fn until(network: &Network, what: &str, condition: impl FnMut(&Report) -> bool) -> Report {
    let mut watch = network.watch();
    let found = tokio::time::timeout(DEADLINE, watch.wait_for(condition)).await;
    match found {
        Ok(report) => report.unwrap().clone(),
        Err(_) => panic!("waited for {what}: {:#?}\n{}", network.report(), ip("addr")),
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

/// Addresses of a link as ip(8) tells them, link-local ones left out.
fn addresses(link: &str) -> Vec<String> {
    let link = ip_json(&format!("addr show dev {link}"));
    let list = link.iter().flat_map(|link| link["addr_info"].as_array().cloned().unwrap_or_default());
    let global = list.filter(|address| address["scope"] != "link");
    global.map(|address| format!("{}/{}", address["local"].as_str().unwrap(), address["prefixlen"])).collect()
}

/// Routers to everywhere as ip(8) tells them.
fn gateways(family: &str) -> Vec<String> {
    let routes = ip_json(&format!("{family} route show default"));
    routes.iter().map(|route| route["gateway"].as_str().unwrap().to_owned()).collect()
}

fn ips(texts: &[&str]) -> Vec<IpAddr> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

#[test]
fn without_a_word_in_the_toml_cards_ask_by_dhcp() {
    in_world(|world| {
        world.cable("eth0", "out0");
        // A card without a cable is no hindrance.
        ip("link add eth1 type veth peer name out1 netns outside");
        world.ip_outside("addr add 192.0.2.1/24 dev out0");
        let server = world.serve(
            "dnsmasq",
            &[
                "--keep-in-foreground",
                "--conf-file=/dev/null",
                "--port=0",
                "--user=root",
                "--log-facility=-",
                "--log-dhcp",
                "--pid-file=/run/dnsmasq.pid",
                "--dhcp-leasefile=/run/leases",
                "--interface=out0",
                "--dhcp-authoritative",
                "--dhcp-range=192.0.2.50,192.0.2.59,2m",
                "--dhcp-option=option:router,192.0.2.1",
                "--dhcp-option=option:dns-server,192.0.2.1,192.0.2.2",
                "--dhcp-option=option:ntp-server,192.0.2.123",
                "--dhcp-option-force=12,mail7.example.test",
                "--no-ping",
            ],
        );
        runtime().block_on(async {
            let network = start(Settings::automatic());
            let report = network.settled(DEADLINE).await;
            assert!(report.settled, "{report:#?}");
            let leased = addresses("eth0");
            assert_eq!(leased.len(), 1, "{leased:?}");
            assert!(leased[0].starts_with("192.0.2.5") && leased[0].ends_with("/24"), "{leased:?}");
            assert_eq!(gateways("-4"), ["192.0.2.1"]);
            assert_eq!(report.dns, ips(&["192.0.2.1", "192.0.2.2"]));
            assert_eq!(report.time_servers, ips(&["192.0.2.123"]));
            assert_eq!(report.interfaces[0].addresses, leased);
            assert_eq!(report.interfaces[0].dhcp, DhcpReport::Leased { server: ips(&["192.0.2.1"])[0] });
            assert_eq!(report.interfaces[1].to_string(), "eth1: no cable");
            let written = std::fs::read_to_string("/run/resolv.conf").unwrap();
            assert!(written.ends_with("nameserver 192.0.2.1\nnameserver 192.0.2.2\n"), "{written}");
            assert_eq!(nix::unistd::gethostname().unwrap(), "mail7");
            assert!(ip("addr show dev lo").contains("127.0.0.1/8"), "the loopback interface is switched on");

            world.ip_outside("link set out0 down");
            until(&network, "the cable to be out", |report| !report.interfaces[0].carrier).await;
            assert_eq!(addresses("eth0"), leased, "the lease holds although the cable is out");
            let asked = server.log().matches("DHCPDISCOVER").count();
            world.ip_outside("link set out0 up");
            until(&network, "the cable to be in", |report| report.settled).await;
            let server = waited_for(server, "DHCPACK", 2).await;
            assert_eq!(server.log().matches("DHCPDISCOVER").count(), asked, "the known address is asked for again");
        });
    });
}

#[test]
fn a_lease_that_runs_out_takes_its_address_with_it_and_is_asked_for_again() {
    in_world(|world| {
        world.cable("eth0", "out0");
        world.ip_outside("addr add 198.51.100.1/24 dev out0");
        let conf = "start 198.51.100.20\nend 198.51.100.30\ninterface out0\nlease_file /run/udhcpd.leases\npidfile /run/udhcpd.pid\nmin_lease 1\noption subnet 255.255.255.0\noption router 198.51.100.1\noption lease 4\n";
        std::fs::write("/run/udhcpd.conf", conf).unwrap();
        std::fs::write("/run/udhcpd.leases", "").unwrap();
        runtime().block_on(async {
            let network = start(settings("[hosts.mail1.network.eth0]\ndhcp = true\nrouter-advertisements = false\n"));
            let silent = until(&network, "the cable to be seen", |report| {
                report.interfaces.first().is_some_and(|interface| interface.dhcp == DhcpReport::Asking)
            });
            let silent = silent.await;
            assert!(!silent.settled);
            assert_eq!(silent.interfaces[0].to_string(), "eth0: up, no DHCP server answers");
            assert_eq!(nix::unistd::gethostname().unwrap(), "mail1");

            let server = world.serve("busybox", &["udhcpd", "-f", "/run/udhcpd.conf"]);
            until(&network, "a lease", |report| report.settled).await;
            assert_eq!(addresses("eth0").len(), 1);
            assert_eq!(gateways("-4"), ["198.51.100.1"]);
            // Renewed at half its time, and nothing changes by it.
            let server = waited_for(server, "sending ACK", 2).await;
            assert!(network.report().settled);
            drop(server);
            until(&network, "the lease to run out", |report| !report.settled).await;
            assert_eq!(addresses("eth0"), [""; 0]);
            assert_eq!(gateways("-4"), [""; 0]);
            let _server = world.serve("busybox", &["udhcpd", "-f", "/run/udhcpd.conf"]);
            until(&network, "a lease again", |report| report.settled).await;
            assert_eq!(addresses("eth0").len(), 1);
        });
    });
}

#[test]
fn given_addresses_are_changed_as_a_difference() {
    in_world(|world| {
        world.cable("card7", "out0");
        for address in ["192.0.2.1/24", "2001:db8::1/64"] {
            world.ip_outside(&format!("addr add {address} dev out0 nodad"));
        }
        let mac = ip_json("link show dev card7")[0]["address"].as_str().unwrap().to_owned();
        let lan = |more: &str| {
            settings(&format!(
                "[hosts.mail1.network.lan]\nmac = \"{mac}\"\n{more}\n[dns]\nservers = [\"192.0.2.53\"]\n"
            ))
        };
        runtime().block_on(async {
            let first = "address = [\"192.0.2.11/24\", \"2001:db8::11/64\", \"192.0.2.12/24\"]\ngateway = [\"192.0.2.1\", \"2001:db8::1\"]\nmtu = 1400\nroutes = [{ to = \"10.0.0.0/8\", via = \"192.0.2.254\" }]";
            let network = start(lan(first));
            let report = network.settled(DEADLINE).await;
            assert_eq!(report.faults, [""; 0]);
            assert_eq!(report.interfaces[0].name, "lan");
            assert_eq!(report.interfaces[0].link, "card7");
            assert_eq!(addresses("card7"), ["192.0.2.11/24", "192.0.2.12/24", "2001:db8::11/64"]);
            assert_eq!((gateways("-4"), gateways("-6")), (vec!["192.0.2.1".to_owned()], vec!["2001:db8::1".to_owned()]));
            assert!(ip("route show 10.0.0.0/8").starts_with("10.0.0.0/8 via 192.0.2.254 dev card7"));
            assert_eq!(ip_json("link show dev card7")[0]["mtu"], 1400);
            assert!(std::fs::read_to_string("/run/resolv.conf").unwrap().ends_with("nameserver 192.0.2.53\n"));

            // Here only addresses can be listened on of which it is known that nobody else has them.
            wait_for("nobody to have the address", || ip("-6 addr show dev card7 tentative").is_empty(), String::new);
            // Connections over an address that stays do not notice that its neighbours come and go.
            let mut connections = Vec::new();
            for (at, from) in [("192.0.2.11:25", "192.0.2.1:0"), ("[2001:db8::11]:25", "[2001:db8::1]:0")] {
                let listener = TcpListener::bind(at).unwrap();
                let client = world.outside(|| {
                    let socket = TcpStream::connect(at).unwrap();
                    assert_eq!(socket.peer_addr().unwrap().to_string(), at, "from {from}");
                    socket
                });
                connections.push((client, listener.accept().unwrap().0));
            }
            let moved = "address = [\"192.0.2.11/24\", \"2001:db8::11/64\", \"192.0.2.10/24\", \"2001:db8::10/64\"]\ngateway = [\"192.0.2.1\"]";
            let watch = Command::new("ip").args(["monitor", "address"]).stdout(Stdio::piped()).spawn();
            let mut monitor = watch.unwrap();
            network.change(lan(moved));
            until(&network, "the change", |report| {
                let of = report.interfaces.first().map(|interface| interface.addresses.clone()).unwrap_or_default();
                of.contains(&"2001:db8::10/64".to_owned()) && !of.contains(&"192.0.2.12/24".to_owned()) && report.settled
            })
            .await;
            assert_eq!(addresses("card7"), ["192.0.2.11/24", "192.0.2.10/24", "2001:db8::10/64", "2001:db8::11/64"]);
            assert_eq!((gateways("-4"), gateways("-6")), (vec!["192.0.2.1".to_owned()], vec![]));
            assert_eq!(ip("route show 10.0.0.0/8"), "");
            assert_eq!(ip_json("link show dev card7")[0]["mtu"], 1500);
            for (client, server) in &mut connections {
                client.write_all(b"still here").unwrap();
                let mut heard = [0; 10];
                server.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
                server.read_exact(&mut heard).unwrap();
            }
            monitor.kill().unwrap();
            let mut said = String::new();
            monitor.stdout.take().unwrap().read_to_string(&mut said).unwrap();
            monitor.wait().unwrap();
            assert!(!said.contains("192.0.2.11/") && !said.contains("2001:db8::11/"), "what stays is not touched:\n{said}");

            // The first address of its network goes, the others stay.
            network.change(lan("address = [\"192.0.2.10/24\"]\ngateway = \"192.0.2.1\""));
            until(&network, "the first address to go", |report| report.interfaces[0].addresses == ["192.0.2.10/24"]).await;
            assert_eq!(addresses("card7"), ["192.0.2.10/24"]);
            assert_eq!(gateways("-4"), ["192.0.2.1"]);
            // What somebody else gives the card is not ours to take.
            ip("addr add 203.0.113.7/32 dev card7");
            until(&network, "the foreign address to be seen", |report| report.interfaces[0].addresses.len() == 2).await;
            // What somebody takes from it is given again.
            ip("addr del 192.0.2.10/24 dev card7");
            until(&network, "the address to come back", |report| {
                report.interfaces[0].addresses == ["192.0.2.10/24", "203.0.113.7/32"]
            })
            .await;
            assert_eq!(gateways("-4"), ["192.0.2.1"], "and the route that went with it");
            // A card that no table speaks of any more is left.
            network.change(settings("[hosts.mail1.network.eth9]\naddress = [\"192.0.2.10/24\"]\n"));
            let report = until(&network, "a card that is missing", |report| !report.faults.is_empty()).await;
            assert_eq!(report.faults, ["eth9: no card has the name eth9"]);
            assert_eq!(addresses("card7"), ["203.0.113.7/32"]);
        });
    });
}

#[test]
fn ipv6_routers_give_addresses_and_name_dns_servers() {
    in_world(|world| {
        world.cable("eth0", "out0");
        world.outside(|| {
            std::fs::write("/proc/sys/net/ipv6/conf/all/forwarding", "1").unwrap();
        });
        let conf = "interface out0 {\n AdvSendAdvert on;\n MinRtrAdvInterval 3;\n MaxRtrAdvInterval 10;\n prefix 2001:db8:5::/64 { };\n RDNSS 2001:db8:5::53 { AdvRDNSSLifetime 600; };\n};\n";
        std::fs::write("/run/radvd.conf", conf).unwrap();
        let table = |on: bool, more: &str| {
            settings(&format!("[hosts.mail1.network.eth0]\ndhcp = false\nrouter-advertisements = {on}\n{more}"))
        };
        runtime().block_on(async {
            // Not told to listen: what is heard is nobody's.
            let network = start(table(false, "address = [\"192.0.2.11/24\"]\n"));
            network.settled(DEADLINE).await;
            let _server = world.serve(
                "radvd",
                &["--nodaemon", "--logmethod=stderr", "--config=/run/radvd.conf", "--pidfile=/run/radvd.pid"],
            );
            network.change(table(true, "address = [\"192.0.2.11/24\"]\n"));
            let report = until(&network, "an address and a server", |report| {
                report.dns == ips(&["2001:db8:5::53"]) && report.settled
            })
            .await;
            let own = addresses("eth0");
            assert_eq!(own.len(), 2, "{own:?}");
            assert!(own[1].starts_with("2001:db8:5:") && own[1].ends_with("/64"), "{own:?}");
            assert_eq!(report.interfaces[0].addresses, own);
            let router = gateways("-6");
            assert!(router.len() == 1 && router[0].starts_with("fe80:"), "{router:?}");
            assert_eq!(report.gateways, ips(&[&router[0]]));
            network.change(table(false, "address = [\"192.0.2.11/24\"]\n"));
            until(&network, "what was advertised to go", |report| report.interfaces[0].addresses == ["192.0.2.11/24"])
                .await;
            assert_eq!(gateways("-6"), [""; 0]);
        });
    });
}

#[test]
fn bonds_and_vlans_are_made_changed_and_taken_away() {
    in_world(|world| {
        for link in ["probe type bond", "probe type vlan id 2 link lo"] {
            let words: Vec<&str> = ["link", "add"].into_iter().chain(link.split(' ')).collect();
            if !run("ip", &words, b"").status.success() {
                println!("the kernel has no bonding or no VLANs: tests of the image have a kernel that has");
                return;
            }
            ip("link del probe");
        }
        bonds_and_vlans(world);
    });
}

fn bonds_and_vlans(world: &World) {
    world.cable("eth0", "out0");
    world.cable("eth1", "out1");
    world.ip_outside("link add sw type bridge");
    for words in ["out0 master sw", "out1 master sw", "sw up"] {
        world.ip_outside(&format!("link set {words}"));
    }
    world.ip_outside("link add link sw name sw10 type vlan id 10");
    world.ip_outside("link set sw10 up");
    world.ip_outside("addr add 192.0.2.1/24 dev sw");
    world.ip_outside("addr add 198.51.100.1/24 dev sw10");
    let bond = |more: &str| {
        format!("[hosts.mail1.network.bond0]\nbond = [\"eth0\", \"eth1\"]\naddress = [\"192.0.2.11/24\"]\n{more}\n")
    };
    let vlan = "[hosts.mail1.network.staff]\nvlan = { of = \"bond0\", id = 10 }\naddress = [\"198.51.100.11/24\"]\n";
    let reach = |at: &str, from: &World| {
        let listener = TcpListener::bind(at).unwrap();
        let at = listener.local_addr().unwrap();
        from.outside(|| TcpStream::connect_timeout(&at, Duration::from_secs(10)).unwrap());
    };
    runtime().block_on(async {
        let network = start(settings(&(bond("") + vlan)));
        let report = until(&network, "bond and VLAN", |report| report.settled && report.interfaces.len() == 4).await;
        assert_eq!(report.faults, [""; 0]);
        let of: BTreeMap<String, Option<String>> =
            report.interfaces.iter().map(|interface| (interface.name.clone(), interface.bond.clone())).collect();
        assert_eq!(of["eth0"].as_deref(), Some("bond0"));
        assert_eq!(of["bond0"], None);
        let data = ip_json("-d link show dev bond0")[0]["linkinfo"]["info_data"].clone();
        assert_eq!((&data["mode"], &data["miimon"]), (&"active-backup".into(), &100.into()));
        assert_eq!(ip_json("-d link show dev staff")[0]["linkinfo"]["info_data"]["id"], 10);
        reach("192.0.2.11:0", world);
        reach("198.51.100.11:0", world);
        // One cable out: the other one carries on.
        let active = ip_json("-d link show dev bond0")[0]["linkinfo"]["info_data"]["active_slave"].clone();
        world.ip_outside(&format!("link set {} down", if active == "eth0" { "out0" } else { "out1" }));
        until(&network, "a cable to be out", |report| report.interfaces.iter().any(|interface| !interface.carrier))
            .await;
        reach("192.0.2.11:0", world);
        world.ip_outside("link set out0 up");
        world.ip_outside("link set out1 up");

        network.change(settings(&(bond("bond-monitoring-interval = \"50ms\"") + &vlan.replace("10 }", "11 }"))));
        until(&network, "another VLAN", |report| report.settled && ip("-d link show dev staff").contains("id 11"))
            .await;
        assert_eq!(ip_json("-d link show dev bond0")[0]["linkinfo"]["info_data"]["miimon"], 50);
        network.change(settings(&bond("bond-mode = \"802.3ad\"")));
        until(&network, "another mode", |_| ip("-d link show dev bond0").contains("mode 802.3ad")).await;
        assert!(!run("ip", &["link", "show", "dev", "staff"], b"").status.success(), "the VLAN is taken away");
        network.change(settings("[hosts.mail1.network.eth0]\naddress = [\"192.0.2.11/24\"]\n"));
        let report = until(&network, "a card alone", |report| report.settled && report.interfaces.len() == 1).await;
        assert_eq!(report.interfaces[0].addresses, ["192.0.2.11/24"]);
        assert!(!run("ip", &["link", "show", "dev", "bond0"], b"").status.success(), "the bond is taken away");
        reach("192.0.2.11:0", world);
    });
}
