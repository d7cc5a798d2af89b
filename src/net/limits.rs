//! How many connections are let in, in all and from one client.
//!
//! Owns: `Limits`, `Permit`. Called by: the accept loop. Never: blocks.
//!
//! Invariants: the table holds only clients with at least one permit, so it is never larger than
//! `connections_max`; a permit that is dropped is counted out exactly once.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::peer::{ClientKey, Peer};

/// How many connections are let in. One for all listeners that share a limit.
#[derive(Debug)]
pub struct Limits {
    connections_max: u32,
    per_client_max: u32,
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    total: u32,
    clients: HashMap<ClientKey, u32>,
}

/// A connection that was let in; counted until dropped.
#[derive(Debug)]
pub struct Permit {
    limits: Arc<Limits>,
    client: Option<ClientKey>,
}

impl Limits {
    /// Connections at a time, in all and from one client address (IPv6: one /64). Unix sockets count only in all.
    #[must_use]
    pub fn new(connections_max: u32, per_client_max: u32) -> Arc<Self> {
        Arc::new(Self { connections_max, per_client_max, open: Mutex::default() })
    }

    /// Lets a connection in, or does not.
    pub fn admit(self: &Arc<Self>, peer: &Peer) -> Option<Permit> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if open.total >= self.connections_max {
            return None;
        }
        let client = peer.client_key();
        if let Some(key) = client {
            if open.clients.get(&key).is_some_and(|count| *count >= self.per_client_max) || self.per_client_max == 0 {
                return None;
            }
            *open.clients.entry(key).or_default() += 1;
        }
        open.total += 1;
        Some(Permit { limits: Arc::clone(self), client })
    }

    /// Connections that are let in at present.
    #[must_use]
    pub fn open(&self) -> u32 {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).total
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut open = self.limits.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.total = open.total.saturating_sub(1);
        if let Some(key) = self.client
            && let Some(count) = open.clients.get_mut(&key)
        {
            *count = count.saturating_sub(1);
            if *count == 0 {
                open.clients.remove(&key);
            }
        }
    }
}
