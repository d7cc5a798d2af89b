//! The wish to stop, seen by every task of a process.
//!
//! Owns: `Shutdown` (who watches) and `Stopper` (who says). Called by: roles, the accept loop,
//! the supervisor. Never: ends anything by itself; who watches finishes what is in hand.

use std::io;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// Tells whether the process is to stop. Clone it freely.
#[derive(Debug, Clone)]
pub struct Shutdown(watch::Receiver<bool>);

/// Says that it is time to stop. Dropping it says so too.
#[derive(Debug)]
pub struct Stopper(watch::Sender<bool>);

impl Shutdown {
    /// A wish and who watches it.
    #[must_use]
    pub fn pair() -> (Stopper, Self) {
        let (sender, receiver) = watch::channel(false);
        (Stopper(sender), Self(receiver))
    }

    /// Has the wish been said?
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        *self.0.borrow() || self.0.has_changed().is_err()
    }

    /// Resolves when it was said so long ago: whoever is still at it then need not be waited for.
    pub async fn overdue(mut self, patience: Duration) {
        self.stopping().await;
        tokio::time::sleep(patience).await;
    }

    /// Waits until it is said. Safe to drop and call again.
    pub async fn stopping(&mut self) {
        // An error means that the stopper is gone, and with it whoever would have kept the process running.
        drop(self.0.wait_for(|stopping| *stopping).await);
    }
}

impl Stopper {
    /// Says it. Once is enough.
    pub fn stop(&self) {
        self.0.send_replace(true);
    }

    /// Says it when the process receives SIGTERM. SIGINT and SIGHUP, which a terminal sends to supervisor and roles
    /// alike, are left to the supervisor. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// A handler could not be set up.
    pub fn stop_on_signal(self) -> io::Result<()> {
        let mut terminate = signal(SignalKind::terminate())?;
        // A handler stays for the life of the process, and with it the default, to die, is gone.
        drop(signal(SignalKind::interrupt())?);
        drop(signal(SignalKind::hangup())?);
        tokio::spawn(async move {
            terminate.recv().await;
            self.stop();
            // Keeps the sender, so that later watchers see "stopping", not "gone"; both mean the same.
            std::future::pending::<()>().await;
        });
        Ok(())
    }
}
