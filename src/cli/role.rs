//! `fife role NAME`: one role, as the supervisor starts it.
//!
//! Owns: the order of a role's first steps: take the handover, enter the sandbox, log, serve. Called by: the
//! supervisor, which re-executes the binary. Never: reads the configuration file or the environment.

use std::error::Error;
use std::os::fd::RawFd;
use std::time::Duration;

use clap::Args;
use tracing::{debug, error, warn};

use super::{Exit, complain};
use crate::config::hosts::Role;
use crate::net::sandbox::{self, Confinement};
use crate::net::{Handover, log};

/// What is waited for work on blocking threads when the role has ended otherwise.
const BLOCKING_PATIENCE: Duration = Duration::from_secs(5);

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The role.
    name: String,
    /// The descriptor on which the handover lies.
    #[arg(long)]
    handover: RawFd,
}

pub(super) fn run(arguments: &Arguments) -> Exit {
    let mut handover = match Handover::receive(arguments.handover) {
        Ok(handover) if handover.role.name() == arguments.name => handover,
        Ok(handover) => {
            complain(format_args!("the handover is for {}, not {}", handover.role, arguments.name));
            return Exit::Usage;
        }
        Err(error) => {
            complain(error);
            return Exit::Usage;
        }
    };
    let confinement = sandbox::enter(&handover);
    let log_file = handover.take_log_file();
    log::init(handover.role.name(), &handover.effective.host, &handover.effective.tables.log, log_file);
    match confinement {
        Ok(Confinement::Full) => {}
        Ok(Confinement::Partial) => debug!("the kernel knows an older Landlock: files are confined, other things less"),
        Ok(Confinement::None) => warn!("the kernel knows no Landlock: the role is confined by its user only"),
        Err(error) => {
            error!(%error, "cannot enter the sandbox");
            return Exit::Failed;
        }
    }
    let _lock = match handover.lock_dir() {
        Ok(lock) => lock,
        Err(error) => {
            error!(%error, "cannot have the role's directory");
            return Exit::Failed;
        }
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            error!(%error, "no event loop");
            return Exit::Failed;
        }
    };
    let served = runtime.block_on(async {
        handover.stop_on_signal()?;
        serve(handover).await
    });
    runtime.shutdown_timeout(BLOCKING_PATIENCE);
    match served {
        Ok(()) => Exit::Done,
        Err(error) => {
            error!(%error, "the role ended");
            Exit::Failed
        }
    }
}

/// Joins names to roles: the one place where they meet.
async fn serve(handover: Handover) -> Result<(), Box<dyn Error>> {
    match handover.role {
        Role::LdapProxy => Ok(crate::ldap_proxy::serve(handover).await?),
        Role::PopImap => Ok(crate::pop_imap::serve::serve(handover).await?),
        Role::Smtp => Ok(crate::smtp::serve(handover).await?),
    }
}
