//! `fife user`: who has a mailbox.
//!
//! Owns: what is asked and printed. Called by: `cli`. Calls: `directory::admin`, over the running site's own directory.
//! Never: touches mailboxes; those of a user who is gone stay until the store is told.

use std::io::{self, IsTerminal, Read};

use clap::{Args, Subcommand};
use serde::Serialize;

use super::door::{self, Door};
use super::{Exit, Global, complain, print, print_json};
use crate::base::address::{Address, Domain};
use crate::base::size::Size;
use crate::config::secret::SecretText;
use crate::directory::admin::{self, NewUser};
use crate::directory::{Account, AccountStatus, AdminError, Forwarding};

/// Octets of a password read from standard input, at most.
const PASSWORD_LEN_MAX: u64 = 1024;

/// Users: add, change their password, suspend, remove, list.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Add a user. Without --password-stdin a terminal is asked for the password; elsewhere one is made and printed.
    Add(Add),
    /// Give a user a new password; asked, read or made as by `add`.
    Passwd(Passwd),
    /// Stop logins; mail still comes in, unless it is to be refused.
    Suspend(Suspend),
    /// Undo `suspend`.
    Resume(Named),
    /// Say where a user's mail goes, or change it.
    Forward(Forward),
    /// Remove a user from the directory.
    Del(Named),
    /// List users, of one domain or of all.
    List(List),
}

#[derive(Debug, Args)]
struct Add {
    /// The address, which is also the login.
    address: Address,
    /// The name for people.
    #[arg(long, default_value = "")]
    name: String,
    /// What the mailboxes may hold together, as "2 GiB".
    #[arg(long)]
    quota: Option<Size>,
    /// Read the password from standard input: its first line.
    #[arg(long)]
    password_stdin: bool,
    /// Make an administrator of the site.
    #[arg(long)]
    admin: bool,
}

#[derive(Debug, Args)]
struct Passwd {
    address: Address,
    /// Read the password from standard input: its first line.
    #[arg(long)]
    password_stdin: bool,
}

#[derive(Debug, Args)]
struct Suspend {
    address: Address,
    /// Refuse mail too.
    #[arg(long)]
    refuse_mail: bool,
}

#[derive(Debug, Args)]
struct Forward {
    address: Address,
    /// Pass mail on to these addresses, separated by commas; a copy is kept unless --no-keep says otherwise.
    #[arg(long, value_delimiter = ',', num_args = 1..)]
    to: Vec<Address>,
    /// Keep a copy.
    #[arg(long, conflicts_with = "no_keep")]
    keep: bool,
    /// Keep no copy.
    #[arg(long)]
    no_keep: bool,
    /// Pass nothing on any more.
    #[arg(long, conflicts_with_all = ["to", "keep", "no_keep"])]
    off: bool,
}

#[derive(Debug, Args)]
struct Named {
    address: Address,
}

#[derive(Debug, Args)]
struct List {
    /// Only users of this domain.
    domain: Option<Domain>,
}

/// A user as shown.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct Shown<'a> {
    address: &'a Address,
    name: &'a str,
    status: &'a str,
    administrator: bool,
    quota_bytes: Option<u64>,
    /// Stays the same when the address changes.
    id: String,
}

/// Where a user's mail goes, as shown.
#[derive(Debug, Serialize)]
struct ShownForwarding<'a> {
    address: &'a Address,
    to: &'a [Address],
    keep: bool,
}

/// A user that was made or changed.
#[derive(Debug, Serialize)]
struct Done<'a> {
    address: &'a Address,
    /// Only a password that was made here is told.
    #[serde(skip_serializing_if = "Option::is_none")]
    password: Option<&'a str>,
}

pub(super) fn run(global: &Global, arguments: &Arguments) -> Exit {
    let door = match Door::find(global) {
        Ok(door) => door,
        Err(exit) => return exit,
    };
    match &arguments.what {
        What::Add(add) => run_add(global, &door, add),
        What::Passwd(passwd) => run_passwd(global, &door, passwd),
        What::Suspend(suspend) => {
            let status = if suspend.refuse_mail { AccountStatus::Disabled } else { AccountStatus::NoAccess };
            door.change(async |directory| admin::set_user_status(directory, &suspend.address, status).await)
        }
        What::Resume(named) => {
            let status = AccountStatus::Active;
            door.change(async |directory| admin::set_user_status(directory, &named.address, status).await)
        }
        What::Forward(forward) => run_forward(global, &door, forward),
        What::Del(named) => door.change(async |directory| admin::delete_user(directory, &named.address).await),
        What::List(list) => {
            let mut shown = 0_u64;
            let mut visit = |user: &Account| {
                show(global, user, shown == 0);
                shown += 1;
            };
            let listed =
                door.ask(async |directory| admin::each_user(directory, list.domain.as_ref(), &mut visit).await);
            if global.json && listed.is_ok() {
                print(if shown == 0 { "[]" } else { "]" });
            }
            door::show(listed, |()| ())
        }
    }
}

fn run_add(global: &Global, door: &Door, add: &Add) -> Exit {
    let (password, made) = match password(add.password_stdin, &add.address) {
        Ok(password) => password,
        Err(exit) => return exit,
    };
    let user = NewUser {
        address: add.address.clone(),
        name: add.name.clone(),
        quota_bytes: add.quota.map(Size::get),
        password: password.clone(),
        admin: add.admin,
    };
    let added = door.ask(async |directory| admin::add_user(directory, &user).await);
    tell(global, &add.address, added, made.then_some(&password))
}

fn run_passwd(global: &Global, door: &Door, passwd: &Passwd) -> Exit {
    let (password, made) = match password(passwd.password_stdin, &passwd.address) {
        Ok(password) => password,
        Err(exit) => return exit,
    };
    let changed = door.ask(async |directory| admin::set_password(directory, &passwd.address, &password).await);
    tell(global, &passwd.address, changed, made.then_some(&password))
}

fn run_forward(global: &Global, door: &Door, forward: &Forward) -> Exit {
    let answer = door.ask(async |directory| {
        let mut forwarding = admin::forwarding(directory, &forward.address).await?;
        if forward.off {
            forwarding = Forwarding { to: Vec::new(), keep: true };
        } else if forward.to.is_empty() && !forward.keep && !forward.no_keep {
            return Ok(forwarding);
        }
        if !forward.to.is_empty() {
            forwarding = Forwarding { to: forward.to.clone(), keep: true };
        }
        if forward.keep || forward.no_keep {
            forwarding.keep = forward.keep;
        }
        admin::set_forwarding(directory, &forward.address, &forwarding).await?;
        Ok(forwarding)
    });
    door::show(answer, |Forwarding { to, keep }| {
        let address = &forward.address;
        if global.json {
            return print_json(&ShownForwarding { address, to: &to, keep });
        }
        for target in &to {
            print(target);
        }
        if keep && !to.is_empty() {
            print("and kept");
        }
    })
}

/// The password, and whether it was made here.
fn password(from_stdin: bool, address: &Address) -> Result<(SecretText, bool), Exit> {
    let asked = if from_stdin {
        first_line()
    } else if io::stdin().is_terminal() {
        ask(address)
    } else {
        return Ok((admin::generate_password(), true));
    };
    match asked {
        Ok(password) if password.reveal().is_empty() => {
            complain("the password is empty");
            Err(Exit::Failed)
        }
        Ok(password) => Ok((password, false)),
        Err(error) => {
            complain(format_args!("cannot read the password: {error}"));
            Err(Exit::Failed)
        }
    }
}

fn first_line() -> io::Result<SecretText> {
    let mut text = String::new();
    io::stdin().take(PASSWORD_LEN_MAX).read_to_string(&mut text)?;
    Ok(SecretText::new(text.lines().next().unwrap_or_default().to_owned()))
}

fn ask(address: &Address) -> io::Result<SecretText> {
    let first = rpassword::prompt_password(format!("Password for {address}: "))?;
    let second = rpassword::prompt_password("Again: ")?;
    if first == second { Ok(SecretText::new(first)) } else { Err(io::Error::other("the two are not the same")) }
}

fn tell(global: &Global, address: &Address, outcome: Result<(), AdminError>, made: Option<&SecretText>) -> Exit {
    door::show(outcome, |()| {
        let password = made.map(SecretText::reveal);
        if global.json {
            print_json(&Done { address, password });
        } else if let Some(password) = password {
            print(format_args!("password: {password}"));
        }
    })
}

/// One user of a list; in JSON an element of an array whose end is printed by the caller.
fn show(global: &Global, user: &Account, is_first: bool) {
    let user = Shown {
        address: &user.address,
        name: &user.name,
        status: user.status.as_str(),
        administrator: user.admin,
        quota_bytes: user.quota_bytes,
        id: hex::encode(user.id),
    };
    if global.json {
        print(if is_first { "[" } else { "," });
        return print_json(&user);
    }
    let quota = user.quota_bytes.map_or_else(|| "no quota".to_owned(), |bytes| Size::bytes(bytes).to_string());
    let administrator = if user.administrator { "  administrator" } else { "" };
    print(format_args!("{:<32} {:<9} {quota:<10} {}{administrator}", user.address.to_string(), user.status, user.name));
}
