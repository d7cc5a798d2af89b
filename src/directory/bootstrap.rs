//! The first entries of an empty directory: top, first domain, first administrator.
//!
//! Called by: the supervisor, once ldap-proxy is ready. Never: touches a directory that has an administrator.

use std::io;

use super::admin::{self, NewUser};
use super::client::Directory;
use super::error::AdminError;
use crate::base::address::{Address, Domain};
use crate::config::secret::SecretText;

/// Local part of the first administrator's address.
const FIRST_ADMINISTRATOR: &str = "admin";

/// Makes what the directory of a new site lacks, and tells the first administrator, who gets this password;
/// none when the site has an administrator already.
///
/// `keep` is called with his address before he is made, and must make it durable with the password (the
/// supervisor writes `first-admin.txt`): so a crash in between costs nothing. It can be called again
/// at the next start, with another password; the last one holds.
///
/// # Errors
/// When the directory gives no answer or `keep` fails; the next call goes on from there. It has to bring the same password: what was not
/// answered in time may be carried out later.
pub async fn bootstrap(
    directory: &Directory,
    domain: &Domain,
    password: &SecretText,
    keep: impl FnOnce(&Address) -> io::Result<()>,
) -> Result<Option<Address>, AdminError> {
    if admin::has_administrator(directory).await? {
        return Ok(None);
    }
    admin::add_base(directory).await?;
    match admin::add_domain(directory, domain, &[]).await {
        Ok(()) | Err(AdminError::Exists(_)) => {}
        Err(error) => return Err(error),
    }
    let Ok(address) = format!("{FIRST_ADMINISTRATOR}@{domain}").parse::<Address>() else {
        return Err(AdminError::NotFound(domain.to_string()));
    };
    let users = admin::list_users(directory, Some(domain)).await?;
    if users.iter().any(|user| user.address == address) {
        // Somebody took the role away from him; that was wanted.
        return Ok(None);
    }
    keep(&address).map_err(|error| AdminError::Keep(error.to_string()))?;
    let user = NewUser {
        address: address.clone(),
        name: "Administrator".to_owned(),
        quota_bytes: None,
        password: password.clone(),
        admin: true,
    };
    admin::add_user(directory, &user).await?;
    Ok(Some(address))
}
