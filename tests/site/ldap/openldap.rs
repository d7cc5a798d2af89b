//! The roles' client at OpenLDAP's own server.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use fife::config::address::SocketAddress;
use fife::config::directory::Directory as Settings;
use fife::config::secret::SecretText;
use fife::directory::{AuthError, Directory, Recipient};

use super::{account, address, runtime, secret};
use crate::harness::{good, run, wait_for};

/// OpenLDAP's server with the attributes of qmail.schema that fife reads.
struct Slapd {
    child: Child,
    dir: tempfile::TempDir,
}

impl Slapd {
    fn start(urls: &str) -> Self {
        let dir = tempfile::Builder::new().prefix("slapd").tempdir_in("/tmp").unwrap();
        let path = |name: &str| dir.path().join(name);
        std::fs::create_dir(path("data")).unwrap();
        std::fs::write(path("qmail.schema"), QMAIL_SCHEMA).unwrap();
        make_certificates(dir.path());
        std::fs::write(path("slapd.conf"), slapd_conf(dir.path())).unwrap();
        let loaded = run("slapadd", &["-f", path("slapd.conf").to_str().unwrap()], SLAPD_LDIF.as_bytes());
        good(&loaded);
        let child = Command::new("/usr/sbin/slapd")
            .args(["-d", "stats", "-h", &format!("{urls} {}", Self::socket(dir.path()).1), "-f"])
            .arg(path("slapd.conf"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(path("log")).unwrap())
            .spawn()
            .expect("slapd starts");
        let slapd = Self { child, dir };
        let up = || run("ldapwhoami", &["-x", "-H", &Self::socket(slapd.dir.path()).1], b"").status.success();
        wait_for("slapd", up, String::new);
        slapd
    }

    fn socket(dir: &Path) -> (PathBuf, String) {
        let path = dir.join("ldapi");
        let url = format!("ldapi://{}", path.display().to_string().replace('/', "%2F"));
        (path, url)
    }
}

impl Drop for Slapd {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

const QMAIL_SCHEMA: &str = "
attributetype ( 1.3.6.1.4.1.7914.1.2.1.4 NAME 'mailAlternateAddress' EQUALITY caseIgnoreIA5Match SYNTAX 1.3.6.1.4.1.1466.115.121.1.26{256} )
attributetype ( 1.3.6.1.4.1.7914.1.2.1.7 NAME 'mailForwardingAddress' EQUALITY caseIgnoreIA5Match SYNTAX 1.3.6.1.4.1.1466.115.121.1.26{256} )
attributetype ( 1.3.6.1.4.1.7914.1.2.1.10 NAME 'deliveryMode' EQUALITY caseIgnoreIA5Match SYNTAX 1.3.6.1.4.1.1466.115.121.1.26{32} )
attributetype ( 1.3.6.1.4.1.7914.1.2.1.12 NAME 'accountStatus' EQUALITY caseIgnoreIA5Match SYNTAX 1.3.6.1.4.1.1466.115.121.1.26 SINGLE-VALUE )
attributetype ( 1.3.6.1.4.1.7914.1.2.1.15 NAME 'mailQuotaSize' EQUALITY integerMatch SYNTAX 1.3.6.1.4.1.1466.115.121.1.27 SINGLE-VALUE )
objectclass ( 1.3.6.1.4.1.7914.1.2.2.1 NAME 'qmailUser' SUP top AUXILIARY MUST ( mail ) MAY ( uid $ userPassword $ mailAlternateAddress $ mailForwardingAddress $ deliveryMode $ accountStatus $ mailQuotaSize ) )
";

fn slapd_conf(dir: &Path) -> String {
    let dir = dir.display();
    let uid = nix::unistd::geteuid();
    let gid = nix::unistd::getegid();
    format!(
        "include /etc/ldap/schema/core.schema
include /etc/ldap/schema/cosine.schema
include /etc/ldap/schema/inetorgperson.schema
include {dir}/qmail.schema
modulepath /usr/lib/ldap
moduleload back_mdb
pidfile {dir}/pid
TLSCACertificateFile {dir}/ca.pem
TLSCertificateFile {dir}/cert.pem
TLSCertificateKeyFile {dir}/key.pem
authz-regexp gidNumber={gid}.uidNumber={uid},cn=peercred,cn=external,cn=auth cn=reader,dc=school,dc=test
database mdb
suffix dc=school,dc=test
rootdn cn=root,dc=school,dc=test
directory {dir}/data
index mail,mailAlternateAddress eq
access to attrs=userPassword by anonymous auth by * none
access to * by dn.exact=cn=reader,dc=school,dc=test read by * none
"
    )
}

const SLAPD_LDIF: &str = "dn: dc=school,dc=test
objectClass: organization
objectClass: dcObject
o: School
dc: school

dn: cn=reader,dc=school,dc=test
objectClass: organizationalRole
objectClass: simpleSecurityObject
cn: reader
userPassword: reads

dn: ou=school.test,dc=school,dc=test
objectClass: organizationalUnit
objectClass: domainRelatedObject
ou: school.test
associatedDomain: school.test

dn: uid=wf,ou=school.test,dc=school,dc=test
objectClass: inetOrgPerson
objectClass: qmailUser
uid: wf
cn: Wang Fang
sn: Wang
mail: wf@school.test
mailAlternateAddress: fang.wang@school.test
mailQuotaSize: 1000000
userPassword: {SSHA}86ViTDmHyaaGX8LPHG0gPUH/vURID0LH

dn: uid=old,ou=school.test,dc=school,dc=test
objectClass: inetOrgPerson
objectClass: qmailUser
uid: old
cn: Old
sn: Old
mail: old@school.test
accountStatus: disabled
userPassword: {SSHA}86ViTDmHyaaGX8LPHG0gPUH/vURID0LH

dn: cn=info,ou=school.test,dc=school,dc=test
objectClass: applicationProcess
objectClass: qmailUser
cn: info
mail: info@school.test
deliveryMode: nolocal
mailForwardingAddress: wf@school.test
";

/// A certificate authority, and a certificate for `ldap.school.test` from it.
pub(super) fn make_certificates(dir: &Path) {
    let script = r#"
set -e
cd "$1"
new() { openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout "$1" -subj "$2" "${@:3}" 2>/dev/null; }
new ca.key /CN=School -x509 -days 2 -out ca.pem
new key.pem /CN=ldap.school.test -out request.pem
printf 'subjectAltName=DNS:ldap.school.test' > san
openssl x509 -req -in request.pem -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile san -out cert.pem 2>/dev/null
"#;
    good(&run("bash", &["-c", script, "-", dir.to_str().unwrap()], b""));
}

#[test]
fn roles_ask_openldap_over_tls_and_only_the_one_that_they_trust() {
    use fife::config::directory::Tls;
    let free = || std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (plain, tls) = (free(), free());
    let slapd = Slapd::start(&format!("ldap://{plain} ldaps://{tls}"));
    let authority = secret(&std::fs::read_to_string(slapd.dir.path().join("ca.pem")).unwrap());
    let other = tempfile::tempdir().unwrap();
    make_certificates(other.path());
    let another = secret(&std::fs::read_to_string(other.path().join("ca.pem")).unwrap());
    let log_in = |tls, address, name: &str, authority: &SecretText, password: &str| {
        let settings = Settings {
            servers: vec![SocketAddress::Tcp(address)],
            bind_dn: "cn=reader,dc=school,dc=test".into(),
            tls,
            tls_name: name.into(),
            ..Settings::default()
        };
        let directory = Directory::connect(&settings, "dc=school,dc=test", slapd.dir.path(), Some(secret("reads")))
            .with_authority(&settings, Some(authority), None);
        let runtime = runtime();
        runtime
            .block_on(directory.authenticate("wf@school.test", &secret(password), None))
            .map(|account| account.name.clone())
    };
    for (mode, address) in [(Tls::StartTls, plain), (Tls::Tls, tls)] {
        let right = log_in(mode, address, "ldap.school.test", &authority, "secret");
        assert_eq!(right, Ok("Wang Fang".to_owned()), "{mode:?}");
        assert_eq!(log_in(mode, address, "ldap.school.test", &authority, "wrong"), Err(AuthError::Refused), "{mode:?}");
        for (name, authority) in [("other.school.test", &authority), ("", &authority), ("ldap.school.test", &another)] {
            let refused = log_in(mode, address, name, authority, "secret");
            assert!(matches!(refused, Err(AuthError::Unavailable(_))), "{mode:?} {name:?}: {refused:?}");
        }
    }
    let nothing = log_in(Tls::Tls, tls, "ldap.school.test", &secret("no certificate"), "secret");
    assert!(format!("{nothing:?}").contains("tls-ca"), "{nothing:?}");
}

#[test]
fn roles_can_ask_openldap_instead() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let slapd = Slapd::start(&format!("ldap://{free}"));
    let (socket, _) = Slapd::socket(slapd.dir.path());
    let over_unix = Settings { servers: vec![SocketAddress::Unix(socket)], ..Settings::default() };
    let over_tcp = Settings {
        servers: vec![SocketAddress::Tcp(free)],
        bind_dn: "cn=reader,dc=school,dc=test".into(),
        timeout: "20s".parse().unwrap(),
        ..Settings::default()
    };
    for (settings, password) in [(over_unix, None), (over_tcp, Some(secret("reads")))] {
        let directory = Directory::connect(&settings, "dc=school,dc=test", slapd.dir.path(), password);
        runtime().block_on(async {
            let account = account(&directory, "Fang.Wang@school.test").await;
            assert_eq!(
                (account.address.to_string().as_str(), account.quota_bytes),
                ("wf@school.test", Some(1_000_000))
            );
            assert_ne!(account.id, [0; 16]);
            let expansion = directory.expand(&address("info@school.test")).await.unwrap();
            assert_eq!(expansion.accounts.iter().map(|account| account.id).collect::<Vec<_>>(), [account.id]);
            assert_eq!(directory.resolve(&address("x@school.test")).await, Ok(Recipient::NoSuchUser));
            assert_eq!(directory.resolve(&address("x@elsewhere.test")).await, Ok(Recipient::NotLocal));
            let login = async |name: &str, password: &str| directory.authenticate(name, &secret(password), None).await;
            assert_eq!(login("wf@school.test", "secret").await.map(|found| found.id), Ok(account.id));
            assert_eq!(login("wf@school.test", "wrong").await, Err(AuthError::Refused));
            assert_eq!(login("x@school.test", "secret").await, Err(AuthError::Refused));
            assert_eq!(login("old@school.test", "secret").await, Err(AuthError::Suspended));
            // For whom a role asks stands in the server's own log.
            let client = "192.0.2.7".parse().ok();
            assert!(directory.authenticate("wf@school.test", &secret("other"), client).await.is_err());
            let log = || std::fs::read_to_string(slapd.dir.path().join("log")).unwrap();
            wait_for("the client's address in the log", || log().contains("IP=192.0.2.7"), log);
        });
    }
}
