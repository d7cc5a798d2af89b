//! A file server that nobody here wrote: Debian's nfs-ganesha, as `tests/run` unpacks it, on this machine's loopback address, where
//! guests reach it as 10.0.2.2.
//!
//! Owns: its process and configuration. Called by: suites. Takes root: the server opens files by handle. For version 3 it insists on a
//! port mapper at its start: that one runs in a network of its own, where nobody else meets it.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::guest::free_port;
use crate::{image, wait_for};

/// The directory as version 4 names it.
pub const PSEUDO: &str = "/export";

/// A private /run, an account that the port mapper becomes, then both. The server replaces the shell; the mapper is not needed any longer
/// than until the server has started.
const SCRIPT: &str = r#"
set -e
mount -t tmpfs none /run
mkdir -p /run/rpcbind
(cat /etc/passwd; echo '_rpc:x:64999:65534::/run/rpcbind:/bin/false') >/run/passwd
mount --bind /run/passwd /etc/passwd
chown 64999 /run/rpcbind
timeout 30 unshare --net "$1/sbin/rpcbind" -f &
until [ -S /run/rpcbind.sock ]; do sleep 0.1; done
exec "$1/usr/bin/ganesha.nfsd" -F -f "$2" -L /dev/stdout -p "$3" -N NIV_EVENT
"#;

/// A running server.
#[derive(Debug)]
pub struct Server {
    child: Child,
    pub port: u16,
    /// Of version 3's mount protocol.
    pub mount_port: u16,
}

impl Server {
    /// Exports a directory, by versions 3 and 4, and waits until it is answered for. Its own files go to `dir`.
    #[must_use]
    pub fn start(dir: &Path, export: &Path) -> Self {
        let root: PathBuf = image::root().join("target/ganesha");
        assert!(root.is_dir(), "{} is missing: tests/run makes it", root.display());
        let (port, mount_port) = (free_port(), free_port());
        let libraries = root.join("usr/lib/x86_64-linux-gnu");
        let settings = format!(
            r#"NFS_Core_Param {{ Plugins_Dir = "{plugins}"; NFS_Port = {port}; MNT_Port = {mount_port}; Bind_addr = 127.0.0.1;
  Protocols = 3, 4; Enable_NLM = false; Enable_RQUOTA = false; Enable_UDP = false; }}
NFSv4 {{ Graceless = true; RecoveryBackend = fs; RecoveryRoot = "{dir}/recovery"; Only_Numeric_Owners = true; UseGetpwnam = true; }}
NFS_KRB5 {{ Active_krb5 = false; }}
EXPORT {{ Export_Id = 1; Path = "{export}"; Pseudo = "{PSEUDO}"; Access_Type = RW; Squash = None; SecType = sys;
  Transports = TCP; Protocols = 3, 4; FSAL {{ Name = VFS; }} }}
"#,
            plugins = libraries.join("ganesha").display(),
            dir = dir.display(),
            export = export.display(),
        );
        fs::create_dir_all(dir.join("recovery")).unwrap();
        fs::write(dir.join("ganesha.conf"), settings).unwrap();
        let log = dir.join("ganesha.log");
        let all = [libraries.clone(), root.join("usr/lib/ganesha"), root.join("lib/x86_64-linux-gnu")];
        let child = Command::new("unshare")
            .args(["--mount", "bash", "-c", SCRIPT, "bash"])
            .args([&root, &dir.join("ganesha.conf"), &dir.join("ganesha.pid")])
            .env("LD_LIBRARY_PATH", std::env::join_paths(all).unwrap())
            .stdin(Stdio::null())
            .stdout(File::create(&log).unwrap())
            .stderr(File::create(dir.join("ganesha.err")).unwrap())
            .spawn()
            .unwrap();
        let said = || fs::read_to_string(&log).unwrap_or_default();
        let server = Self { child, port, mount_port };
        wait_for("nfs-ganesha", || said().contains("NFS SERVER INITIALIZED").then_some(()), said);
        server
    }

    /// Says nothing any more, as a machine that hangs: connections stand, and nobody answers on them.
    pub fn fall_silent(&self) {
        let stopped = Command::new("kill").args(["-STOP", &self.child.id().to_string()]).status();
        assert!(stopped.unwrap().success());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing to kill.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
