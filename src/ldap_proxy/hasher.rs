//! Password hashes on threads of their own, a few at a time.
//!
//! Owns: how many are computed at once and how many may wait. Called by: `engine`. Calls: `password`.
//!
//! A hash takes 19 MiB and tens of milliseconds by design: without a bound, a few hundred logins at once
//! would take the machine's memory and starve everything else.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::metrics;
use super::password::{self, PasswordError};
use super::refusal::Refusal;
use crate::config::secret::SecretText;

/// Waiting for a turn longer than this is told as "busy".
const WAIT_MAX: Duration = Duration::from_secs(10);
/// Those who may wait, for each that computes.
const WAITING_PER_THREAD_MAX: usize = 256;

#[derive(Clone)]
pub(super) struct Hasher {
    turns: Arc<Semaphore>,
    /// Turns and places to wait for one.
    places: Arc<Semaphore>,
    /// A hash that no password has, verified in place of the one that an unknown user lacks.
    nobody: Arc<Vec<u8>>,
}

impl Hasher {
    /// # Errors
    /// When no hash can be made (no memory).
    pub(super) fn new() -> Result<Self, PasswordError> {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let random: [u8; 32] = rand::random();
        let nobody = password::hash(hex::encode(random).as_bytes())?.into_bytes();
        Ok(Self {
            turns: Arc::new(Semaphore::new(threads)),
            places: Arc::new(Semaphore::new(threads * WAITING_PER_THREAD_MAX)),
            nobody: Arc::new(nobody),
        })
    }

    /// Waits for a turn to compute.
    pub(super) async fn turn(&self) -> Result<Turn, Refusal> {
        let place = Arc::clone(&self.places).try_acquire_owned().map_err(|_| Refusal::busy())?;
        let turn = timeout(WAIT_MAX, Arc::clone(&self.turns).acquire_owned()).await;
        // Closed never: nobody closes it.
        let turn = turn.map_err(|_| Refusal::busy())?.map_err(|_| Refusal::unavailable())?;
        Ok(Turn { nobody: Arc::clone(&self.nobody), held: (place, turn) })
    }

    /// A new hash of the password.
    pub(super) async fn hash(&self, password: SecretText) -> Result<Result<String, PasswordError>, Refusal> {
        self.turn().await?.compute(move |_| password::hash(password.reveal().as_bytes())).await
    }
}

/// The right to compute once.
pub(super) struct Turn {
    nobody: Arc<Vec<u8>>,
    held: (OwnedSemaphorePermit, OwnedSemaphorePermit),
}

/// A password that was right.
#[derive(Debug)]
pub(super) struct Verified {
    /// The hash that it is the password of, as stored.
    pub(super) stored: Vec<u8>,
    /// The hash that it should have, when the stored one is of another scheme.
    pub(super) renewed: Option<String>,
}

impl Turn {
    /// Which of the hashes is the password's.
    ///
    /// It takes the time of an argon2id hash whatever there is: no hash at all, one of a cheap scheme that is not the
    /// password's, or that is (the new one that replaces it is made then). So time does not tell who has an account.
    pub(super) async fn verify(self, password: SecretText, hashes: Vec<Vec<u8>>) -> Result<Option<Verified>, Refusal> {
        self.compute(move |nobody| {
            let password = password.reveal().as_bytes();
            let all_cheap = !hashes.iter().any(|hash| password::is_current(hash));
            match hashes.into_iter().find(|hash| password::verify(password, hash)) {
                Some(stored) if password::is_current(&stored) => Some(Verified { stored, renewed: None }),
                Some(stored) => Some(Verified { stored, renewed: password::hash(password).ok() }),
                None => {
                    if all_cheap {
                        password::verify(password, nobody);
                    }
                    None
                }
            }
        })
        .await
    }

    async fn compute<T: Send + 'static>(self, work: impl FnOnce(&[u8]) -> T + Send + 'static) -> Result<T, Refusal> {
        metrics::HASHES.inc();
        let work = move || {
            let done = work(&self.nobody);
            drop(self.held);
            done
        };
        tokio::task::spawn_blocking(work).await.map_err(|_| Refusal::unavailable())
    }
}
