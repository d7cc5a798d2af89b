//! Giving and taking over a real socket; archives as the `tar` crate reads them.

use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, mpsc};
use std::thread;

use tokio::runtime::Runtime;

use super::archive::{Archive, Member};
use super::{FetchError, Give, GiveError, Outlet, fetch, serve};
use crate::net::{Listener, Shutdown, Stopper};

/// A role that gives snapshots.
struct Role {
    _dir: tempfile::TempDir,
    socket: PathBuf,
    stopper: Option<Stopper>,
    runtime: Option<Runtime>,
}

impl Role {
    fn new(give: impl Fn(Option<&str>, &mut Outlet) -> Result<(), GiveError> + Send + Sync + 'static) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("backup.sock");
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let (stopper, shutdown) = Shutdown::pair();
        let give: Arc<Give> = Arc::new(give);
        let guard = runtime.enter();
        let listener = Listener::from_fd(std::os::unix::net::UnixListener::bind(&socket).unwrap().into()).unwrap();
        drop(guard);
        runtime.spawn(serve(listener, shutdown, give));
        Self { _dir: dir, socket, stopper: Some(stopper), runtime: Some(runtime) }
    }

    fn read(&self, since: Option<&str>) -> (Vec<u8>, io::Result<usize>) {
        let mut all = Vec::new();
        let ended = fetch(&self.socket, since).unwrap().read_to_end(&mut all);
        (all, ended)
    }

    fn refused(&self, since: Option<&str>) -> FetchError {
        fetch(&self.socket, since).map(drop).unwrap_err()
    }
}

impl Drop for Role {
    fn drop(&mut self) {
        drop(self.stopper.take());
        drop(self.runtime.take());
    }
}

#[test]
fn gives_everything_or_what_is_new_and_says_when_it_cannot() {
    let role = Role::new(|since, outlet| match since {
        None => Ok(outlet.write_all(&vec![7; 3_000_001])?),
        Some("t1") => Ok(outlet.write_all(b"new")?),
        Some("t2") => Err(GiveError::Source("the disk".to_owned())),
        Some(_) => Err(GiveError::Gone),
    });
    let (all, ended) = role.read(None);
    assert_eq!((all.len(), ended.unwrap()), (3_000_001, 3_000_001));
    assert!(all.iter().all(|octet| *octet == 7));
    assert_eq!(role.read(Some("t1")).0, b"new");
    assert!(matches!(role.refused(Some("t2")), FetchError::Status(status) if status == 500));
    assert!(matches!(role.refused(Some("t3")), FetchError::Gone));
    assert!(matches!(role.refused(Some("no token & no more")), FetchError::Gone));
}

#[test]
fn a_stream_that_breaks_is_never_taken_for_whole() {
    let role = Role::new(|since, outlet| {
        outlet.write_all(&vec![1; 1 << 20])?;
        match since {
            Some("panic") => panic!("a bug"),
            _ => Err(GiveError::Source("the disk".to_owned())),
        }
    });
    for since in ["fails", "panic"] {
        let (all, ended) = role.read(Some(since));
        assert_eq!(ended.unwrap_err().kind(), io::ErrorKind::UnexpectedEof, "{since}, after {}", all.len());
        assert!(all.len() <= 1 << 20);
    }
}

#[test]
fn a_role_that_is_to_stop_breaks_off_and_does_not_wait_for_the_reader() {
    let (said, heard) = mpsc::channel();
    let said = Mutex::new(said);
    let mut role = Role::new(move |_, outlet| {
        let ended = loop {
            if let Err(error) = outlet.write_all(&[0; 4096]) {
                break error;
            }
        };
        said.lock().unwrap().send(ended.to_string()).unwrap();
        Err(ended.into())
    });
    // Nothing is read: the role waits for room.
    let mut snapshot = fetch(&role.socket, None).unwrap();
    drop(role.stopper.take());
    heard.recv().unwrap();
    let ended = io::copy(&mut snapshot, &mut io::sink());
    assert_eq!(ended.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
}

#[test]
fn a_reader_that_goes_frees_its_place_and_a_third_is_told_to_come_later() {
    let (said, heard) = mpsc::channel();
    let said = Mutex::new(said);
    let role = Role::new(move |_, outlet| {
        let ended = loop {
            if let Err(error) = outlet.write_all(&[0; 4096]) {
                break error;
            }
        };
        said.lock().unwrap().send(()).unwrap();
        Err(ended.into())
    });
    let one = fetch(&role.socket, None).unwrap();
    let two = fetch(&role.socket, None).unwrap();
    assert!(matches!(role.refused(None), FetchError::Busy));
    drop(one);
    heard.recv().unwrap();
    // The place is free a moment after the role's function has ended.
    let three = loop {
        match fetch(&role.socket, None) {
            Ok(snapshot) => break snapshot,
            Err(FetchError::Busy) => thread::yield_now(),
            Err(error) => panic!("{error}"),
        }
    };
    drop((two, three));
    assert!(matches!(fetch(&role.socket.with_extension("gone"), None), Err(FetchError::Unreachable { .. })));
}

#[test]
fn archives_say_long_names_far_times_and_any_size() {
    let names = [
        "a".repeat(100),
        format!("mail/{}", "b".repeat(95)),
        format!("mail/{}", "c".repeat(96)),
        "Entwürfe/1".to_owned(),
        "x".repeat(247),
    ];
    let mut archive = Archive::new(Vec::new());
    archive.directory(Member { path: "mail", time: 5, mode: 0o700 }).unwrap();
    for (name, len) in names.iter().zip([0, 1, 511, 512, 513]) {
        let octets = vec![b'z'; len];
        let (one, two) = octets.split_at(len / 2);
        archive.file(Member { path: name, time: 1_700_000_000, mode: 0o600 }, &[one, two]).unwrap();
    }
    archive.file(Member { path: "old", time: -5, mode: 0o600 }, &[]).unwrap();
    archive.file(Member { path: "far", time: 1 << 40, mode: 0o600 }, &[b"1"]).unwrap();
    let octets = archive.finish().unwrap();
    assert_eq!(octets.len() % 512, 0);
    let mut found = Vec::new();
    let mut reader = tar::Archive::new(octets.as_slice());
    for entry in reader.entries().unwrap() {
        let mut entry = entry.unwrap();
        let mut content = Vec::new();
        entry.read_to_end(&mut content).unwrap();
        let path = String::from_utf8(entry.path_bytes().into_owned()).unwrap();
        found.push((path, content.len(), entry.header().mtime().unwrap()));
    }
    let mut expected = vec![("mail/".to_owned(), 0, 5)];
    expected.extend(names.iter().cloned().zip([0, 1, 511, 512, 513]).map(|(name, len)| (name, len, 1_700_000_000)));
    // The `tar` crate gives the time of the ustar header; the whole of it stands in the extended one.
    expected.extend([("old".to_owned(), 0, 0), ("far".to_owned(), 1, 0o77_777_777_777)]);
    assert_eq!(found, expected);
    let text = String::from_utf8_lossy(&octets).into_owned();
    assert!(text.contains("23 mtime=1099511627776\n"));
}
