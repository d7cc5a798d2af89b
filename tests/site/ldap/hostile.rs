//! Clients that send what is no LDAP, or never all of it, or read nothing.

use std::io::{Read, Write};
use std::net::TcpStream;

use super::{first_administrator, start, tool};
use crate::harness::{DEADLINE, Site, good};

#[test]
fn octets_that_are_not_ldap_are_answered_with_the_end_and_hurt_nobody() {
    let site = start();
    let pid = site.role_pid("ldap-proxy");
    let mut deep = vec![0x04, 0x00];
    for _ in 0..10_000 {
        let len = u32::try_from(deep.len()).unwrap().to_be_bytes();
        deep = [&[0xa2, 0x84][..], &len, &deep].concat();
    }
    let len = u32::try_from(deep.len() + 9).unwrap().to_be_bytes();
    let inner = u32::try_from(deep.len()).unwrap().to_be_bytes();
    let deep = [&[0x30, 0x84][..], &len, &[2, 1, 1, 0x63, 0x84], &inner, &deep].concat();
    let huge = [0x30, 0x84, 0x7f, 0xff, 0xff, 0xff, 0x02, 0x01, 0x01];
    let many =
        [&[0x30, 0x82, 0xea, 0x66, 0x02, 0x01, 0x01, 0x63, 0x82, 0xea, 0x5f][..], &[5, 0].repeat(30_000)].concat();
    for (what, octets) in [
        ("another protocol", b"GET / HTTP/1.1\r\n\r\n".to_vec()),
        ("NUL", vec![0; 5000]),
        ("a length of two gigabytes", huge.to_vec()),
        ("nesting", deep),
        ("many elements", many),
        ("an indefinite length", vec![0x30, 0x80, 2, 1, 1, 0x42, 0, 0, 0]),
        ("a response", vec![0x30, 0x0c, 2, 1, 1, 0x61, 7, 10, 1, 0, 4, 0, 4, 0]),
    ] {
        let mut stream = TcpStream::connect(site.addr("ldap")).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        // The server may have closed before all of it is written.
        drop(stream.write_all(&octets));
        let mut answer = Vec::new();
        drop(stream.read_to_end(&mut answer));
        let notice = b"1.3.6.1.4.1.1466.20036";
        assert!(answer.windows(notice.len()).any(|window| window == notice), "{what}: {answer:02x?}");
    }
    assert!(tool(&site, "ldapwhoami", &[], "").status.success());
    assert_eq!(site.role_pid("ldap-proxy"), pid, "the same process");
}

/// What a script prints that talks to the plain port octet by octet; `search` is a search of the schema, `pipelined` a StartTLS with a
/// request behind it.
const RAW: &str = r#"
import socket, ssl, sys, time
ip, port = sys.argv[1], int(sys.argv[2])
def ber(tag, content):
    head = bytes([tag, len(content)]) if len(content) < 128 else bytes([tag, 0x82, len(content) >> 8, len(content) & 255])
    return head + content
def message(n, operation): return ber(0x30, ber(2, bytes([n])) + operation)
def search(base, flt): return ber(0x63, ber(4, base) + b"\x0a\x01\x00\x0a\x01\x00\x02\x01\x00\x02\x01\x00\x01\x01\x00" + flt + ber(0x30, b""))
START_TLS = ber(0x77, ber(0x80, b"1.3.6.1.4.1.1466.20037"))
WHOAMI = ber(0x77, ber(0x80, b"1.3.6.1.4.1.4203.1.11.3"))
def connect():
    return socket.create_connection((ip, port), 60)
def until_closed(s):
    out = b""
    while True:
        try: piece = s.recv(65536)
        except ConnectionError: return out
        if not piece: return out
        out += piece

# A request behind StartTLS, in the clear: neither answered nor carried over into TLS.
s = connect(); s.sendall(message(1, START_TLS) + message(2, WHOAMI))
print("pipelined", b"1.3.6.1.4.1.1466.20036" in until_closed(s))
# StartTLS alone works, and within it nothing is answered that was not asked there.
s = connect(); s.sendall(message(1, START_TLS)); s.recv(4096)
context = ssl.create_default_context(); context.check_hostname = False; context.verify_mode = ssl.CERT_NONE
t = context.wrap_socket(s); t.sendall(message(3, WHOAMI)); answer = t.recv(4096)
print("within", b"\x02\x01\x03" in answer and b"\x02\x01\x02" not in answer)

# Drips and silence: closed within the patience of the server, however alive the client looks.
for what, drip in (("drip", message(1, WHOAMI)[:-1]), ("silent", b"")):
    s = connect(); s.settimeout(0.2); closed = False
    for n in range(200):
        try:
            if n < len(drip): s.sendall(drip[n:n+1])
            if s.recv(4096) == b"": closed = True; break
        except TimeoutError: pass
        except ConnectionError: closed = True; break
    print(what, closed)

# Requests without end, no answer read: the server stops reading instead of storing answers.
s = connect(); s.settimeout(3); flood = message(1, search(b"cn=subschema", ber(0x87, b"objectClass"))) * 200; sent = 0
try:
    while sent < 50_000_000: sent += s.send(flood)
    print("flood", False)
except (TimeoutError, ConnectionError): print("flood", True)
s.close()
# Abandon without end: read and forgotten; the question behind them is answered.
s = connect(); s.sendall(message(1, ber(0x50, b"\x01")) * 20000 + message(9, WHOAMI))
print("abandon", b"\x02\x01\x09" in s.recv(4096))
# A filter of many assertions, from a stranger.
s = connect(); s.sendall(message(1, search(b"cn=subschema", ber(0xa1, ber(0x87, b"cn") * 500)))); answer = s.recv(4096)
print("filter", b"the filter is too large" in answer)
"#;

#[test]
fn hostile_clients_are_bounded_in_time_and_memory() {
    let mut site = Site::prepare("[ldap-proxy]\nidle-timeout = \"3s\"\n");
    let toml = std::fs::read_to_string(site.config()).unwrap();
    std::fs::write(site.config(), toml.replace(r#"["ldap-proxy", "pop-imap", "smtp"]"#, r#"["ldap-proxy"]"#)).unwrap();
    site.launch();
    first_administrator(&site);
    let pid = site.role_pid("ldap-proxy").unwrap();
    let memory = || {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap()
    };
    let before = memory();
    let told = good(&crate::harness::python(RAW, &[&site.ip(), &site.port("ldap")]));
    for what in ["pipelined", "within", "drip", "silent", "flood", "abandon", "filter"] {
        assert!(told.contains(&format!("{what} True\n")), "{what}: {told}");
    }
    assert!(memory() < before + 40 * 1024, "{before} KiB, then {} KiB", memory());
    assert_eq!(site.role_pid("ldap-proxy"), Some(pid), "the same process");
}
