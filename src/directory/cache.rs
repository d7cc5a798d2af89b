//! A small map that forgets: by age, and when it is full.
//!
//! Owns: `Cache`. Called by: `client`, `remembered`. Never: reads the clock.
//!
//! Two generations: new values go to the young one; when it holds half of what is allowed it becomes
//! the old one, and what was old is dropped. So it never holds more than `entries_max`, and what was
//! asked for lately stays, at the price of two look-ups.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

#[derive(Debug)]
pub(super) struct Cache<V> {
    lifetime: Duration,
    entries_max: usize,
    generations: Mutex<Generations<V>>,
}

#[derive(Debug)]
struct Generations<V> {
    young: HashMap<String, (Instant, V)>,
    old: HashMap<String, (Instant, V)>,
}

impl<V: Clone> Cache<V> {
    pub(super) fn new(lifetime: Duration, entries_max: usize) -> Self {
        let generations = Mutex::new(Generations { young: HashMap::new(), old: HashMap::new() });
        Self { lifetime, entries_max, generations }
    }

    /// The value, when it is younger than the lifetime.
    pub(super) fn get(&self, key: &str, now: Instant) -> Option<V> {
        let generations = self.lock();
        let (born, value) = generations.young.get(key).or_else(|| generations.old.get(key))?;
        (now.saturating_duration_since(*born) < self.lifetime).then(|| value.clone())
    }

    pub(super) fn put(&self, key: String, value: V, now: Instant) {
        if self.lifetime.is_zero() {
            return;
        }
        let mut generations = self.lock();
        if generations.young.len() >= self.entries_max / 2 {
            generations.old = std::mem::take(&mut generations.young);
        }
        generations.young.insert(key, (now, value));
    }

    pub(super) fn forget(&self, key: &str) {
        let mut generations = self.lock();
        generations.young.remove(key);
        generations.old.remove(key);
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        let generations = self.lock();
        generations.young.len() + generations.old.len()
    }

    /// A panic elsewhere cannot leave the maps half changed: each change is one call on one map.
    fn lock(&self) -> std::sync::MutexGuard<'_, Generations<V>> {
        self.generations.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
