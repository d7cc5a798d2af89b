//! The dialogue at the console: a line in, what to show or to do out.
//!
//! Owns: where the dialogue is. Called by: `console`. Never: touches the terminal, the machine or the clock.

use std::net::IpAddr;

use chrono::NaiveDateTime;

/// Characters of an answer that count; nobody types more.
const ANSWER_CHARS_MAX: usize = 256;

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Action {
    SetNetwork(Network),
    ShowLog,
    /// Seconds since 1970.
    SetTime(u64),
    Reboot,
    PowerOff,
    /// Tells whether machine and network are fit.
    Check,
    /// Onto this disk, by its kernel name; what is on it is shown and asked about before.
    Install(String),
    /// A shell, if this administrator's password is right. The password is in the variant's second field and is shown by nobody.
    Shell(String, Password),
}

/// A password on its way to the directory.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Password(pub(super) String);

impl std::fmt::Debug for Password {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("(hidden)")
    }
}

/// How one interface is to be set up.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Network {
    pub(super) interface: String,
    /// With its prefix length, as "192.0.2.11/24"; none: by DHCP.
    pub(super) address: Option<String>,
    pub(super) gateway: Option<IpAddr>,
    pub(super) servers: Vec<IpAddr>,
}

/// What comes next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Said {
    /// The state of things and the menu.
    Overview,
    /// A question; whether the answer is to stay unseen.
    Ask(String, bool),
    Do(Action),
}

/// The lines of the menu.
pub(super) const ITEMS: [(&str, &str); 8] = [
    ("1", "network"),
    ("2", "log"),
    ("3", "time"),
    ("4", "reboot"),
    ("5", "power off"),
    ("6", "shell"),
    ("7", "check"),
    ("8", "install"),
];

#[derive(Debug)]
enum State {
    Choice,
    Interface,
    Address(Network),
    Gateway(Network),
    Servers(Network),
    Time,
    Disk,
    Administrator,
    Password(String),
    Confirm(Action),
}

/// One console's dialogue.
#[derive(Debug)]
pub(super) struct Menu {
    state: State,
    /// The machine's network cards, for whoever is asked for one.
    interfaces: Vec<String>,
    /// Its disks, by their kernel names.
    disks: Vec<String>,
}

fn ask(text: impl Into<String>) -> Said {
    Said::Ask(text.into(), false)
}

impl Menu {
    pub(super) fn new(interfaces: Vec<String>, disks: Vec<String>) -> Self {
        Self { state: State::Choice, interfaces, disks }
    }

    /// Whether nothing is being asked: the overview may be shown anew.
    pub(super) fn is_idle(&self) -> bool {
        matches!(self.state, State::Choice)
    }

    /// Takes one line. An empty one leads back to the overview from everywhere but where it is an answer.
    pub(super) fn answer(&mut self, line: &str) -> Said {
        let line: String = line.trim().chars().filter(|c| !c.is_control()).take(ANSWER_CHARS_MAX).collect();
        let (state, said) = match std::mem::replace(&mut self.state, State::Choice) {
            State::Choice => self.chosen(&line),
            State::Gateway(network) => gateway(network, &line),
            State::Servers(network) => servers(network, &line),
            _ if line.is_empty() => (State::Choice, Said::Overview),
            State::Interface if self.interfaces.contains(&line) => {
                let network = Network { interface: line, ..Network::default() };
                (State::Address(network), ask("address with prefix length, as 192.0.2.11/24, or \"dhcp\""))
            }
            State::Interface => (State::Interface, ask(format!("one of {}", self.interfaces.join(", ")))),
            State::Address(network) => address(network, &line),
            State::Time => time(&line),
            State::Disk if self.disks.contains(&line) => (State::Choice, Said::Do(Action::Install(line))),
            State::Disk => (State::Disk, ask(format!("one of {}", self.disks.join(", ")))),
            State::Administrator => (State::Password(line), Said::Ask("password".to_owned(), true)),
            State::Password(administrator) => (State::Choice, Said::Do(Action::Shell(administrator, Password(line)))),
            State::Confirm(action) if line == "yes" => (State::Choice, Said::Do(action)),
            State::Confirm(_) => (State::Choice, Said::Overview),
        };
        self.state = state;
        said
    }

    fn chosen(&self, line: &str) -> (State, Said) {
        match line {
            "1" => (State::Interface, ask(format!("which network card ({})", self.interfaces.join(", ")))),
            "2" => (State::Choice, Said::Do(Action::ShowLog)),
            "3" => (State::Time, ask("date and time in UTC, as 2026-11-24 08:30:00")),
            "4" => (State::Confirm(Action::Reboot), ask("reboot: type \"yes\"")),
            "5" => (State::Confirm(Action::PowerOff), ask("power off: type \"yes\"")),
            "6" => (State::Administrator, ask("address of an administrator")),
            "7" => (State::Choice, Said::Do(Action::Check)),
            "8" => (State::Disk, ask(format!("onto which disk ({})", self.disks.join(", ")))),
            _ => (State::Choice, Said::Overview),
        }
    }
}

fn address(mut network: Network, line: &str) -> (State, Said) {
    if line.eq_ignore_ascii_case("dhcp") {
        let question = format!("{} by DHCP: type \"yes\"", network.interface);
        return (State::Confirm(Action::SetNetwork(network)), ask(question));
    }
    let is_good = line.split_once('/').is_some_and(|(ip, length)| {
        let (ip, length) = (ip.parse::<IpAddr>(), length.parse::<u8>());
        matches!((ip, length), (Ok(IpAddr::V4(_)), Ok(0..=32)) | (Ok(IpAddr::V6(_)), Ok(0..=128)))
    });
    if !is_good {
        return (State::Address(network), ask("this is no address with prefix length, as 192.0.2.11/24; again"));
    }
    network.address = Some(line.to_owned());
    (State::Gateway(network), ask("gateway (empty: none)"))
}

fn gateway(mut network: Network, line: &str) -> (State, Said) {
    network.gateway = match line {
        "" => None,
        text => match text.parse() {
            Ok(gateway) => Some(gateway),
            Err(_) => return (State::Gateway(network), ask("this is no address; again (empty: none)")),
        },
    };
    (State::Servers(network), ask("DNS servers, with spaces between them (empty: as before)"))
}

fn servers(mut network: Network, line: &str) -> (State, Said) {
    match line.split([' ', ',']).filter(|word| !word.is_empty()).map(str::parse).collect() {
        Ok(servers) => network.servers = servers,
        Err(_) => return (State::Servers(network), ask("these are not all addresses; again (empty: as before)")),
    }
    let Network { interface, address, gateway, servers } = &network;
    let address = address.as_deref().unwrap_or_default();
    let gateway = gateway.map_or_else(|| "no gateway".to_owned(), |gateway| format!("gateway {gateway}"));
    let servers: Vec<String> = servers.iter().map(ToString::to_string).collect();
    let servers = if servers.is_empty() { String::new() } else { format!(", DNS {}", servers.join(" ")) };
    let question = format!("{interface}: {address}, {gateway}{servers}: type \"yes\"");
    (State::Confirm(Action::SetNetwork(network)), ask(question))
}

fn time(line: &str) -> (State, Said) {
    let parsed = NaiveDateTime::parse_from_str(line, "%Y-%m-%d %H:%M:%S");
    match parsed.ok().and_then(|time| u64::try_from(time.and_utc().timestamp()).ok()) {
        Some(unix_secs) => {
            (State::Confirm(Action::SetTime(unix_secs)), ask(format!("set the clock to {line} UTC: type \"yes\"")))
        }
        None => (State::Time, ask("this is no date and time, as 2026-11-24 08:30:00; again")),
    }
}
