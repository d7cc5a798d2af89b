//! The rules of the house, held over the source tree and the built binary.
//!
//! Owns: floors, file headers, static linking, size, licences. Called by: `cargo test`.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::harness::{FIFE, good, run};

/// Rooms by floor, as `ARCHITECTURE.md` has them.
const FLOORS: [(&str, u8); 14] = [
    ("base", 0),
    ("config", 1),
    ("ledger", 1),
    ("appliance", 2),
    ("net", 2),
    ("directory", 3),
    ("message", 3),
    ("backup_to_tape", ROLES),
    ("ldap_proxy", ROLES),
    ("pop_imap", ROLES),
    ("smtp", ROLES),
    ("supervisor", 5),
    ("cli", 6),
    ("fuzz", 7),
];
const ROLES: u8 = 4;

fn floor(room: &str) -> Option<u8> {
    FLOORS.iter().find(|(name, _)| *name == room).map(|(_, floor)| *floor)
}

/// What is wrong with one import, if anything.
fn fault(from: &str, to: &str) -> Option<String> {
    let (own, other) = (floor(from)?, floor(to)?);
    if other > own {
        return Some(format!("{from} (floor {own}) imports {to} (floor {other})"));
    }
    (from != to && own == ROLES && other == ROLES).then(|| format!("role {from} imports role {to}"))
}

/// Rooms that a line of source names as `crate::ROOM`.
fn imports(line: &str) -> impl Iterator<Item = &str> {
    let code = line.split("//").next().unwrap_or_default();
    code.split("crate::")
        .skip(1)
        .map(|rest| rest.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or_default())
}

fn sources(dir: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join(dir)];
    while let Some(dir) = open.pop() {
        let Ok(entries) = std::fs::read_dir(&dir) else { continue };
        for path in entries.map(|entry| entry.unwrap().path()) {
            if path.is_dir() && !path.ends_with("target") {
                open.push(path);
            } else if path.extension().is_some_and(|ending| ending == "rs") {
                found.push(path);
            }
        }
    }
    found
}

#[test]
fn no_room_imports_upwards_and_no_role_a_role() {
    let mut faults = Vec::new();
    let mut rooms = BTreeSet::new();
    for path in sources("src") {
        let shown = path.display().to_string();
        let inside = shown.rsplit_once("/src/").expect("below src").1.to_owned();
        let room = inside.split('/').next().unwrap().trim_end_matches(".rs").to_owned();
        if room == "lib" || room == "main" {
            continue;
        }
        assert!(floor(&room).is_some(), "{room} stands on no floor: add it to FLOORS and to ARCHITECTURE.md");
        for line in std::fs::read_to_string(&path).unwrap().lines() {
            faults.extend(imports(line).filter_map(|to| fault(&room, to)).map(|fault| format!("{inside}: {fault}")));
        }
        rooms.insert(room);
    }
    assert_eq!(rooms.len(), FLOORS.len(), "rooms seen: {rooms:?}");
    assert!(faults.is_empty(), "{faults:#?}");
}

#[test]
fn the_floor_test_sees_faults() {
    assert!(fault("base", "config").is_some());
    assert!(fault("smtp", "pop_imap").is_some());
    assert!(fault("net", "supervisor").is_some());
    assert!(fault("smtp", "smtp").is_none());
    assert!(fault("cli", "smtp").is_none());
    assert_eq!(imports("use crate::net::Stream; // crate::cli").collect::<Vec<_>>(), ["net"]);
}

#[test]
fn every_file_says_what_it_owns() {
    let bare: Vec<PathBuf> = ["src", "tests", "benches", "fuzz", "image", "qemu-tests"]
        .into_iter()
        .flat_map(sources)
        .filter(|path| !std::fs::read_to_string(path).unwrap().starts_with("//!"))
        .collect();
    assert!(bare.is_empty(), "no //! header: {bare:#?}");
}

#[test]
fn the_binary_is_static_and_small() {
    let file = good(&run("file", &["-L", FIFE], b""));
    assert!(file.contains("static-pie linked") || file.contains("statically linked"), "{file}");
    // ldd says "statically linked" of a static-pie file and ends with 1 for other static ones.
    let ldd = run("ldd", &[FIFE], b"");
    let said = format!("{}{}", String::from_utf8_lossy(&ldd.stdout), String::from_utf8_lossy(&ldd.stderr));
    assert!(said.contains("statically linked") || said.contains("not a dynamic executable"), "{said}");
    let bytes = std::fs::metadata(FIFE).unwrap().len();
    assert!(bytes < 40_000_000, "{bytes} bytes");
}

/// Licences that may be linked into what is shipped: permissive ones, and MPL-2.0 by file. The same list as in `deny.toml`.
const LICENCES: [&str; 14] = [
    "0BSD",
    "Apache-2.0",
    "BSD-1-Clause",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "CDLA-Permissive-2.0",
    "ISC",
    "MIT",
    "MPL-2.0",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];
/// Crates that must not be linked: a second TLS provider, or a shared library of the host.
const BANNED: [&str; 5] = ["openssl-sys", "native-tls", "aws-lc-sys", "aws-lc-rs", "libudev-sys"];

fn allowed(licence: &str) -> bool {
    let expression = spdx::Expression::parse_mode(licence, spdx::ParseMode::LAX);
    let expression = expression.unwrap_or_else(|error| panic!("{licence}: {error}"));
    expression.evaluate(|requirement| requirement.license.id().is_some_and(|id| LICENCES.contains(&id.name)))
}

#[test]
fn dependencies_are_permissive_and_there_is_one_tls_provider() {
    let args = ["metadata", "--format-version", "1", "--locked", "--filter-platform", "x86_64-unknown-linux-gnu"];
    let output = Command::new(env!("CARGO")).args(args).current_dir(env!("CARGO_MANIFEST_DIR")).output().unwrap();
    let metadata: serde_json::Value = serde_json::from_str(&good(&output)).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    assert!(packages.len() > 100, "metadata lists the dependencies");
    let mut faults = Vec::new();
    for package in packages {
        let name = package["name"].as_str().unwrap();
        let licence = package["license"].as_str().unwrap_or_default();
        if !allowed(licence) {
            faults.push(format!("{name}: licence {licence:?}"));
        }
        if BANNED.contains(&name) {
            faults.push(format!("{name} must not be linked"));
        }
    }
    assert!(faults.is_empty(), "{faults:#?}");
}

#[test]
fn the_licence_test_sees_faults() {
    assert!(allowed("MIT OR Apache-2.0"));
    assert!(allowed("MIT OR GPL-3.0-only"));
    assert!(!allowed("MIT AND AGPL-3.0-only"));
    assert!(!allowed("GPL-3.0-or-later"));
    let deny = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("deny.toml")).unwrap();
    for licence in LICENCES {
        assert!(deny.contains(&format!("\"{licence}\"")), "{licence} is in deny.toml too");
    }
}
