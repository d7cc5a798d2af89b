//! Which host of the site this machine is.
//!
//! Owns: `Identity`, `Loaded::this_host`. Called by: the supervisor, commands. Never: asks the network.
//!
//! In this order: `--host`, the kernel argument `fife.host=`, the `match` of the hosts; a site of one host that
//! names nothing to match is that host.

use std::fs;
use std::path::Path;

use super::hosts::{MacAddress, Match};
use super::load::Loaded;

/// What this machine knows of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Identity {
    /// Kernel argument `fife.host=`.
    pub kernel_argument: Option<String>,
    pub macs: Vec<MacAddress>,
    pub serial: Option<String>,
    pub hostname: Option<String>,
}

/// The machine is none of the hosts, or more than one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HostError {
    #[error("the site has no host `{name}` ({source_}); it has: {known}")]
    Unknown { name: String, source_: &'static str, known: String },
    #[error(
        "this machine is none of the site's hosts ({known}): say which with --host, or give the host a `match` ({identity})"
    )]
    NoMatch { known: String, identity: String },
    #[error("this machine matches more than one host: {matching}")]
    Ambiguous { matching: String },
}

impl Identity {
    /// Reads what the kernel tells under `/proc` and `/sys`. What cannot be read is not known.
    #[must_use]
    pub fn read() -> Self {
        Self::read_under(Path::new("/"))
    }

    /// The same below another root, for tests.
    #[must_use]
    pub fn read_under(root: &Path) -> Self {
        let text = |path: &str| {
            let text = fs::read_to_string(root.join(path)).ok()?;
            Some(text.trim().to_owned()).filter(|text| !text.is_empty())
        };
        let interfaces = fs::read_dir(root.join("sys/class/net")).into_iter().flatten().flatten();
        // A bond's members show the address of the bond; their own is kept beside it.
        let mac = |entry: fs::DirEntry| {
            let own = ["bonding_slave/perm_hwaddr", "address"].map(|file| entry.path().join(file));
            own.into_iter().find_map(|file| fs::read_to_string(file).ok()?.trim().parse().ok())
        };
        let arguments = text("proc/cmdline").unwrap_or_default();
        let argument =
            arguments.split_ascii_whitespace().filter_map(|word| word.strip_prefix("fife.host=")).next_back();
        Self {
            kernel_argument: argument.filter(|name| !name.is_empty()).map(str::to_owned),
            macs: interfaces.filter_map(mac).collect(),
            serial: text("sys/class/dmi/id/product_serial"),
            hostname: text("proc/sys/kernel/hostname"),
        }
    }

    /// Whether everything that is given fits, and something is.
    #[must_use]
    pub fn fits(&self, wanted: &Match) -> bool {
        let fits = |wanted: Option<&String>, own: Option<&String>| wanted.is_none_or(|wanted| own == Some(wanted));
        !wanted.is_empty()
            && wanted.mac.is_none_or(|mac| self.macs.contains(&mac))
            && fits(wanted.serial.as_ref(), self.serial.as_ref())
            && fits(wanted.hostname.as_ref(), self.hostname.as_ref())
    }
}

impl std::fmt::Display for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let macs: Vec<String> = self.macs.iter().map(ToString::to_string).collect();
        let or_none = |text: Option<&String>| text.map_or_else(|| "unknown".to_owned(), |text| format!("\"{text}\""));
        let (serial, hostname) = (or_none(self.serial.as_ref()), or_none(self.hostname.as_ref()));
        write!(f, "mac {}, serial {serial}, hostname {hostname}", macs.join(" "))
    }
}

impl Loaded {
    /// The name of the host that this machine is; `asked` is `--host`.
    ///
    /// # Errors
    /// When it is none, or more than one fits.
    pub fn this_host(&self, asked: Option<&str>, identity: &Identity) -> Result<String, HostError> {
        let known = || self.hosts().keys().cloned().collect::<Vec<_>>().join(", ");
        let named = asked.map(|name| (name, "--host"));
        let named = named.or_else(|| Some((identity.kernel_argument.as_deref()?, "kernel argument fife.host=")));
        if let Some((name, source_)) = named {
            let unknown = || HostError::Unknown { name: name.to_owned(), source_, known: known() };
            return self.hosts().get_key_value(name).map(|(name, _)| name.clone()).ok_or_else(unknown);
        }
        let matching: Vec<&String> =
            self.hosts().iter().filter(|(_, host)| identity.fits(&host.match_)).map(|(name, _)| name).collect();
        match matching.as_slice() {
            [one] => return Ok((*one).clone()),
            [] => {}
            several => {
                let names: Vec<&str> = several.iter().map(|name| name.as_str()).collect();
                return Err(HostError::Ambiguous { matching: names.join(", ") });
            }
        }
        let mut all = self.hosts().iter();
        match (all.next(), all.next()) {
            (Some((only, host)), None) if host.match_.is_empty() => Ok(only.clone()),
            _ => Err(HostError::NoMatch { known: known(), identity: identity.to_string() }),
        }
    }
}
