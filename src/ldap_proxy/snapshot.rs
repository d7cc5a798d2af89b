//! Snapshots of the directory, to be backed up: LDIF that `slapadd` of OpenLDAP reads too.
//!
//! Owns: the form of LDIF. Called by: `serve`, through `net::snapshot`. Never: hides anything: password hashes and DKIM keys are in it.
//! Spec: RFC 2849 (LDIF), but for the line `version: 1` at its start: `slapadd` takes it for an attribute, and `slapcat` writes none.
//!
//! Always everything: a directory is small beside the mail. So nothing goes on from a token.

use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::entry::Entry;
use super::publish;
use super::view::View;
use crate::base::clock;
use crate::net::snapshot::archive::Member;
use crate::net::snapshot::{Archive, Give, GiveError, Head, Outlet, Spool};

/// Columns of a line (RFC 2849, note 2): `ldapsearch` folds there too.
const COLUMNS: usize = 76;
const PATH: &str = "directory/directory.ldif";
/// What another server has to know to take it, beside core, cosine and inetorgperson: in the form of OpenLDAP's slapd.conf.
const SCHEMA_PATH: &str = "directory/fife.schema";
/// Object identifiers of that: qmail's, and fife's own.
const SCHEMA_OIDS: [&str; 2] = ["( 1.3.6.1.4.1.7914.", "( 2.25."];

#[cfg(test)]
mod tests;

/// What gives snapshots of the directory with this view.
pub(super) fn of(view: PathBuf, host: String) -> Arc<Give> {
    Arc::new(move |since, outlet| match since {
        Some(_) => Err(GiveError::Gone),
        None => give(&view, &host, outlet),
    })
}

fn give(path: &std::path::Path, host: &str, outlet: &mut Outlet) -> Result<(), GiveError> {
    let now = clock::unix_secs();
    let failed = |error: &dyn std::fmt::Display| GiveError::Source(error.to_string());
    let mut spool = Spool::new(path.parent().unwrap_or(path)).map_err(|error| failed(&error))?;
    let view = View::open_reader(path).map_err(|error| failed(&error))?;
    let mut written = Ok(());
    let each = view.each(&mut |entry| {
        written = outlet.check().and_then(|()| write_entry(&mut spool, entry));
        written.is_ok()
    });
    each.map_err(|error| failed(&error))?;
    written.map_err(|error| failed(&error))?;
    let (mut ldif, len) = spool.read().map_err(|error| failed(&error))?;
    let mut archive = Archive::new(outlet);
    archive.head(&Head::new("ldap-proxy", host, None, &now.to_string(), now), now)?;
    let time = i64::try_from(now).unwrap_or(i64::MAX);
    archive.stream(Member { path: PATH, time, mode: 0o600 }, len, &mut ldif)?;
    archive.file(Member { path: SCHEMA_PATH, time, mode: 0o600 }, &[schema().as_bytes()])?;
    archive.finish()?;
    Ok(())
}

fn schema() -> String {
    let known = publish::subschema();
    let mut text = String::new();
    for (keyword, name) in [("attributetype", "attributeTypes"), ("objectclass", "objectClasses")] {
        let all = known.values(name).iter().map(|value| String::from_utf8_lossy(value));
        for described in all.filter(|described| SCHEMA_OIDS.iter().any(|oid| described.starts_with(oid))) {
            text.push_str(&format!("{keyword} {described}\n"));
        }
    }
    text
}

/// A blank line, the name, the attributes.
fn write_entry(out: &mut impl Write, entry: &Entry) -> io::Result<()> {
    out.write_all(b"\n")?;
    write_line(out, "dn", entry.dn.to_string().as_bytes())?;
    for (name, values) in &entry.attributes {
        for value in values {
            write_line(out, name, value)?;
        }
    }
    Ok(())
}

/// One attribute value, in base 64 when it has to be, and folded.
fn write_line(out: &mut impl Write, name: &str, value: &[u8]) -> io::Result<()> {
    let line = match std::str::from_utf8(value) {
        Ok(text) if is_safe(value) => format!("{name}: {text}"),
        Ok(_) | Err(_) => format!("{name}:: {}", BASE64.encode(value)),
    };
    // All ASCII: any octet may be the last of a line. A continuation begins with a blank, which counts (RFC 2849, note 2).
    let bytes = line.as_bytes();
    let (first, mut rest) = bytes.split_at(bytes.len().min(COLUMNS));
    out.write_all(first)?;
    while !rest.is_empty() {
        let (next, more) = rest.split_at(rest.len().min(COLUMNS - 1));
        out.write_all(b"\n ")?;
        out.write_all(next)?;
        rest = more;
    }
    out.write_all(b"\n")
}

/// SAFE-STRING of RFC 2849, and no blank at the end (note 8).
fn is_safe(value: &[u8]) -> bool {
    let first = value.first().is_none_or(|byte| !matches!(byte, b' ' | b':' | b'<'));
    let all = value.iter().all(|byte| byte.is_ascii() && !matches!(byte, 0 | b'\n' | b'\r'));
    first && all && value.last() != Some(&b' ')
}
