//! Devices that turn up: the kernel's own announcements.
//!
//! Owns: the netlink socket of uevents. Called by: boot, which waits on it for disks, then leaves it to a thread. Never: believes what
//! another process sends to that socket.
//! Spec: netlink(7), NETLINK_KOBJECT_UEVENT; the kernel's lib/kobject_uevent.c for the form: `ACTION@PATH`, then `KEY=VALUE`, each
//! ended by NUL.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recvfrom, setsockopt, socket, sockopt,
};
use tracing::{info, warn};

use super::modules::{self, Modules};

/// Octets of one announcement, at most (the kernel's UEVENT_BUFFER_SIZE is 2048, with the head before it).
const EVENT_LEN_MAX: usize = 8192;
/// Octets of announcements that may wait: a machine full of disks starts with thousands.
const WAITING_LEN_MAX: usize = 4 * 1024 * 1024;
/// The group on which the kernel itself speaks; udevd would speak on another.
const KERNEL_GROUP: u32 = 1;

/// The socket.
#[derive(Debug)]
pub(super) struct Hotplug {
    socket: OwnedFd,
}

impl Hotplug {
    /// Listens from now on.
    ///
    /// # Errors
    /// The kernel gives no such socket.
    pub(super) fn listen() -> io::Result<Self> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let protocol = SockProtocol::NetlinkKObjectUEvent;
        let socket = socket(AddressFamily::Netlink, SockType::Datagram, flags, protocol)?;
        // With less, what is lost is found by looking at everything (ENOBUFS below).
        setsockopt(&socket, sockopt::RcvBufForce, &WAITING_LEN_MAX).ok();
        bind(socket.as_raw_fd(), &NetlinkAddr::new(0, KERNEL_GROUP))?;
        Ok(Self { socket })
    }

    /// What new devices say of themselves: all that is known after at most `patience`. None: nothing has happened.
    pub(super) fn next(&self, patience: Duration) -> io::Result<Option<BTreeSet<String>>> {
        let mut waited = [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)];
        let patience = PollTimeout::try_from(patience).unwrap_or(PollTimeout::MAX);
        match poll(&mut waited, patience) {
            Ok(0) | Err(Errno::EINTR) => return Ok(None),
            Ok(_) => {}
            Err(errno) => return Err(errno.into()),
        }
        let mut found = BTreeSet::new();
        let mut buffer = [0; EVENT_LEN_MAX];
        loop {
            match recvfrom::<NetlinkAddr>(self.socket.as_raw_fd(), &mut buffer) {
                // The kernel's own port is 0; other processes may send here too.
                Ok((len, Some(from))) if from.pid() == 0 => {
                    found.extend(buffer.get(..len).and_then(added).map(str::to_owned));
                }
                Ok((0, None)) | Err(Errno::EAGAIN) => return Ok(Some(found)),
                Ok(_) | Err(Errno::EINTR) => {}
                // More happened than waits: look at everything.
                Err(Errno::ENOBUFS) => found.extend(modules::devices()),
                Err(errno) => return Err(errno.into()),
            }
        }
    }

    /// Loads what devices ask for that turn up from now on, until the machine stops.
    pub(super) fn attend(self) -> io::Result<()> {
        std::thread::Builder::new().name("hotplug".to_owned()).spawn(move || {
            loop {
                match self.next(Duration::MAX) {
                    Ok(devices) => {
                        let devices = devices.unwrap_or_default();
                        for fault in Modules::of_this_kernel().load_for(&devices) {
                            warn!(fault, "a new device's module cannot be loaded");
                        }
                        devices.iter().for_each(|device| info!(device, "new device"));
                    }
                    Err(error) => return warn!(%error, "new devices are not noticed any more"),
                }
            }
        })?;
        Ok(())
    }
}

/// The MODALIAS of a device that was added; none for anything else.
fn added(event: &[u8]) -> Option<&str> {
    let mut fields = event.split(|byte| *byte == 0).filter_map(|field| std::str::from_utf8(field).ok());
    let head = fields.next()?;
    head.starts_with("add@").then(|| fields.find_map(|field| field.strip_prefix("MODALIAS="))).flatten()
}

#[cfg(test)]
mod tests {
    use super::added;

    #[test]
    fn only_added_devices_that_say_what_they_are_count() {
        let check = |event: &str, expected: Option<&str>| assert_eq!(added(event.as_bytes()), expected, "{event:?}");
        check(
            "add@/devices/pci0/x\0ACTION=add\0SUBSYSTEM=virtio\0MODALIAS=virtio:d2v1\0SEQNUM=3\0",
            Some("virtio:d2v1"),
        );
        check("remove@/devices/pci0/x\0ACTION=remove\0MODALIAS=virtio:d2v1\0", None);
        check("add@/devices/virtual/block/loop0\0ACTION=add\0SUBSYSTEM=block\0", None);
        check("libudev\0\u{fe}MODALIAS=x\0", None);
        check("", None);
    }
}
