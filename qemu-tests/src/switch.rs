//! A network between guests: every frame goes to all others.
//!
//! Owns: the socket that QEMUs connect to. Called by: suites. A cable can be pulled out.
//! Spec: QEMU's `-netdev stream`: a frame is its length (32 bits, most significant octet first) and its octets.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

/// Octets of a frame, at most: with what large segments are offloaded to.
const FRAME_LEN_MAX: usize = 128 * 1024;

type Ports = Arc<Mutex<Vec<(usize, UnixStream)>>>;

/// A running switch. Ends with the process.
#[derive(Debug)]
pub struct Switch {
    path: PathBuf,
    cut: Arc<AtomicBool>,
    _dir: tempfile::TempDir,
}

impl Switch {
    /// Listens; must be there before the guests.
    #[must_use]
    pub fn start() -> Self {
        let dir = tempfile::Builder::new().prefix("fifes").tempdir_in("/tmp").unwrap();
        let path = dir.path().join("switch");
        let listener = UnixListener::bind(&path).unwrap();
        let (ports, cut) = (Ports::default(), Arc::new(AtomicBool::new(false)));
        let is_cut = Arc::clone(&cut);
        thread::spawn(move || {
            for (number, stream) in listener.incoming().map_while(Result::ok).enumerate() {
                let (ports, is_cut) = (Arc::clone(&ports), Arc::clone(&is_cut));
                let writing = stream.try_clone().unwrap();
                ports.lock().unwrap_or_else(PoisonError::into_inner).push((number, writing));
                thread::spawn(move || {
                    forward(stream, number, &ports, &is_cut);
                    ports.lock().unwrap_or_else(PoisonError::into_inner).retain(|(other, _)| *other != number);
                });
            }
        });
        Self { path, cut, _dir: dir }
    }

    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether frames get lost from now on.
    pub fn cut(&self, cut: bool) {
        self.cut.store(cut, Ordering::Relaxed);
    }
}

/// Passes on what one guest sends, until it is gone.
fn forward(mut from: UnixStream, number: usize, ports: &Ports, cut: &AtomicBool) {
    loop {
        let mut head = [0; 4];
        if from.read_exact(&mut head).is_err() {
            return;
        }
        let len = usize::try_from(u32::from_be_bytes(head)).unwrap_or(usize::MAX);
        if len > FRAME_LEN_MAX {
            return;
        }
        let mut frame = head.to_vec();
        frame.resize(head.len() + len, 0);
        if from.read_exact(frame.get_mut(head.len()..).unwrap_or_default()).is_err() {
            return;
        }
        if cut.load(Ordering::Relaxed) {
            continue;
        }
        for (other, to) in ports.lock().unwrap_or_else(PoisonError::into_inner).iter_mut() {
            if *other != number {
                // A guest that is gone is taken out by its own thread.
                drop(to.write_all(&frame));
            }
        }
    }
}
