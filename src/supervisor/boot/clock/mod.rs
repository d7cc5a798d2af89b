//! The machine's clock: never earlier than it was already, right as soon as somebody says what time it is, and kept so.
//!
//! Owns: `Begun`, `Clock`. Called by: boot. Never: set from anywhere else: who wants it set asks process 1 by the control socket.
//!
//! At boot the kernel has taken the time from the clock on the board (`device`). `Begun` lifts one that cannot be right to the last known
//! time (`book`, `note`). Then `keeper` asks time servers (`servers`) for as long as the machine runs, `decision` says who is believed and what is
//! done, `report` tells it. The first answer may step the clock; later it is slewed, because what runs counts on it.

mod book;
mod decision;
mod device;
mod keeper;
mod note;
mod report;
mod servers;

#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

pub use device::Timepiece;
pub use report::{Report, ServerReport, Source};

use super::network;
use crate::config::site::TimeServer;
use book::Book;
use device::Device;
use keeper::{Keeper, Order, Schedule, State};
use report::date;

/// What the kernel was started with: it is as old as this version.
const INIT: &str = "/init";
/// Where the time is noted, below the data directory.
const NOTE: &str = "clock.json";

/// The clock before anybody was asked.
#[derive(Debug)]
pub struct Begun {
    timepiece: Arc<dyn Timepiece>,
    book: Book,
    /// What it said at first.
    said: SystemTime,
    lifted: Option<SystemTime>,
}

impl Begun {
    /// The machine's own.
    #[must_use]
    pub(super) fn of_the_machine() -> Self {
        Self::new(Arc::new(Device), note::built(Path::new(INIT)))
    }

    /// Lifts it to the time at which this version was built, if it is earlier.
    #[must_use]
    pub fn new(timepiece: Arc<dyn Timepiece>, built: SystemTime) -> Self {
        let said = timepiece.now();
        let mut begun = Self { timepiece, book: Book::new(built), said, lifted: None };
        begun.lift();
        begun
    }

    /// Lifts it to the last time that was noted in this directory, if it is earlier. It is noted there from now on.
    pub fn remember(&mut self, data: &Path) {
        self.book.open(data.join(NOTE));
        self.lift();
    }

    fn lift(&mut self) {
        if let Some(to) = decision::start(self.timepiece.now(), &self.book.bounds()) {
            match self.timepiece.set(to) {
                Ok(()) => self.lifted = Some(to),
                Err(error) => tracing::error!(%error, "the clock cannot be set"),
            }
        }
    }

    /// What was wrong with the clock on the board, for people.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        let to = self.lifted?;
        Some(format!(
            "the hardware clock says {}, which cannot be: the clock is set to {}, the last time that is known. \
             The battery on the board may be empty. Set the time (console, 3), or name [site] time-servers",
            date(self.said),
            date(to)
        ))
    }
}

/// The clock, kept by a task until this is dropped.
#[derive(Debug)]
pub struct Clock {
    timepiece: Arc<dyn Timepiece>,
    book: Arc<Book>,
    settings: watch::Sender<Vec<TimeServer>>,
    state: watch::Receiver<State>,
    orders: mpsc::Sender<Order>,
    task: JoinHandle<()>,
}

impl Drop for Clock {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Clock {
    /// Begins to ask these servers, or those that the network names where these are none. To be called inside a runtime.
    #[must_use]
    pub fn start(begun: Begun, servers: Vec<TimeServer>, network: Option<watch::Receiver<network::Report>>) -> Self {
        let (settings, settings_inbox) = watch::channel(servers);
        let (state_outbox, state) = watch::channel(State::new(begun.trouble()));
        let (orders, orders_inbox) = mpsc::channel(1);
        let book = Arc::new(begun.book);
        let keeper = Keeper {
            timepiece: Arc::clone(&begun.timepiece),
            book: Arc::clone(&book),
            state: state_outbox,
            settings: settings_inbox,
            network,
            orders: orders_inbox,
            schedule: Schedule::new(Instant::now()),
        };
        Self { timepiece: begun.timepiece, book, settings, state, orders, task: tokio::spawn(keeper.run()) }
    }

    /// Asks other servers.
    pub fn change(&self, servers: Vec<TimeServer>) {
        self.settings.send_if_modified(|before| {
            let is_other = *before != servers;
            *before = servers;
            is_other
        });
    }

    /// How it stands.
    #[must_use]
    pub fn report(&self) -> Report {
        self.state.borrow().report(Instant::now(), self.timepiece.now())
    }

    /// Sets it for a person; in words what came of it.
    ///
    /// # Errors
    /// It was not set, and why.
    pub async fn set(&self, to: SystemTime) -> Result<String, String> {
        let gone = || "nobody keeps the clock any more".to_owned();
        let (reply, replied) = oneshot::channel();
        self.orders.send((to, reply)).await.map_err(|_| gone())?;
        replied.await.map_err(|_| gone())?
    }

    /// Waits until servers have been asked once; not longer than this.
    pub async fn asked(&self, at_most: Duration) {
        let mut state = self.state.clone();
        // Late, or the task has ended: the clock is what it is.
        drop(tokio::time::timeout(at_most, state.wait_for(|state| state.rounds > 0)).await);
    }

    /// To hear of changes.
    #[must_use]
    pub fn watch(&self) -> Watch {
        Watch(self.state.clone())
    }

    /// The machine stops: notes the time, also on the board if it is right.
    pub fn end(&self) {
        let (source, synchronised) = {
            let state = self.state.borrow();
            (state.source, state.is_synchronised(Instant::now()))
        };
        let now = self.timepiece.now();
        if synchronised {
            self.book.trust(now);
        }
        self.book.note(now);
        let is_worth_it = match source {
            Source::Servers | Source::Hand => true,
            // Its own, or one that would hide that the board has lost the time.
            Source::Hardware | Source::LastKnown => false,
        };
        if is_worth_it && let Err(error) = self.timepiece.keep() {
            tracing::warn!(%error, "the hardware clock is not set");
        }
    }
}

/// Hears of changes of the clock's state.
#[derive(Debug, Clone)]
pub struct Watch(watch::Receiver<State>);

impl Watch {
    /// How often the clock has been set at once since boot.
    #[must_use]
    pub fn steps(&self) -> u64 {
        self.0.borrow().steps
    }

    /// Waits for the next change, and answers the same. For ever once nobody keeps the clock any more.
    pub async fn changed(&mut self) -> u64 {
        if self.0.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
        self.0.borrow_and_update().steps
    }
}
