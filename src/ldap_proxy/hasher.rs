//! Password hashes on threads of their own, a few at a time.
//!
//! Owns: how many are computed at once and how many may wait. Called by: `engine`. Calls: `password`.
//!
//! A hash takes 19 MiB and tens of milliseconds by design: without a bound, a few hundred logins at once
//! would take the machine's memory and starve everything else.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
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

    /// Which of the hashes is the password's; as slow when there are none.
    pub(super) async fn verify(&self, password: SecretText, hashes: Vec<Vec<u8>>) -> Result<Option<Vec<u8>>, Refusal> {
        let nobody = Arc::clone(&self.nobody);
        self.compute(move || {
            if hashes.is_empty() {
                password::verify(password.reveal().as_bytes(), &nobody);
            }
            hashes.into_iter().find(|hash| password::verify(password.reveal().as_bytes(), hash))
        })
        .await
    }

    /// A new hash of the password.
    pub(super) async fn hash(&self, password: SecretText) -> Result<Result<String, PasswordError>, Refusal> {
        self.compute(move || password::hash(password.reveal().as_bytes())).await
    }

    async fn compute<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, Refusal> {
        let _place = self.places.try_acquire().map_err(|_| Refusal::busy())?;
        let turn = timeout(WAIT_MAX, Arc::clone(&self.turns).acquire_owned()).await;
        // Closed never: nobody closes it.
        let turn = turn.map_err(|_| Refusal::busy())?.map_err(|_| Refusal::unavailable())?;
        metrics::HASHES.inc();
        let work = move || {
            let done = work();
            drop(turn);
            done
        };
        tokio::task::spawn_blocking(work).await.map_err(|_| Refusal::unavailable())
    }
}
