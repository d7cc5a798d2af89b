//! Files by HTTPS, for guests: a server that nobody here wrote, and an authority of its own.
//!
//! Owns: the certificates (OpenSSL), the server (Python's). Called by: suites. Guests reach it at `HOST`.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// This machine, as a guest behind QEMU's user network sees it.
const HOST: &str = "10.0.2.2";
const SERVER: &str = r"
import functools, http.server, ssl, sys
handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=sys.argv[1])
server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), handler)
tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
tls.load_cert_chain(sys.argv[2], sys.argv[3])
server.socket = tls.wrap_socket(server.socket, server_side=True)
print(server.server_port, flush=True)
server.serve_forever()
";

/// A running server. Ended when dropped.
#[derive(Debug)]
pub struct Https {
    child: Child,
    port: u16,
    authority: PathBuf,
}

impl Https {
    /// Serves the files of a directory; certificates and keys are made in another one.
    #[must_use]
    pub fn serve(files: &Path, keys: &Path) -> Self {
        let at = |name: &str| keys.join(name).to_str().unwrap().to_owned();
        let (ca, ca_key, leaf, leaf_key) = (at("ca.pem"), at("ca.key"), at("leaf.pem"), at("leaf.key"));
        let new_key = ["req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"];
        openssl(&[&new_key[..], &["-x509", "-subj", "/CN=test authority", "-keyout", &ca_key, "-out", &ca]].concat());
        let request = at("leaf.csr");
        openssl(&[&new_key[..], &["-subj", "/CN=files", "-keyout", &leaf_key, "-out", &request]].concat());
        let names = at("names");
        std::fs::write(&names, format!("subjectAltName=IP:{HOST}\n")).unwrap();
        let authority = ["-CA", &ca, "-CAkey", &ca_key, "-CAcreateserial", "-extfile", &names];
        openssl(&[&["x509", "-req", "-in", &request, "-out", &leaf][..], &authority].concat());
        let mut child = Command::new("python3")
            .args(["-c", SERVER, files.to_str().unwrap(), &leaf, &leaf_key])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut port = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut port).unwrap();
        Self { child, port: port.trim().parse().expect("the server's port"), authority: ca.into() }
    }

    /// Where a guest finds a file.
    #[must_use]
    pub fn url(&self, file: &str) -> String {
        format!("https://{HOST}:{}/{file}", self.port)
    }

    /// The certificate of the authority, as PEM.
    #[must_use]
    pub fn authority(&self) -> &Path {
        &self.authority
    }
}

impl Drop for Https {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing to stop.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn openssl(arguments: &[&str]) {
    let output = Command::new("openssl").args(arguments).output().unwrap();
    assert!(output.status.success(), "openssl: {}", String::from_utf8_lossy(&output.stderr));
}
