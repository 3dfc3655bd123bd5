//! At most one run of the same work at a time, its result shared by all who want it.
//!
//! A shared future, not a spawned task: whoever waits also drives it, so when the first caller goes away another one
//! carries on, and when all are gone the work is dropped with them, child processes included.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;
use std::sync::{Mutex, PoisonError};

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared, WeakShared};

type Work<T> = BoxFuture<'static, T>;

/// Work in flight, by key.
pub(crate) struct Once<K, T: Clone>(Mutex<HashMap<K, WeakShared<Work<T>>>>);

impl<K: Eq + Hash, T: Clone + Send + 'static> Once<K, T> {
    pub(crate) fn new() -> Self {
        Self(Mutex::new(HashMap::new()))
    }

    /// Joins the work under `key`, or starts `make`. Cancel safe.
    pub(crate) fn run(&self, key: K, make: impl FnOnce() -> Work<T>) -> Shared<Work<T>> {
        let mut flights = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(shared) = flights.get(&key).and_then(WeakShared::upgrade) {
            return shared;
        }
        flights.retain(|_, flight| flight.upgrade().is_some());
        let shared = make().shared();
        if let Some(weak) = shared.downgrade() {
            flights.insert(key, weak);
        }
        shared
    }
}

/// A map that forgets its oldest entry when it is full.
pub(crate) struct Recent<K, V> {
    map: HashMap<K, V>,
    order: VecDeque<K>,
    capacity: usize,
}

impl<K: Eq + Hash + Clone, V: Clone> Recent<K, V> {
    pub(crate) fn new(capacity: usize) -> Self {
        Self { map: HashMap::new(), order: VecDeque::new(), capacity }
    }

    pub(crate) fn get(&self, key: &K) -> Option<V> {
        self.map.get(key).cloned()
    }

    pub(crate) fn insert(&mut self, key: K, value: V) {
        if self.map.insert(key.clone(), value).is_none() {
            self.order.push_back(key);
        }
        if self.order.len() > self.capacity
            && let Some(oldest) = self.order.pop_front()
        {
            self.map.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    use futures_util::future::join_all;
    use tokio::sync::Notify;

    use super::*;

    #[tokio::test]
    async fn all_who_ask_at_once_share_one_run() {
        let (once, runs) = (Once::new(), Arc::new(AtomicU32::new(0)));
        let work = || {
            let runs = runs.clone();
            async move {
                tokio::task::yield_now().await;
                runs.fetch_add(1, Ordering::Relaxed)
            }
            .boxed()
        };
        let answers = join_all((0..50).map(|_| once.run("key", work))).await;
        assert_eq!(answers, vec![0; 50]);
        assert_eq!(once.run("key", work).await, 1, "a finished run is not kept");
    }

    #[tokio::test]
    async fn others_carry_on_when_the_first_caller_goes_away() {
        let (once, gate) = (Once::new(), Arc::new(Notify::new()));
        let waiting = gate.clone();
        let mut first = Box::pin(once.run(1, || async move { waiting.notified().await }.boxed()));
        let mut second = Box::pin(once.run(1, || unreachable!()));
        assert!((&mut first).now_or_never().is_none());
        assert!((&mut second).now_or_never().is_none());
        drop(first);
        gate.notify_one();
        second.await;
    }

    #[test]
    fn the_oldest_is_forgotten_first() {
        let mut recent = Recent::new(2);
        for key in [1, 2, 2, 3] {
            recent.insert(key, key * 10);
        }
        assert_eq!((recent.get(&1), recent.get(&2), recent.get(&3)), (None, Some(20), Some(30)));
    }
}
