//! What the console shows: the host at a glance, then the menu.
//!
//! Owns: the text. Called by: `console`. Never: asks anybody.

use super::menu::ITEMS;
use crate::supervisor::boot::clock::Report;
use crate::supervisor::status::{MountState, MountStatus, State, Status};

/// What is known of the host. Without a moment in it: the screen is drawn anew only when something has changed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Overview {
    pub(super) version: String,
    /// The host's full name.
    pub(super) name: String,
    /// "192.0.2.11 (eth0)".
    pub(super) addresses: Vec<String>,
    /// Name and state, and why it is not good.
    pub(super) roles: Vec<(String, State, Option<String>)>,
    /// How right the clock is, without the time.
    pub(super) clock: Option<String>,
    /// What is wrong beyond the roles: the file, the disk, nothing running.
    pub(super) troubles: Vec<String>,
}

/// What is wrong with a mount. One that has just begun to be looked for is not wrong yet.
fn trouble_of(mount: &MountStatus) -> Option<String> {
    let reason = mount.reason.as_ref()?;
    (mount.state != MountState::Trying).then(|| format!("mount {}: {reason}", mount.name))
}

/// What others wrote must not steer the terminal.
pub(super) fn printable(line: &str) -> String {
    line.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

impl Overview {
    /// From what the supervisor says.
    pub(super) fn of(status: &Status, domain: Option<&str>) -> Self {
        let roles = status.roles.iter().map(|role| (role.role.name().to_owned(), role.state, role.reason.clone()));
        let disk = status.disk.iter().filter_map(|disk| disk.trouble.as_ref());
        let clock = status.clock.iter().flat_map(|clock| &clock.troubles);
        Self {
            version: status.version.clone(),
            name: domain.map_or_else(|| status.host.clone(), |domain| format!("{}.{domain}", status.host)),
            roles: roles.collect(),
            clock: status.clock.as_ref().map(Report::brief),
            troubles: disk.chain(clock).cloned().chain(status.mounts.iter().filter_map(trouble_of)).collect(),
            ..Self::default()
        }
    }

    /// Whether all is well.
    pub(super) fn is_good(&self) -> bool {
        self.troubles.is_empty()
            && !self.roles.is_empty()
            && self.roles.iter().all(|(_, state, _)| *state == State::Good)
    }

    /// Lines for a terminal of 80 columns, without control codes, so that it reads as well in a recorded serial line.
    pub(super) fn text(&self) -> String {
        let mut lines = vec![String::new(), format!("fife {}   {}", self.version, self.name)];
        let addresses = if self.addresses.is_empty() { "none".to_owned() } else { self.addresses.join(", ") };
        lines.push(format!("addresses  {addresses}"));
        let roles: Vec<String> = self.roles.iter().map(|(role, state, _)| format!("{role} {}", state.name())).collect();
        lines.push(format!("roles      {}", if roles.is_empty() { "none".to_owned() } else { roles.join(", ") }));
        lines.extend(self.clock.iter().map(|clock| format!("clock      {clock}")));
        lines.push(format!("health     {}", if self.is_good() { "good" } else { "not good" }));
        let reasons = self.roles.iter().filter_map(|(role, _, reason)| Some(format!("{role}: {}", reason.as_ref()?)));
        for trouble in self.troubles.iter().cloned().chain(reasons) {
            lines.extend(trouble.lines().map(|line| format!("           {}", printable(line))));
        }
        let items: Vec<String> = ITEMS.iter().map(|(key, item)| format!("{key} {item}")).collect();
        lines.extend([String::new(), items.join("   "), String::new()]);
        lines.join("\n")
    }
}
