//! Landlock, in a thread of its own: the ruleset binds the thread that enters it, and its children.

use std::fs;
use std::io;
use std::os::unix::net::{UnixListener, UnixStream};

use super::*;

#[test]
fn a_confined_thread_sees_its_own_directory_and_nothing_beside() {
    let state = tempfile::tempdir().unwrap();
    let (own, other, run) = (state.path().join("smtp"), state.path().join("pop-imap"), state.path().join("run"));
    for directory in [&own, &other, &run] {
        fs::create_dir(directory).unwrap();
    }
    fs::write(other.join("mail"), "theirs").unwrap();
    let _listener = UnixListener::bind(run.join("ldap.sock")).unwrap();
    let denied = |result: io::Result<()>| result.is_err_and(|error| error.kind() == io::ErrorKind::PermissionDenied);
    let confined = std::thread::spawn(move || {
        nix::sys::prctl::set_no_new_privs().unwrap();
        if confine(&own, &run).unwrap() == Confinement::None {
            return; // A kernel without Landlock: nothing to be shown.
        }
        fs::create_dir(own.join("ledger")).unwrap();
        fs::write(own.join("ledger/new"), "ours").unwrap();
        fs::rename(own.join("ledger/new"), own.join("old")).unwrap();
        assert_eq!(fs::read_to_string(own.join("old")).unwrap(), "ours");
        fs::remove_file(own.join("old")).unwrap();
        fs::read("/etc/hosts").unwrap();
        UnixStream::connect(run.join("ldap.sock")).unwrap();
        assert!(denied(fs::read(other.join("mail")).map(drop)));
        assert!(denied(fs::read_dir(&other).map(drop)));
        assert!(denied(fs::write(other.join("new"), "")));
        assert!(denied(fs::remove_file(other.join("mail"))));
        assert!(denied(fs::remove_file(run.join("ldap.sock"))));
        assert!(denied(fs::read("/etc/passwd").map(drop)));
        assert!(denied(fs::read("/proc/self/environ").map(drop)));
        assert!(denied(fs::File::open("/dev/null").map(drop)));
        assert!(denied(std::process::Command::new("/bin/true").status().map(drop)));
    });
    confined.join().unwrap();
}
