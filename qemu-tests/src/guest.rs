//! One machine, from power on to power cut.
//!
//! Owns: QEMU's process and its command line. Called by: suites. Never: touches a process that it did not start.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::console::Console;
use crate::disk::Disk;
use crate::monitor::Monitor;
use crate::wait_for;

const OVMF_CODE: &str = "/usr/share/OVMF/OVMF_CODE_4M.fd";
/// Octets of a log of writes, at most.
const LOG_LEN_MAX: u64 = 8 << 30;
const OVMF_VARS: &str = "/usr/share/OVMF/OVMF_VARS_4M.fd";

/// What the machine boots by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Firmware {
    Bios,
    Uefi,
}

/// A machine before power on.
#[derive(Debug, Clone)]
pub struct Machine {
    name: String,
    firmware: Firmware,
    memory_mib: u32,
    disks: Vec<(Disk, String)>,
    /// Ports of the guest that are reached from here, and by which: the same at each start.
    ports: BTreeMap<u16, u16>,
    switches: Vec<(PathBuf, String)>,
    /// Where the writes to the first disk are logged.
    writes: Option<PathBuf>,
    reboots: bool,
    more: Vec<String>,
}

impl Machine {
    /// With this disk to boot from, one network card behind which the tests are, and 768 MiB.
    #[must_use]
    pub fn new(name: &str, firmware: Firmware, disk: &Disk) -> Self {
        Self {
            name: name.to_owned(),
            firmware,
            memory_mib: 768,
            disks: vec![(disk.clone(), String::new())],
            ports: [25, 143, 110, 587].map(|port| (port, free_port())).into(),
            switches: Vec::new(),
            writes: None,
            reboots: false,
            more: Vec::new(),
        }
    }

    /// One more disk; `drive`: more of QEMU's options for it, as ",readonly=on".
    #[must_use]
    pub fn disk(mut self, disk: &Disk, drive: &str) -> Self {
        self.disks.push((disk.clone(), drive.to_owned()));
        self
    }

    /// More of QEMU's options for the disk that it boots from.
    #[must_use]
    pub fn first_disk_options(mut self, drive: &str) -> Self {
        if let Some((_, options)) = self.disks.first_mut() {
            drive.clone_into(options);
        }
        self
    }

    /// Logs what is written to the disk that it boots from, for `writes`.
    #[must_use]
    pub fn log_writes(mut self, log: &Path) -> Self {
        self.writes = Some(log.to_path_buf());
        self
    }

    /// One more port of the guest that is reached from here.
    #[must_use]
    pub fn port(mut self, port: u16) -> Self {
        self.ports.insert(port, free_port());
        self
    }

    /// One more network card, with this hardware address, on a switch.
    #[must_use]
    pub fn switch(mut self, socket: &Path, mac: &str) -> Self {
        self.switches.push((socket.to_path_buf(), mac.to_owned()));
        self
    }

    /// One more serial line (the first time: ttyS1). QEMU listens on this socket, and drops what the guest says while nobody is connected.
    #[must_use]
    pub fn serial(self, socket: &Path) -> Self {
        self.more(&["-serial", &format!("unix:{},server=on,wait=off", socket.display())])
    }

    /// Starts again when it wants to; without this, QEMU ends then.
    #[must_use]
    pub fn reboots(mut self) -> Self {
        self.reboots = true;
        self
    }

    /// More of QEMU's command line.
    #[must_use]
    pub fn more(mut self, arguments: &[&str]) -> Self {
        self.more.extend(arguments.iter().map(|argument| (*argument).to_owned()));
        self
    }

    /// Power on.
    #[must_use]
    pub fn start(&self) -> Guest {
        // A unix socket's name has 107 octets.
        let dir = tempfile::Builder::new().prefix("fifeq").tempdir_in("/tmp").unwrap();
        let mut qemu = Command::new("qemu-system-x86_64");
        qemu.args(self.arguments(dir.path())).stdin(Stdio::null()).stdout(Stdio::null());
        let mut child = Process(qemu.spawn().expect("qemu-system-x86_64"));
        // A QEMU that refuses its command line has said why, and will never listen.
        let listens = || {
            let ended = child.0.try_wait().unwrap();
            assert!(ended.is_none(), "QEMU ended at once: {ended:?}");
            dir.path().join("console").exists().then_some(())
        };
        wait_for("QEMU", listens, String::new);
        let console = Console::connect(&dir.path().join("console"));
        let monitor = Monitor::connect(&dir.path().join("monitor"));
        Guest { name: self.name.clone(), power_on: now(), child, console, monitor, forwards: self.ports.clone(), dir }
    }

    fn arguments(&self, dir: &Path) -> Vec<String> {
        let mut line = vec!["-machine q35 -accel tcg -cpu max -smp 2 -nodefaults -display none".to_owned()];
        line.push(format!("-m {}", self.memory_mib));
        if self.firmware == Firmware::Uefi {
            let vars = dir.join("vars.fd");
            std::fs::copy(OVMF_VARS, &vars).unwrap();
            line.push(format!("-drive if=pflash,format=raw,readonly=on,file={OVMF_CODE}"));
            line.push(format!("-drive if=pflash,format=raw,file={}", vars.display()));
        }
        for (at, (disk, options)) in self.disks.iter().enumerate() {
            let path = disk.path().display();
            match self.writes.as_ref().filter(|_| at == 0) {
                Some(log) => line.push(logged(&path.to_string(), log)),
                None => line.push(format!("-drive if=none,id=d{at},format=raw,file={path}{options}")),
            }
            line.push(format!("-device virtio-blk-pci,drive=d{at},bootindex={}", at + 1));
        }
        let forwards: String =
            self.ports.iter().map(|(guest, host)| format!(",hostfwd=tcp:127.0.0.1:{host}-:{guest}")).collect();
        line.push(format!("-netdev user,id=u0{forwards} -device virtio-net-pci,netdev=u0,mac=52:54:00:00:00:aa"));
        for (at, (socket, mac)) in self.switches.iter().enumerate() {
            let socket = socket.display();
            line.push(format!("-netdev stream,id=s{at},server=off,addr.type=unix,addr.path={socket}"));
            line.push(format!("-device virtio-net-pci,netdev=s{at},mac={mac}"));
        }
        // Nothing is said before somebody listens.
        line.push(format!("-serial unix:{},server=on,wait=on", dir.join("console").display()));
        line.push(format!("-qmp unix:{},server=on,wait=off", dir.join("monitor").display()));
        if !self.reboots {
            line.push("-no-reboot".to_owned());
        }
        let words = line.iter().flat_map(|line| line.split(' ')).map(str::to_owned);
        words.chain(self.more.iter().cloned()).collect()
    }
}

/// The first disk, with a log of its writes.
fn logged(disk: &str, log: &Path) -> String {
    // Sparse: QEMU only writes on.
    std::fs::File::create(log).unwrap().set_len(LOG_LEN_MAX).unwrap();
    let log = log.display();
    format!(
        "-blockdev driver=blklogwrites,node-name=d0,file.driver=file,file.filename={disk},\
         log.driver=file,log.filename={log}"
    )
}

#[expect(clippy::disallowed_methods, reason = "how long a boot took is shown")]
fn now() -> Instant {
    Instant::now()
}

/// A port that nobody has now.
pub(crate) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// QEMU's, ended with whoever holds it.
#[derive(Debug)]
struct Process(Child);

impl Process {
    fn end(&mut self) {
        // It may have ended by itself; then there is nothing to kill.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end();
    }
}

/// A machine that runs. Dropped, its power is cut.
#[derive(Debug)]
pub struct Guest {
    name: String,
    power_on: Instant,
    child: Process,
    pub console: Console,
    pub monitor: Monitor,
    forwards: BTreeMap<u16, u16>,
    dir: tempfile::TempDir,
}

impl Guest {
    /// Where a port of the guest is reached from here.
    #[must_use]
    pub fn at(&self, port: u16) -> SocketAddr {
        let host = self.forwards.get(&port).unwrap_or_else(|| panic!("port {port} is not forwarded"));
        ([127, 0, 0, 1], *host).into()
    }

    /// How long it has been on. For people: no test depends on it.
    #[must_use]
    pub fn up(&self) -> Duration {
        now() - self.power_on
    }

    /// Cuts the power: QEMU is killed.
    pub fn cut(mut self) {
        self.end();
    }

    /// Presses the power button.
    pub fn press_power_button(&mut self) {
        self.monitor.execute("system_powerdown", &json!({}));
    }

    /// Presses these keys at once, as "ctrl-alt-delete".
    pub fn press_keys(&mut self, keys: &str) {
        self.monitor.execute("human-monitor-command", &json!({ "command-line": format!("sendkey {keys}") }));
    }

    /// Waits until the machine is off (or wants to start again, and may not).
    pub fn wait_off(&mut self) {
        let child = &mut self.child;
        let console = &self.console;
        let ended = wait_for("the guest to be off", || child.0.try_wait().unwrap(), || console.tail());
        assert!(ended.success(), "QEMU: {ended}");
    }

    /// Directory of this run's sockets.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    fn end(&mut self) {
        self.child.end();
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.end();
        if std::thread::panicking() {
            let logs = crate::image::root().join("target/qemu-tests");
            let log = logs.join(format!("{}-{}.log", self.name, self.child.0.id()));
            let kept = std::fs::create_dir_all(&logs).and_then(|()| std::fs::write(&log, self.console.text()));
            let place = kept.map_or_else(|error| error.to_string(), |()| log.display().to_string());
            eprintln!("--- console of {} (all of it: {place}):\n{}", self.name, self.console.tail());
        }
    }
}
