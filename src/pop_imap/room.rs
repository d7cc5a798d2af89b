//! How much of messages that are not whole yet sessions hold in memory: together, and for one account.
//!
//! Owns: `Rooms`, `Room`. Called by: `imap::serve` (APPEND). Never: waits; who finds no room is told to come again.
//!
//! Invariants: what is held is the sum over rooms; the table has only accounts that hold something; a room gives back what it holds
//! when it is dropped.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use super::store::AccountId;

/// The room that there is.
pub struct Rooms {
    all_max: usize,
    account_max: usize,
    held: Mutex<Held>,
}

#[derive(Default)]
struct Held {
    all: usize,
    accounts: HashMap<AccountId, usize>,
}

/// What one session holds.
pub struct Room<'a> {
    rooms: &'a Rooms,
    account: AccountId,
    octets: usize,
}

impl Rooms {
    /// Octets for all sessions together, and for the sessions of one account: nobody shall be able to take it all.
    #[must_use]
    pub fn new(all_max: usize, account_max: usize) -> Self {
        Self { all_max, account_max, held: Mutex::default() }
    }

    /// A room of this account's, with nothing in it.
    pub fn room(&self, account: AccountId) -> Room<'_> {
        Room { rooms: self, account, octets: 0 }
    }
}

impl Room<'_> {
    /// Holds so many octets from now on, in all. False: there is no room for them, and it holds what it held.
    pub fn hold(&mut self, octets: usize) -> bool {
        let mut held = self.rooms.held.lock().unwrap_or_else(PoisonError::into_inner);
        let all = held.all - self.octets + octets;
        let account = held.accounts.get(&self.account).copied().unwrap_or_default() - self.octets + octets;
        if octets > self.octets && (all > self.rooms.all_max || account > self.rooms.account_max) {
            return false;
        }
        held.all = all;
        if account == 0 {
            held.accounts.remove(&self.account);
        } else {
            held.accounts.insert(self.account, account);
        }
        self.octets = octets;
        true
    }
}

impl Drop for Room<'_> {
    fn drop(&mut self) {
        self.hold(0);
    }
}

#[cfg(test)]
mod tests;
