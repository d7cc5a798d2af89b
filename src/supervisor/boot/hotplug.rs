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
use tokio::sync::watch;
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

    /// What has happened, as far as it is known after at most `patience`. None: nothing.
    pub(super) fn next(&self, patience: Duration) -> io::Result<Option<Announced>> {
        let mut waited = [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)];
        let patience = PollTimeout::try_from(patience).unwrap_or(PollTimeout::MAX);
        match poll(&mut waited, patience) {
            Ok(0) | Err(Errno::EINTR) => return Ok(None),
            Ok(_) => {}
            Err(errno) => return Err(errno.into()),
        }
        let mut found = Announced::default();
        let mut buffer = [0; EVENT_LEN_MAX];
        loop {
            match recvfrom::<NetlinkAddr>(self.socket.as_raw_fd(), &mut buffer) {
                // The kernel's own port is 0; other processes may send here too.
                Ok((len, Some(from))) if from.pid() == 0 => {
                    found.add(buffer.get(..len).unwrap_or_default());
                }
                Ok((0, None)) | Err(Errno::EAGAIN) => return Ok(Some(found)),
                Ok(_) | Err(Errno::EINTR) => {}
                // More happened than waits: look at everything.
                Err(Errno::ENOBUFS) => {
                    found.devices.extend(modules::devices());
                    found.disks = true;
                }
                Err(errno) => return Err(errno.into()),
            }
        }
    }

    /// Loads what devices ask for that turn up from now on, until the machine stops. `disks` is moved on whenever a disk comes or goes.
    pub(super) fn attend(self, disks: watch::Sender<u64>) -> io::Result<()> {
        std::thread::Builder::new().name("hotplug".to_owned()).spawn(move || {
            loop {
                match self.next(Duration::MAX) {
                    Ok(announced) => {
                        let Announced { devices, disks: is_disk } = announced.unwrap_or_default();
                        if is_disk {
                            disks.send_modify(|count| *count += 1);
                        }
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

/// What has happened.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Announced {
    /// What new devices say of themselves (MODALIAS).
    pub(super) devices: BTreeSet<String>,
    /// A disk or partition has come, gone, or got another medium.
    pub(super) disks: bool,
}

impl Announced {
    fn add(&mut self, event: &[u8]) {
        let mut fields = event.split(|byte| *byte == 0).filter_map(|field| std::str::from_utf8(field).ok());
        let Some(head) = fields.next() else { return };
        for field in fields {
            match field.split_once('=') {
                Some(("MODALIAS", device)) if head.starts_with("add@") => drop(self.devices.insert(device.to_owned())),
                Some(("SUBSYSTEM", "block")) => self.disks = true,
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Announced;

    #[test]
    fn added_devices_that_say_what_they_are_count_and_disks_that_come_and_go() {
        let check = |event: &str, device: Option<&str>, disks: bool| {
            let mut announced = Announced::default();
            announced.add(event.as_bytes());
            let devices = device.into_iter().map(str::to_owned).collect();
            assert_eq!(announced, Announced { devices, disks }, "{event:?}");
        };
        let virtio = "add@/devices/pci0/x\0ACTION=add\0SUBSYSTEM=virtio\0MODALIAS=virtio:d2v1\0SEQNUM=3\0";
        check(virtio, Some("virtio:d2v1"), false);
        check("remove@/devices/pci0/x\0ACTION=remove\0MODALIAS=virtio:d2v1\0", None, false);
        check("add@/devices/virtual/block/loop0\0ACTION=add\0SUBSYSTEM=block\0", None, true);
        check("remove@/devices/x/block/sdb/sdb1\0ACTION=remove\0SUBSYSTEM=block\0DEVNAME=sdb1\0", None, true);
        check("libudev\0\u{fe}MODALIAS=x\0", None, false);
        check("", None, false);
    }
}
