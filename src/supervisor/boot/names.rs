//! The host's name, and who answers for the names of others.
//!
//! Owns: what is set as the host name, the text of resolv.conf. Called by: `boot`, `boot::network`. Never: resolves anything
//! (`net::dns` does). `/etc/hosts` is part of the image and stays as it is.
//! Spec: RFC 1123 section 2.1; resolv.conf(5).

use std::fmt::Write;
use std::io;
use std::net::IpAddr;
use std::path::Path;

use crate::base::durable;

/// Octets of a host name, at most (RFC 1123 section 2.1 asks for 63 of a label; the kernel takes 64 in all).
const HOST_NAME_LEN_MAX: usize = 63;

/// What of this text can be a host's name: the first label of it, in lower case; `None` when nothing can.
#[must_use]
pub fn host_name(text: &str) -> Option<String> {
    let label = text.split('.').next().unwrap_or_default().to_ascii_lowercase();
    let inner = |c: char| c.is_ascii_alphanumeric() || c == '-';
    let is_name = (1..=HOST_NAME_LEN_MAX).contains(&label.len())
        && label.chars().all(inner)
        && !label.starts_with('-')
        && !label.ends_with('-')
        && label != "localhost";
    is_name.then_some(label)
}

/// Sets the machine's host name.
///
/// # Errors
/// The system refuses: no root, or no name.
pub fn set_host_name(name: &str) -> io::Result<()> {
    let name = host_name(name).ok_or(io::ErrorKind::InvalidInput)?;
    nix::unistd::sethostname(name).map_err(io::Error::from)
}

/// A resolv.conf that names these servers.
#[must_use]
pub fn resolv_conf(servers: &[IpAddr]) -> String {
    let mut text = String::from("# Written by fife: from fife.toml, or as the network names them.\n");
    for server in servers {
        // A String takes everything.
        writeln!(text, "nameserver {server}").ok();
    }
    text
}

/// Writes it, so that whoever reads finds the old one or the new one.
///
/// # Errors
/// What the system says.
pub fn write_resolv_conf(path: &Path, servers: &[IpAddr]) -> io::Result<()> {
    durable::replace(path, resolv_conf(servers).as_bytes(), 0o644)
}
