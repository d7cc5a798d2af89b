//! What the configuration only points to: secrets and the certificate, read in; and what of it all a role depends on.
//!
//! Owns: `Material`, `RoleView`. Called by: the supervisor, `fife check`. Never: prints a secret or what is in a key file.

use std::collections::BTreeMap;
use std::env;
use std::ffi::OsString;
use std::path::Path;

use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

use super::fault::{Fault, Faults};
use super::hosts::Role;
use super::load::{Loaded, read_bounded};
use super::schema::Section;
use super::secret::{Secret, SecretText};
use super::{Effective, site};

/// Bytes of a secret or PEM file, at most.
const FILE_LEN_MAX: u64 = 1024 * 1024;

/// Secrets and certificate of one host.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Material {
    /// By TOML key: "site.secret", "directory.bind-password", "smtp-outbound.routes.0.password".
    pub secrets: BTreeMap<String, SecretText>,
    /// Certificate chain and key as PEM; `None` when none is configured.
    pub certificate: Option<Pem>,
}

/// A certificate chain and its key, both as PEM text.
#[derive(Clone, PartialEq, Eq)]
pub struct Pem {
    pub chain: String,
    pub key: SecretText,
}

impl std::fmt::Debug for Material {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names: Vec<_> = self.secrets.keys().collect();
        write!(f, "Material {{ secrets: {names:?}, certificate: {} }}", self.certificate.is_some())
    }
}

impl std::fmt::Debug for Pem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Pem(hidden)")
    }
}

impl Material {
    /// The secrets that this role has use for: no other gets to see them.
    pub fn secrets_of(&self, role: Role) -> impl Iterator<Item = (&str, &SecretText)> {
        let is_for = move |name: &str| match role {
            // The site's secret stays with the supervisor; roles get certificates that it makes of it.
            Role::LdapProxy => false,
            Role::PopImap => name.starts_with("directory."),
            Role::Smtp => !name.starts_with("site."),
        };
        self.secrets.iter().map(|(name, secret)| (name.as_str(), secret)).filter(move |(name, _)| is_for(name))
    }
}

/// What a role's process depends on, as a hash: equal as long as it need not be restarted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RoleView([u8; 32]);

/// What this role's process on the host depends on: settings, secrets, certificate. When it differs after a
/// reload, the role is restarted.
#[must_use]
pub fn role_view(effective: &Effective, role: Role, material: &Material) -> RoleView {
    let Effective { host, roles: _, site, tables } = effective;
    // Where the state is does not change while fife runs; the time is the machine's affair.
    let site = site::Site { state: "".into(), time_servers: Vec::new(), ..site.clone() };
    let table = match role {
        Role::LdapProxy => serde_json::json!({ "own": tables.ldap_proxy, "base": tables.directory.base }),
        Role::PopImap => serde_json::json!({ "own": tables.pop_imap, "directory": tables.directory }),
        Role::Smtp => {
            serde_json::json!({ "own": tables.smtp, "authentication": tables.smtp_authentication, "outbound": tables.smtp_outbound, "directory": tables.directory, "dns": tables.dns })
        }
    };
    let settings =
        serde_json::json!({ "host": host, "site": site, "log": tables.log, "tls": tables.tls, "role": table });
    let mut hasher = blake3::Hasher::new();
    let mut feed = |bytes: &[u8]| {
        hasher.update(&u64::try_from(bytes.len()).unwrap_or(u64::MAX).to_le_bytes());
        hasher.update(bytes);
    };
    feed(settings.to_string().as_bytes());
    for (name, secret) in material.secrets_of(role) {
        feed(name.as_bytes());
        feed(secret.reveal().as_bytes());
    }
    if let Some(pem) = &material.certificate {
        feed(pem.chain.as_bytes());
        feed(pem.key.reveal().as_bytes());
    }
    RoleView(*hasher.finalize().as_bytes())
}

impl Loaded {
    /// Reads the secrets and the certificate of this host, which is this machine, with the environment of this process.
    ///
    /// # Errors
    /// Everything that cannot be read or is of no use, at once.
    pub fn material(&self, host: &str) -> Result<Material, Faults> {
        self.material_with(host, &|name| env::var_os(name))
    }

    /// The same with another environment, for tests.
    ///
    /// # Errors
    /// As `material`.
    pub fn material_with(&self, host: &str, env: &dyn Fn(&str) -> Option<OsString>) -> Result<Material, Faults> {
        let Some(effective) = self.effective(host) else { return Ok(Material::default()) };
        let (mut material, mut faults) = (Material::default(), Vec::new());
        let directory = Section::Table("directory");
        let secrets = [
            ("site.secret", Section::Site, "secret", &effective.site.secret, site::SECRET_LEN_MIN),
            ("directory.bind-password", directory, "bind-password", &effective.tables.directory.bind_password, 1),
            ("directory.tls-ca", Section::Table("directory"), "tls-ca", &effective.tables.directory.tls_ca, 1),
        ];
        for (name, section, key, secret, len_min) in secrets {
            let Some(secret) = secret else { continue };
            match reveal(secret, self.dir(), env, len_min) {
                Ok(text) => drop(material.secrets.insert(name.to_owned(), text)),
                Err(message) => faults.push(Fault::new(self.place(host, &section, key), message)),
            }
        }
        for (at, route) in effective.tables.smtp_outbound.routes.iter().enumerate() {
            let Some(secret) = &route.password else { continue };
            match reveal(secret, self.dir(), env, 1) {
                Ok(text) => drop(material.secrets.insert(route_password(at), text)),
                Err(message) => {
                    let place = self.place(host, &Section::Table("smtp-outbound"), "routes");
                    faults.push(Fault::new(place, format!("password of route {}: {message}", at + 1)));
                }
            }
        }
        let tls = &effective.tables.tls;
        if let (Some(certificate), Some(key)) = (&tls.certificate, &tls.key) {
            match read_pair(&self.dir().join(certificate), &self.dir().join(key)) {
                Ok(pem) => material.certificate = Some(pem),
                Err((key, message)) => faults.push(Fault::new(self.place(host, &Section::Table("tls"), key), message)),
            }
        }
        if faults.is_empty() { Ok(material) } else { Err(self.faults(faults)) }
    }
}

/// The name of the password of the route at this place in `[smtp-outbound] routes`.
#[must_use]
pub fn route_password(at: usize) -> String {
    format!("smtp-outbound.routes.{at}.password")
}

/// The secret itself; what is wrong is said without it.
fn reveal(
    secret: &Secret,
    dir: &Path,
    env: &dyn Fn(&str) -> Option<OsString>,
    len_min: usize,
) -> Result<SecretText, String> {
    let text = match secret {
        Secret::Inline(text) => text.clone(),
        Secret::File(file) => {
            let path = dir.join(&file.file);
            let bytes = read_bounded(&path, FILE_LEN_MAX);
            let bytes = bytes.map_err(|error| format!("secret file {} cannot be read: {error}", path.display()))?;
            let text = String::from_utf8(bytes).map_err(|_| format!("secret file {} is not UTF-8", path.display()))?;
            text.trim_end_matches(['\n', '\r']).to_owned()
        }
        Secret::Env(name) => {
            let name = &name.env;
            let text = env(name).ok_or_else(|| format!("environment variable {name} is not set"))?;
            text.into_string().map_err(|_| format!("environment variable {name} is not UTF-8"))?
        }
    };
    match text.len() {
        0 => Err("the secret is empty".to_owned()),
        len if len < len_min => Err(format!("the secret is too short: at least {len_min} bytes are needed")),
        _ => Ok(SecretText::new(text)),
    }
}

/// Certificate chain and key, belonging together; or which of the two settings is at fault, and why.
fn read_pair(certificate: &Path, key: &Path) -> Result<Pem, (&'static str, String)> {
    let read = |path: &Path| {
        let bytes = read_bounded(path, FILE_LEN_MAX);
        let bytes = bytes.map_err(|error| format!("{} cannot be read: {error}", path.display()))?;
        String::from_utf8(bytes).map_err(|_| format!("{} is not PEM text", path.display()))
    };
    let chain_text = read(certificate).map_err(|message| ("certificate", message))?;
    let key_text = read(key).map_err(|message| ("key", message))?;
    let chain: Vec<_> = CertificateDer::pem_slice_iter(chain_text.as_bytes())
        .collect::<Result<_, _>>()
        .ok()
        .filter(|chain: &Vec<_>| !chain.is_empty())
        .ok_or_else(|| ("certificate", format!("{} holds no certificate in PEM", certificate.display())))?;
    let key_der = PrivateKeyDer::from_pem_slice(key_text.as_bytes())
        .map_err(|_| ("key", format!("{} holds no private key in PEM", key.display())))?;
    CertifiedKey::from_der(chain, key_der, &ring::default_provider())
        .map_err(|error| ("key", format!("{} and {} are no pair: {error}", key.display(), certificate.display())))?;
    Ok(Pem { chain: chain_text, key: SecretText::new(key_text) })
}
